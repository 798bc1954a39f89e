"""Which tokens a folder's files name and add: as transformers has it, and said where they contradict each other."""

import copy
import json
import logging

import pytest

from minigen.errors import TokenizerError
from minigen.tokenizer import load_tokenizer

GPT2, FAST, QWEN2 = "GPT2Tokenizer", "PreTrainedTokenizerFast", "Qwen2Tokenizer"
TALK = "<|user|>the ball <|x|> ran<|end|>\n    plain <|end|> e\u0301 <|user|>"


@pytest.fixture(scope="module")
def spec(byte_level_spec):
    """Of 401 tokens: two control tokens, <|end|> and <|end|><|end|>, and <|x|>, which is only in the vocabulary."""
    made = copy.deepcopy(byte_level_spec)
    vocab = {name: i for name, i in made["model"]["vocab"].items() if i < 400}
    merges = [pair for pair in made["model"]["merges"] if "".join(pair) in vocab]
    made["model"] |= {"vocab": vocab | {"<|x|>": 400}, "merges": merges}
    return made


def entry(content, **flags):
    plain = {
        "lstrip": False,
        "rstrip": False,
        "single_word": False,
        "normalized": False,
        "special": True,
    }
    return {"content": content, **plain, **flags}


def pair_of_files(spec):
    model = spec["model"]
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]) + "\n"
    return {"vocab_json": model["vocab"], "merges_txt": merges}


def loaded(place, caplog):
    """The tokenizer, and the warnings that it gave, without the path."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "minigen"):
        tokenizer = load_tokenizer(place, json.loads((place / "config.json").read_text()))
    return tokenizer, [record.getMessage().replace(str(place), "DIR") for record in caplog.records]


def oracle(place):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(place)


def agree(place, texts, caplog):
    """Says what transformers says, and nothing else; returns ours."""
    ours, warnings = loaded(place, caplog)
    theirs = oracle(place)
    assert warnings == []
    for text in texts:
        ids = theirs(text, add_special_tokens=False).input_ids
        assert ours.encode(text, bos=False, special=True) == ids
        assert ours.decode(ids, skip_special=False) == theirs.decode(
            ids, clean_up_tokenization_spaces=False
        )
    return ours, theirs


ADDED = {"<|user|>": 401, "<|stop|>": 402, "    ": 403, "plain": 404}
OBJECT = {"__type": "AddedToken"}  # transformers wants it, we do not
CASES = {
    "named in the config": ({"eos_token": "<|stop|>", "pad_token": "<|user|>"}, {}),
    "named as objects": (
        {"eos_token": OBJECT | entry("<|stop|>"), "additional_special_tokens": ["<|user|>"]},
        {},
    ),
    "listed as objects": (
        {"eos_token": "<|stop|>", "additional_special_tokens": [OBJECT | entry("<|user|>")]},
        {},
    ),
    "named in the map": ({}, {"eos_token": "<|stop|>", "additional_special_tokens": ["<|user|>"]}),
    "objects in the map": (
        {},
        {"eos_token": entry("<|stop|>", normalized=True), "pad_token": entry("<|user|>")},
    ),
    "the map wins": ({"eos_token": "<|end|>"}, {"eos_token": "<|stop|>"}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", [GPT2, FAST])
def test_added_tokens_json(folder, spec, caplog, name, whole, kind):
    """How transformers before 4.34 saved tokens that were added."""
    if kind == FAST and not whole:
        pytest.skip("that class has no vocab.json")
    config, token_map = CASES[name]
    defaults = dict.fromkeys(
        ["bos_token", "unk_token"], "<|end|>"
    )  # GPT2Tokenizer has others of its own
    place = folder(
        config_json={"model_type": "gpt2"},
        tokenizer_config_json={"tokenizer_class": kind, **defaults, **config},
        added_tokens_json={"<|end|>": 0, "<|x|>": 400} | ADDED,
        **({"tokenizer_json": spec} if whole else pair_of_files(spec)),
        **({"special_tokens_map_json": token_map} if token_map else {}),
    )
    ours, theirs = agree(place, [TALK, "a<|stop|> b", "    ", "plain", "a<|user|>b"], caplog)
    assert ours.eos_id == theirs.eos_token_id == 402
    assert ours.vocab_size == len(theirs) == 405
    assert 402 not in ours.encode("a<|stop|>")  # a control token, which no text becomes
    assert 404 in ours.encode("a plain")  # a token like any other


def test_tokens_that_are_named_by_the_model(folder, spec, caplog):
    """transformers shows them in what it decodes; they are control tokens all the same."""
    place = folder(
        config_json={"model_type": "llama"}, tokenizer_json=spec, added_tokens_json=ADDED
    )
    for config in ({"user_token": "<|user|>"}, {"extra_special_tokens": {"user": "<|user|>"}}):
        folder(tokenizer_config_json={"tokenizer_class": FAST, **config})
        ours, warnings = loaded(place, caplog)
        assert warnings == []
        assert ours.encode(TALK, special=True) == oracle(place)(TALK).input_ids
        assert ours.special_tokens["<|user|>"] == 401


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized", "special"])
@pytest.mark.parametrize("value", [True, False])
def test_how_added_tokens_are_matched(folder, spec, caplog, flag, value):
    """The decoder of tokenizer_config.json has the last word over tokenizer.json, added_tokens.json the first."""
    text = "a <|user|> b<|user|>c x<|user|>"
    listed = [*spec["added_tokens"], {"id": 401, **entry("<|user|>", **{flag: not value})}]
    place = folder(
        config_json={"model_type": "llama"},
        tokenizer_json={**spec, "added_tokens": listed, "normalizer": {"type": "Lowercase"}},
        tokenizer_config_json={"tokenizer_class": FAST},
        added_tokens_json={"<|user|>": 401},
    )
    agree(place, [text, text.upper()], caplog)
    decoder = {str(token["id"]): entry(token["content"]) for token in spec["added_tokens"]}
    decoder["401"] = entry("<|user|>", **{flag: value})
    controls = {
        "additional_special_tokens": ["<|user|>"]
    }  # so that added_tokens.json says what the decoder may say
    for more in ({}, controls):
        folder(
            tokenizer_config_json={"tokenizer_class": FAST, "added_tokens_decoder": decoder, **more}
        )
        agree(place, [text, text.upper()] if flag != "special" else [text], caplog)


@pytest.mark.parametrize("key", ["pad_token", "cls_token", "eos_token"])
def test_a_named_token_that_is_only_in_the_vocabulary(folder, spec, caplog, key):
    place = folder(
        config_json={"model_type": "llama"},
        tokenizer_json=spec,
        tokenizer_config_json={"tokenizer_class": FAST, key: "<|x|>"},
    )
    ours, _ = agree(place, ["a<|x|>b", TALK], caplog)
    assert ours.special_tokens["<|x|>"] == 400
    folder(tokenizer_config_json={"tokenizer_class": FAST, "additional_special_tokens": ["<|x|>"]})
    agree(place, ["a<|x|>b", TALK], caplog)


def test_a_named_token_that_texts_are_made_of_stays_theirs(folder, spec, caplog):
    """Some models pad with "!"; a text with that sign is still a text."""
    place = folder(
        config_json={"model_type": "llama"},
        tokenizer_json=spec,
        tokenizer_config_json={
            "tokenizer_class": FAST,
            "pad_token": "!",
            "additional_special_tokens": ["Ġball"],
        },
    )
    ours, warnings = loaded(place, caplog)
    assert warnings == []
    assert ours.decode(ours.encode("the ball!")) == "the ball!"


NONE = "there is no such token in the vocabulary, so it is ignored"
ENDLESS = "DIR: no token ends a text: every answer continues to its limit"
TAKEN = "DIR/tokenizer.json contradicts the files next to it: using "


@pytest.mark.parametrize(
    ("config", "more", "expected"),
    [
        ({"eos_token": "<|no|>"}, {}, [f"DIR: eos_token is '<|no|>': {NONE}", ENDLESS]),
        (
            {"eos_token": {"content": "<|no|>"}},
            {"eos_token_id": 1},
            [f"DIR: eos_token is '<|no|>': {NONE}"],
        ),
        ({"bos_token": "<no>"}, {}, [f"DIR: bos_token is '<no>': {NONE}"]),
        (
            {"pad_token": "<no>", "unk_token": "<u>"},
            {},
            [f"DIR: pad_token is '<no>', unk_token is '<u>': {NONE}"],
        ),
        ({"additional_special_tokens": ["<no>"]}, {}, [f"DIR: '<no>' is a special token: {NONE}"]),
        (
            {"extra_special_tokens": [f"<{i}>" for i in range(6)]},
            {},
            [
                "DIR: "
                + ", ".join(f"'<{i}>' is a special token" for i in range(4))
                + f" and 2 more: {NONE}"
            ],
        ),
        ({"eos_token": "<|end|>", "pad_token": None, "bos_token": "", "x_token": True}, {}, []),
        ({}, {"eos_token_id": [9999, 1]}, []),
        ({}, {"eos_token_id": -1, "bos_token_id": -1}, []),
        (
            {},
            {"eos_token_id": 9999},
            ["DIR: eos_token_id is 9999, but there are only 401 tokens, so it is ignored"],
        ),
        (
            {},
            {"bos_token_id": 401},
            ["DIR: bos_token_id is 401, but there are only 401 tokens, so it is ignored"],
        ),
        ({"eos_token": "<|end|>"}, {"eos_token_id": 9999}, []),
        (
            {"added_tokens_decoder": {"7": entry("<|end|>")}},
            {},
            [f"{TAKEN}'<|end|>' has the id 0, not 7"],
        ),
        (
            {"added_tokens_decoder": {"7": entry("<|y|>")}},
            {},
            [f"{TAKEN}the id 7 is '&', not '<|y|>'"],
        ),
        (
            {"added_tokens_decoder": {"1": entry("<|y|>")}},
            {},
            [f"{TAKEN}the id 1 is '<|end|><|end|>', not '<|y|>'"],
        ),
    ],
)
def test_what_counts_as_none_is_said(folder, spec, caplog, config, more, expected):
    place = folder(config_json=more, tokenizer_json=spec, tokenizer_config_json=config)
    for normalizer in (None, {"type": "NFC"}):  # either library
        folder(tokenizer_json={**spec, "normalizer": normalizer})
        tokenizer, warnings = loaded(place, caplog)
        assert warnings == expected
        assert tokenizer.special_tokens.get("<|end|>") == 0
        assert tokenizer.special_tokens.get("<|y|>") is None


def test_the_first_id_that_there_is(folder, spec, caplog):
    place = folder(
        config_json={"eos_token_id": 5}, generation_config_json={"eos_token_id": [9999, 1, 0]}
    )
    folder(tokenizer_json=spec)
    assert loaded(place, caplog)[0].eos_id == 1


def test_added_tokens_json_that_contradicts(folder, spec, caplog):
    place = folder(
        config_json={},
        tokenizer_json=spec,
        added_tokens_json={"<|end|>": 900, "<|y|>": 0, "<|z|>": 401},
    )
    tokenizer, warnings = loaded(place, caplog)
    assert warnings == [
        f"{TAKEN}'<|end|>' has the id 0, not 900, the id 0 is '<|end|>', not '<|y|>'"
    ]
    assert tokenizer.encode("<|z|><|end|>", special=True)[0] == 401


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("added_tokens_json", [], "must be a JSON object, not list"),
        ("added_tokens_json", {"<|y|>": "401"}, "an added token needs an id and a content"),
        ("added_tokens_json", {"": 401}, "an added token needs an id and a content"),
        (
            "tokenizer_config_json",
            {"additional_special_tokens": "<|y|>"},
            "additional_special_tokens must be a list",
        ),
        (
            "tokenizer_config_json",
            {"extra_special_tokens": [5]},
            "extra_special_tokens has 5, which is not a token",
        ),
        (
            "special_tokens_map_json",
            {"additional_special_tokens": [{}]},
            r"has \{\}, which is not a token",
        ),
        (
            "tokenizer_config_json",
            {"add_prefix_space": "no"},
            "add_prefix_space must be true or false, not 'no'",
        ),
    ],
)
def test_broken_files(folder, spec, name, content, message):
    place = folder(tokenizer_json=spec, **{name: content})
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(place)
    assert ".".join(name.rsplit("_", 1)) in str(caught.value)


def test_an_id_that_the_library_cannot_give(folder, spec):
    """It numbers added tokens on from the vocabulary; with tiktoken there may be a gap."""
    place = folder(tokenizer_json=spec, added_tokens_json={"<|y|>": 600, "<|z|>": 700})
    with pytest.raises(TokenizerError, match=r"the added token '<\|y\|>' cannot have the id 600"):
        load_tokenizer(place)
    folder(special_tokens_map_json={"additional_special_tokens": ["<|x|>", "<|y|>", "<|z|>"]})
    assert load_tokenizer(place).encode("<|z|>", special=True) == [700]


@pytest.mark.parametrize(
    ("add", "begins"), [(True, False), (False, True), (True, True), (False, False), (None, True)]
)
def test_add_bos_token_beside_a_post_processor(folder, llama_spec, caplog, add, begins):
    processor = llama_spec["post_processor"] if begins else None
    place = folder(
        config_json={},
        tokenizer_json={**llama_spec, "post_processor": processor},
        tokenizer_config_json={"bos_token": "<s>", "add_bos_token": add},
    )
    tokenizer, warnings = loaded(place, caplog)
    assert tokenizer.start_ids == ((1,) if add or (add is None and begins) else ())
    says = f"is {str(add).lower()}, but tokenizer.json begins {'every' if begins else 'no'} text with that token"
    differ = add is not None and add != begins
    assert warnings == (
        [f"DIR/tokenizer_config.json: add_bos_token {says}: using the former"] if differ else []
    )


def prefixed(spec, there):
    made = copy.deepcopy(spec)
    made["pre_tokenizer"]["add_prefix_space"] = there
    return made


def split_first(spec):
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    pattern += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    level = {**spec["pre_tokenizer"], "use_regex": False}
    return {
        **spec,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
    }


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("wanted", [True, False, None])
@pytest.mark.parametrize(
    "kind", [GPT2, "GPT2TokenizerFast", "CodeGenTokenizer", QWEN2, FAST, "GPTNeoXTokenizer"]
)
def test_add_prefix_space_beside_a_tokenizer_json(
    folder, byte_level_spec, hard, caplog, kind, wanted, there
):
    spec = prefixed(byte_level_spec, there)
    if kind == QWEN2:
        spec = split_first(spec)
    if kind == "GPTNeoXTokenizer":
        spec["normalizer"] = {"type": "NFC"}
    names = dict.fromkeys(["bos_token", "eos_token", "unk_token", "pad_token"], "<|end|>")
    said = {} if wanted is None else {"add_prefix_space": wanted}
    place = folder(
        config_json={"model_type": "gpt2"},
        tokenizer_json=spec,
        tokenizer_config_json={"tokenizer_class": kind, **names, **said},
    )
    ours, warnings = loaded(place, caplog)
    theirs = oracle(place)
    for text in ["the ball", " the", *(text for text in hard if "<|end" not in text)]:
        ids = theirs(text, add_special_tokens=False).input_ids
        assert ours.encode(text, bos=False) == ids
        assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)
    said = bool(wanted) if kind != FAST else (there if wanted is None else wanted)
    assert len(warnings) == (said != there)
    for warning in warnings:
        assert warning.startswith(
            f"DIR/tokenizer_config.json: add_prefix_space is {str(said).lower()} for a "
        )
        end = f"tokenizer.json says {str(there).lower()}: using the {'latter' if kind == FAST else 'former'}"
        assert warning.endswith(end)


def metaspace(spec, scheme):
    """Llama's tokenizer with the space in the pre-tokenizer, as newer files have it."""
    made = {**spec, "normalizer": None, "post_processor": None}
    made["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": scheme,
        "split": False,
    }
    return made if scheme != "never" else without_strip(made)


def without_strip(spec):
    return {**spec, "decoder": {**spec["decoder"], "decoders": spec["decoder"]["decoders"][:3]}}


def replaced(spec):
    """With no space in front at all, written by a normalizer alone."""
    return without_strip(
        {**spec, "normalizer": spec["normalizer"]["normalizers"][1], "post_processor": None}
    )


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ("prepend", False),
        ("first", False),
        ("always", False),
        ("never", True),
        ("replace", True),
        ("first", True),
        ("never", False),
        ("replace", False),
    ],
)
@pytest.mark.parametrize("legacy", [False, None])
def test_add_prefix_space_of_a_llama_tokenizer(folder, llama_spec, caplog, form, wanted, legacy):
    spec = {**llama_spec, "post_processor": None}
    spec = (
        replaced(spec)
        if form == "replace"
        else spec
        if form == "prepend"
        else metaspace(spec, form)
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": legacy}
    place = folder(
        config_json={"model_type": "llama"},
        tokenizer_json=spec,
        tokenizer_config_json={
            "tokenizer_class": "LlamaTokenizer",
            **names,
            "add_prefix_space": wanted,
        },
    )
    ours, warnings = loaded(place, caplog)
    theirs = oracle(place)
    for text in ["the ball", " the ball", "", "a</s>b", "a </s> b", "</s>", "東京 タワー"]:
        ids = theirs(text, add_special_tokens=False).input_ids
        assert ours.encode(text, bos=False, special=True) == ids
        assert ours.decode(ids) == theirs.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
    there = form in ("prepend", "first", "always")
    assert len(warnings) == (there != wanted)


def test_a_class_of_another_kind_of_space_is_only_warned_of(folder, byte_level_spec, caplog):
    """Llama 3 calls its byte-level tokenizer a LlamaTokenizer here and there."""
    settings = {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": True}
    place = folder(config_json={}, tokenizer_json=byte_level_spec, tokenizer_config_json=settings)
    tokenizer, warnings = loaded(place, caplog)
    assert tokenizer.kind == "tiktoken"
    says = "add_prefix_space is true for a LlamaTokenizer, but tokenizer.json says false: using the latter"
    assert warnings == [f"DIR/tokenizer_config.json: {says}"]


@pytest.mark.parametrize("kind", [GPT2, "CodeGenTokenizer", "GPTNeoXTokenizer", QWEN2])
def test_vocabulary_and_merges_by_class(folder, spec, hard, caplog, kind):
    names = dict.fromkeys(["bos_token", "eos_token", "unk_token", "pad_token"], "<|end|>")
    place = folder(
        config_json={"model_type": "gpt2"},
        tokenizer_config_json={"tokenizer_class": kind, **names},
        **pair_of_files(spec),
    )
    texts = [text for text in hard if "<|end" not in text]
    ours, theirs = agree(place, texts, caplog)
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id) == (0, 0)


def test_tiktoken_ranks_take_added_tokens_json(folder, caplog):
    import base64

    ranks = "".join(f"{base64.b64encode(bytes((i,))).decode()} {i}\n" for i in range(256))
    place = folder(
        config_json={"model_type": "qwen"}, qwen_tiktoken=ranks, added_tokens_json={"<|y|>": 999}
    )
    tokenizer, warnings = loaded(place, caplog)
    assert (tokenizer.encode("<|y|>", special=True), warnings) == ([999], [])
    folder(tokenizer_config_json={"eos_token": "<|no|>"})
    assert loaded(place, caplog)[1] == [f"DIR: eos_token is '<|no|>': {NONE}", ENDLESS]

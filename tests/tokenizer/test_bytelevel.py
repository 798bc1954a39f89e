"""tiktoken against the `tokenizers` library on the same files."""

import json
import re

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from minigen.errors import TokenizerError
from minigen.tokenizer import bytelevel, load_tokenizer

quick = settings(deadline=None, derandomize=True, max_examples=150)
PARTS = [
    "the ",
    " ball",
    "'ll",
    "'S",
    "  ",
    "\n",
    "\r\n",
    " \t",
    "12",
    "٣",
    "é",
    "e\u0301",
    "東京",
    "🙂",
    "<|end|>",
]
PARTS += ["<|end", "|>", "<|endoftext|>", "\x00", "\u3000", "ſ", "...", "A", "iPhone"]
TEXT = st.lists(
    st.sampled_from(PARTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module", params=["gpt2", "cl100k", "qwen", "o200k"])
def pair(request, tmp_path_factory, byte_level_spec):
    """Our tokenizer, and the library's, with each pattern; with one the model takes whole pieces."""
    spec = dict(byte_level_spec)
    if request.param != "gpt2":
        pattern = getattr(bytelevel, request.param.upper() + "_PATTERN")
        split = {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        }
        level = {**spec["pre_tokenizer"], "use_regex": False}
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
        spec["model"] = {**spec["model"], "ignore_merges": request.param == "qwen"}
    folder = tmp_path_factory.mktemp("pair")
    text = json.dumps(spec)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    ours = load_tokenizer(folder)
    assert ours.kind == "tiktoken"
    return ours, tokenizers.Tokenizer.from_str(text)


def agree(ours, library, text):
    for special in (False, True):
        library.encode_special_tokens = not special
        ids = library.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, bos=False, special=special) == ids
        for skip in (False, True):
            assert ours.decode(ids, skip_special=skip) == library.decode(
                ids, skip_special_tokens=skip
            )


@quick
@given(text=TEXT)
def test_tiktoken_does_what_the_library_does(pair, text):
    agree(*pair, text)


def test_on_hard_texts_too(pair, hard, corpus):
    for text in [*hard, *corpus, "\n".join(hard)]:
        agree(*pair, text)


@quick
@given(ids=st.lists(st.integers(0, 556), max_size=30))
def test_any_ids_decode_alike(pair, ids):
    ours, library = pair
    assert ours.decode(ids) == library.decode(ids)


def test_control_tokens_are_made_only_when_asked(pair):
    ours, _ = pair
    one, two = ours.special_tokens["<|end|>"], ours.special_tokens["<|end|><|end|>"]
    text = "a<|end|>b<|end|><|end|><|end|>"
    assert not {one, two} & set(ours.encode(text))
    assert ours.decode(ours.encode(text)) == text
    ids = ours.encode(text, special=True)
    assert [i for i in ids if i in (one, two)] == [one, two, one]  # the longest first
    assert ours.decode(ids) == "ab"
    assert ours.decode(ids, skip_special=False) == text


def test_an_endless_run_of_spaces_is_an_error_not_a_panic(pair):
    ours, _ = pair
    text = "x" + " " * (bytelevel.LONGEST_RUN + 5) + "y"
    with pytest.raises(TokenizerError, match="whitespace characters in a row from position 1 on"):
        ours.encode(text)
    assert len(ours.encode("x  y" * 150_000)) > 100_000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("run", [" " * 400_000, " \n" * 150_000, "\u3000" * 400_000])
def test_runs_of_spaces_are_looked_at_once(pair, run):
    """From each of their characters anew it would be hours."""
    ours, _ = pair
    text = f"{run}word {run}word " + "word " * 40_000
    assert ours.decode(ours.encode(text)) == text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ["a", "\u0301", "'", "1", "東", "\x1c"])
def test_a_word_of_very_many_letters(pair, unit):
    ours, library = pair
    # What Python takes for white space is long enough to be looked at for a run that is too long.
    text = unit * (bytelevel.LONGEST_RUN + 1 if unit.isspace() else 150_000)
    assert ours.decode(ours.encode(text)) == text
    agree(ours, library, unit * 10_000)


def test_white_space_is_what_the_engine_takes_for_it():
    """Python's has four characters more, and a text of those is no run of spaces."""
    white = re.compile(bytelevel._WHITE)
    alone = [chr(code) for code in range(0x110000) if white.fullmatch(chr(code))]
    only = pre_tokenizers.Split(Regex(r"\s"), "removed", invert=True)
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF)
    assert alone == [piece for piece, _ in only.pre_tokenize_str(every)]
    assert set(filter(str.isspace, every)) - set(alone) == set("\x1c\x1d\x1e\x1f")


@pytest.mark.parametrize("name", ["gpt2", "tinystories_33m", "qwen", "gpt_neox_20b"])
def test_real_files(shared, hard, name):
    folder = shared(f"tokenizers/{name}")
    ours = load_tokenizer(folder)
    assert ours.kind == ("tokenizers" if name == "gpt_neox_20b" else "tiktoken")
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in [*hard, "\n".join(hard)]:
        agree(ours, library, text)


def test_gpt2_files_give_tiktokens_ids(shared, folder):
    reference = json.loads(shared("tokenizers/tiktoken_reference.json").read_text(encoding="utf-8"))
    for merges, vocab in (("vocab_bpe", "encoder_json"), ("merges_txt", "vocab_json")):
        texts = [
            shared(f"tokenizers/gpt2/{n}").read_text(encoding="utf-8")
            for n in ("vocab.bpe", "encoder.json")
        ]
        place = folder(**dict(zip((merges, vocab), texts, strict=True)))
        ours = load_tokenizer(place, {"eos_token_id": 50256})
        assert (ours.kind, ours.vocab_size, ours.eos_id) == ("tiktoken", 50257, 50256)
        assert ours.special_tokens == {"<|endoftext|>": 50256}
        assert ours.encode(reference["text"]) == reference["ids"]["gpt2"]
        for path in place.iterdir():
            path.unlink()


@pytest.mark.parametrize("name", ["r50k_base", "p50k_base", "cl100k_base", "o200k_base"])
def test_known_rank_files_give_tiktokens_ids(shared, folder, name):
    names = json.loads(shared("tokenizers/tiktoken_cache_names.json").read_text(encoding="utf-8"))
    key = next(key for key, entry in names.items() if entry["file"].endswith(name + ".tiktoken"))
    text = shared(f"tokenizers/tiktoken_cache/{key}").read_text(encoding="utf-8")
    reference = json.loads(shared("tokenizers/tiktoken_reference.json").read_text(encoding="utf-8"))
    ours = load_tokenizer(folder(some_tiktoken=text))
    assert ours.encode(reference["text"]) == reference["ids"][name]
    assert ours.decode(reference["ids"][name]) == reference["text"]
    assert "<|endoftext|>" in ours.special_tokens


def test_qwen_ranks_and_qwen_json_agree(shared, folder, hard):
    ranks = shared("tokenizers/qwen/qwen.tiktoken").read_text(encoding="utf-8")
    ours = load_tokenizer(folder(qwen_tiktoken=ranks), {"model_type": "qwen"})
    other = load_tokenizer(shared("tokenizers/qwen"))
    for text in hard:
        assert ours.encode(text, special=True) == other.encode(text, special=True)
    assert ours.special_tokens.items() >= other.special_tokens.items()

"""All choices of an item over one stretch of text: against every choice alone, by the logits of its whole text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.evaluation.fewshot import PromptError, PromptFile, check, load_prompt_file
from minigen.evaluation.fewshot.layout import choose_examples, prefix
from minigen.evaluation.fewshot.result import ItemResult
from minigen.evaluation.fewshot.run import run_file
from minigen.evaluation.fewshot.template import fill
from minigen.model import Model

Make = Callable[..., Path]
Scores = dict[str, list[float]]

# Words that melt together, a merge over the border of a character (0xC3 begins "é"), and runs of spaces.
MERGES = [
    "A n",
    "An s",
    "w e",
    "we r",
    "Ans wer",
    "e n",
    "en d",
    "Ġ f",
    "Ġ Ġ",
    "Ġ y",
    "Ġy e",
    "c Ã",
    "cÃ ©",
    "5 0",
]
PIECES = ["▁ A", "▁A n", "▁An s", "w e", "we r", "▁Ans wer", "▁ y", "▁y e", "▁ ▁", "n s"]
SPECIAL = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}


def byte_level(*names: str) -> dict[str, Any]:
    """GPT-2's kind of tokenizer, with these control tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*names, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "added_tokens": [{"id": i, "content": name} | SPECIAL for i, name in enumerate(names)],
        "pre_tokenizer": step,
        "decoder": step,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": MERGES,
        },
    }


def sentence_piece() -> dict[str, Any]:
    """Llama's: a space before every text, bytes for what is unknown, no cut between words, <s> before all."""
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{i:02X}>" for i in range(256)),
        "▁",
        *"AnswerdyfN50:/c",
    ]
    tokens += [merge.replace(" ", "") for merge in PIECES]
    model = {
        "type": "BPE",
        "vocab": {token: i for i, token in enumerate(dict.fromkeys(tokens))},
        "merges": PIECES,
    }
    model |= {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True}
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    single = [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    return {
        "added_tokens": [{"id": i, "content": name} | SPECIAL for i, name in enumerate(tokens[:3])],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, space],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip],
        },
        "model": model,
    }


CHARACTERS = sorted(set("Answer dyfivN50:/céè\n"))
TOKENIZERS: dict[
    str, tuple[Any, dict[str, Any]]
] = {  # name -> (tokenizer.json, tokenizer_config.json)
    "bos": (byte_level("<s>", "</s>"), {"bos_token": "<s>", "eos_token": "</s>"}),
    "eos": (byte_level("<|endoftext|>"), {"eos_token": "<|endoftext|>"}),
    "sentencepiece": (sentence_piece(), {"bos_token": "<s>", "eos_token": "</s>"}),
    "chat": (
        byte_level("<|endoftext|>", "<|im_end|>"),
        {"eos_token": "<|im_end|>"},
    ),  # eos ends answers
    "separator": (byte_level("<|endoftext|>"), {}),
    "none": (byte_level(), {}),
    "bytes": (None, {}),
    "characters": (None, {}),
}
PREFIX = {
    "bos": 0,
    "eos": 0,
    "chat": 0,
    "separator": 0,
    "sentencepiece": 1,
}  # what stands for an empty text


MODELS: dict[tuple[str, str, str], Model] = {}  # by backend, kind and tokenizer
LOGITS: dict[
    tuple[int, tuple[int, ...]], np.ndarray
] = {}  # by model and tokens: many tests ask for the same ones


@pytest.fixture
def load(make_model: Make, backend: str, device: str) -> Callable[[str, str], Model]:
    """load("llama" | "lstm", name of a tokenizer), which no test changes."""

    def load(kind: str, name: str) -> Model:
        if (backend, kind, name) not in MODELS:
            MODELS[backend, kind, name] = make(kind, name)
        return MODELS[backend, kind, name]

    def make(kind: str, name: str) -> Model:
        spec, settings = TOKENIZERS[name]
        if name == "bytes":
            folder = make_model(kind)
        elif name == "characters":
            folder = make_model(kind, tokenizer="char", vocab_size=len(CHARACTERS))
            (folder / "vocab.json").write_text(json.dumps(CHARACTERS))
        else:
            folder = make_model(kind, tokenizer=None, vocab_size=len(spec["model"]["vocab"]))
            (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0"} | spec))
            (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return minigen.load(folder, backend=backend, device=device, dtype="float32")

    return load


def write(
    folder: Path, *, template: str, sep: str, items: list[tuple[str, list[str]]], more: str = ""
) -> PromptFile:
    """A file of items with choices of their own; strings are written as JSON, which TOML reads alike."""
    text = f"format = 1\ntemplate = {json.dumps(template)}\nanswer_sep = {json.dumps(sep)}\n"
    for given, choices in items:
        text += (
            f"[[items]]\ninput = {json.dumps(given)}\nchoices = {json.dumps(choices)}\ngold = 0\n"
        )
    path = folder / "t.prompt.toml"
    path.write_text(text + more, encoding="utf-8")
    return load_prompt_file(path)


# -- the same once more, in the plainest way --
def logits_of(model: Model, ids: list[int]) -> np.ndarray:
    """(tokens, vocabulary) of a text that is read alone."""
    key = (id(model), tuple(ids))
    if key not in LOGITS:
        LOGITS[key] = model.logits([ids])[0].astype(np.float64)
    return LOGITS[key]


def alone(model: Model, context: str, answers: list[str], first: int | None) -> Scores:
    """Each answer's log-probability, tokens and bytes, from the last place that all texts have in common."""
    tokenizer = model.needed_tokenizer
    own, wholes = (
        tokenizer.encode(context.rstrip()),
        [tokenizer.encode(context + answer) for answer in answers],
    )
    start = len(own)
    while any(ids[:start] != own[:start] for ids in wholes):
        start -= 1
    before = tokenizer.decode(own[:start]).encode()
    if all(own[:start] != tokenizer.encode(context[:i]) for i in range(len(context) + 1)):
        before = b"".join(map(tokenizer.token_bytes, own[:start]))  # it ends inside a character
    found: Scores = {"none": [], "token": [], "byte": []}
    for answer, ids in zip(answers, wholes, strict=True):
        line = ids if start else [first, *ids]
        at = start or 1
        logits = logits_of(model, line)
        logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        total = float(sum(logprobs[i - 1, line[i]] for i in range(at, len(line))))
        found["none"].append(total)
        found["token"].append(total / (len(line) - at))
        found["byte"].append(total / (len((context + answer).encode()) - len(before)))
    return found


def by_hand(model: Model, file: PromptFile, n: int, index: int, first: int | None) -> list[float]:
    """The scores of an item as `minigen help prompts` says."""
    item, how = file.items[index], file.score
    before = prefix(file, choose_examples(file, n, 0))
    context = before + fill(file.template, item.fields)
    answers = [file.answer_sep + choice for choice in item.choices]
    end = context[len(context.rstrip()) :]

    def score(text: str) -> np.ndarray:
        if how.normalize != "uncond":
            return np.array(alone(model, text, answers, first)[how.normalize])
        other = how.uncond_context + ("" if how.uncond_context[-1:].isspace() else end)
        return np.subtract(
            alone(model, text, answers, first)["none"], alone(model, other, answers, first)["none"]
        )

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum()

    if not how.calibrate:
        return list(score(context))
    neutral = []
    for free in how.calibrate:
        text = before + file.template.replace("{input}", free)
        neutral.append(softmax(score(text if text[-1:].isspace() else text + end)))
    return list(np.log(softmax(score(context)) / np.mean(neutral, axis=0)))


def flat(model: Model, file: PromptFile) -> list[tuple[int, ItemResult]]:
    return [(run.shots, item) for run in run_file(model, file).runs for item in run.items]


ITEMS = [  # prompts and choices that meet in every way that there is
    ("Ans", ["wer", "c", "end"]),  # one melts into the prompt, at its very beginning
    ("c Ans", ["wer", "we", "w"]),  # one is the beginning of another
    ("c", ["é", "è", "end"]),  # melts into half a character
    ("A:", [" 5", " five", " 50"]),
    (
        "A: ",
        ["5", "five", " y", "  "],
    ),  # white space at the end goes to the choices, also to one of white space
    ("A:\n ", ["ye", "ye", "d"]),  # two are equal
    ("5", ["0", "5", ":"]),
    ("", ["Answer", "y", "é"]),
    ("  ", ["Answer", "y"]),
]
EXAMPLES = '[[examples]]\ninput = "c"\noutput = "5"\n[[examples]]\ninput = "Ans"\noutput = "wer"\n'


@pytest.mark.parametrize("free", [[], ["N/A", ""]], ids=["", "calibrated"])
@pytest.mark.parametrize("how", ["none", "token", "byte", "uncond"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("llama", name) for name in TOKENIZERS if name not in ("chat", "separator")),
        ("lstm", "bos"),
    ],
)
def test_every_choice_as_if_alone(
    load: Callable[..., Model], tmp_path: Path, kind: str, name: str, how: str, free: list[str]
) -> None:
    model = load(kind, name)
    template = (
        "{input}" if name in PREFIX else "N{input}"
    )  # where nothing can stand before a text, it is not empty
    more = f'{EXAMPLES}[shots]\nn = [0, 2]\n[score]\nnormalize = "{how}"\ncalibrate = {json.dumps(free)}\n'
    file = write(tmp_path, template=template, sep="", items=ITEMS, more=more)
    for n, item in flat(model, file):
        wanted = by_hand(model, file, n, item.index, PREFIX.get(name))
        assert item.scores == pytest.approx(wanted, abs=2e-4), (n, item.input)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_any_prompt_and_any_choices(load: Callable[..., Model], tmp_path: Path, name: str) -> None:
    model, draw = load("llama", name), random.Random(7)
    items = []
    while len(items) < 30:
        given, *choices = (
            "".join(draw.choices("AnswerAns  fc5é\n", k=draw.randint(1, 5))) for _ in range(4)
        )
        if given.strip():
            items.append(("N" + given, choices))  # a beginning that melts into nothing
    file = write(tmp_path, template="{input}", sep="", items=items)
    for _, item in flat(model, file):
        wanted = alone(model, item.input, list(item.choices), PREFIX.get(name))
        assert item.choice_logprobs == pytest.approx(wanted["none"], abs=1e-4), item
        assert np.divide(wanted["none"], wanted["token"]) == pytest.approx(item.choice_tokens)
        assert min(item.choice_tokens) > 0


@pytest.mark.parametrize(
    "score",
    ['normalize = "token"', 'normalize = "byte"', 'normalize = "uncond"', "calibrate = ['', 'x']"],
)
def test_where_the_space_is_written_changes_nothing(
    load: Callable[..., Model], tmp_path: Path, score: str
) -> None:
    model = load("llama", "bos")
    found = []
    for template, sep in (("{input} A:", " "), ("{input} A: ", "")):
        items = [("c", ["5", "five", "50"]), ("Ans", ["ye", "y"])]
        more = f"{EXAMPLES}[shots]\nn = [0, 1]\n[score]\n{score}\n"
        # The examples' own separator is part of the template or of answer_sep too, so their text is the same.
        found.append(
            flat(model, write(tmp_path, template=template, sep=sep, items=items, more=more))
        )
    for (_, one), (_, other) in zip(*found, strict=True):
        assert (one.choice_logprobs, one.choice_tokens, one.scores) == (
            other.choice_logprobs,
            other.choice_tokens,
            other.scores,
        )


def test_equal_choices_tie_and_a_melted_one_does_not_always_win(
    load: Callable[..., Model], tmp_path: Path
) -> None:
    model = load("llama", "eos")
    (_, item), (_, twins) = flat(
        model,
        write(
            tmp_path,
            template="{input}",
            sep="",
            items=[("Ans", ["wer", "c"]), ("A:", ["ye", "ye"])],
        ),
    )
    assert item.choice_tokens == (
        1,
        2,
    )  # "Answer", and "Ans" + "c": both after the token that separates documents
    assert item.choice_logprobs[0] < -1
    assert (twins.tied, twins.correct) == (2, 0.5)


@pytest.mark.parametrize("normalize", ["none", "token", "byte", "uncond"])
def test_contexts_with_one_continuation(
    load: Callable[..., Model], tmp_path: Path, normalize: str
) -> None:
    model = load("llama", "bos")
    path = tmp_path / "t.prompt.toml"
    row = '[[items]]\ncontext_options = ["c A", "c Ans"]\ncontinuation = "five"\ngold = 1\n'
    path.write_text(f'format = 1\n{row}[score]\nnormalize = "{normalize}"\n')
    ((_, item),) = flat(model, load_prompt_file(path))
    first = [alone(model, context, [" five"], 0) for context in ("c A", "c Ans")]
    if normalize == "uncond":
        less = alone(model, "Answer:", [" five"], 0)["none"][0]
        wanted = [one["none"][0] - less for one in first]
    else:
        wanted = [one[normalize][0] for one in first]
    assert item.scores == pytest.approx(wanted, abs=1e-4)


def test_what_cannot_be_scored_is_named(
    load: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nothing = (
        "no token precedes the choices, after '', and this model's tokenizer has neither a bos nor an eos token; "
        "give the prompt some text"
    )
    cases = [
        (
            "bos",
            ("c", ["", "y"]),
            "",
            "'' adds no token to the prompt, after 'c', so it has no probability; reword it",
        ),
        ("bytes", ("", ["c", "y"]), "", nothing),
        (
            "characters",
            ("A:", ["c", "y"]),
            '[score]\nnormalize = "uncond"\nuncond_context = ""\n',
            nothing,
        ),
        ("none", ("A:", ["c", "y"]), '[score]\ncalibrate = ["N/A", ""]\n', nothing),
    ]
    for name, item, more, problem in cases:
        model = load("llama", name)
        write(tmp_path, template="{input}", sep="", items=[item], more=more)
        file = load_prompt_file("t.prompt.toml")
        with pytest.raises(PromptError) as caught:
            run_file(model, file)
        assert str(caught.value) == f"t.prompt.toml:4: {problem}"
        encode = model.needed_tokenizer.encode
        (error, *_) = check(
            file, encode, prefix_id=model.needed_tokenizer.begin_id
        )  # before a model is loaded
        assert error.level == "error"
        if item[1][0]:  # a check without a tokenizer says more of an empty choice
            assert str(error) == f"t.prompt.toml:4: error: {problem}"
            (warning,) = [f for f in check(file) if "no text before the choices" in f.message]
            assert warning.level == "warning"


def test_contexts_that_end_unequally_are_refused(
    load: Callable[..., Model], tmp_path: Path
) -> None:
    model, path = load("llama", "bos"), tmp_path / "t.prompt.toml"
    for contexts, sep in ((["A:", "5: "], " "), (["A:", "c Ans"], "")):
        row = (
            f"[[items]]\ncontext_options = {json.dumps(contexts)}\ncontinuation = 'wer'\ngold = 1\n"
        )
        path.write_text(f"format = 1\nanswer_sep = '{sep}'\n{row}")
        file = load_prompt_file(path)
        with pytest.raises(
            PromptError, match=r":3: different parts of the contexts that end in .* are scored with"
        ):
            run_file(model, file)
        assert (
            "different parts of the contexts"
            in check(file, model.needed_tokenizer.encode, prefix_id=0)[0].message
        )


def test_the_token_before_a_text(load: Callable[..., Model]) -> None:
    found = {name: load("llama", name).needed_tokenizer.begin_id for name in TOKENIZERS}
    assert found == PREFIX | {"none": None, "bytes": None, "characters": None}


def test_a_check_says_what_melts(load: Callable[..., Model], tmp_path: Path) -> None:
    tokenizer = load("llama", "bos").needed_tokenizer
    file = write(
        tmp_path, template="{input}", sep="", items=[("A: c Ans", ["wer", "y"]), ("A:", ["5", "y"])]
    )
    melted = [
        f.message
        for f in check(file, tokenizer.encode, prefix_id=0)
        if "not the first" in f.message
    ]
    assert melted == [
        "the prompt's tokens are not the first of prompt + choice, at 'A: c Ans' + 'wer': its last token is scored "
        "with each choice; end the template or begin answer_sep elsewhere"
    ]

"""An empty prompt writes from where a document begins; a start token that is written out is not there twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import minigen
from minigen.chat.format import ChatFormat
from minigen.chat.template import ChatTemplate
from minigen.errors import UsageError
from minigen.model import Model
from minigen.tokenizer import load_tokenizer

Run = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]
CONTROLS = ("<s>", "</s>", "<|endoftext|>")
START, END, SEPARATOR = range(256, 259)


def write_tokenizer(
    folder: Path, start: bool, controls: tuple[str, ...] = CONTROLS, **settings: str
) -> None:
    """A token a byte, and control tokens; `start`: <s> goes before every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(controls))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": start, **settings}))


@pytest.fixture
def make_started(make_model: Callable[..., Path]) -> Callable[..., Path]:
    """make_started("llama"): a random model over bytes whose tokenizer puts <s> before every text."""

    def make(name: str, start: bool = True, **settings: str) -> Path:
        folder = make_model(name, vocab_size=260, tokenizer=None)
        write_tokenizer(folder, start, **({"bos_token": "<s>", "eos_token": "</s>"} | settings))
        return folder

    return make


@pytest.fixture(params=["gpt2", "llama", "lstm", "lfm2"])
def model(
    request: pytest.FixtureRequest, make_started: Callable[..., Path], backend: str, device: str
) -> Model:
    return minigen.load(
        make_started(request.param), backend=backend, device=device, dtype="float32"
    )


@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"temperature": 1.0, "seed": 3}, {"beams": 3}]
)
def test_it_is_the_start_token_alone(model: Model, settings: dict[str, Any]) -> None:
    (ids,) = model.generate_ids([[START]], max_tokens=9, **settings)
    text = model.needed_tokenizer.decode(ids)
    assert model.complete([""], max_tokens=9, **settings)[0].ids == ids
    assert model.generate("", max_tokens=9, **settings) == text
    assert "".join(model.stream("", max_tokens=9, **settings)) == text
    other = model.generate("ab", max_tokens=9, **settings)
    assert model.generate(["ab", "", ""], max_tokens=9, **settings) == [other, text, text]


def test_or_the_token_between_documents(
    make_started: Callable[..., Path], backend: str, device: str
) -> None:
    folder = make_started("llama", start=False, bos_token=None)
    llama = minigen.load(folder, backend=backend, device=device, dtype="float32")
    wanted = llama.generate_ids([[SEPARATOR]], max_tokens=9, temperature=0)[0]
    assert llama.generate("", max_tokens=9, temperature=0) == llama.needed_tokenizer.decode(wanted)


def test_guesses_change_nothing(
    make_started: Callable[..., Path], backend: str, device: str
) -> None:
    llama = minigen.load(make_started("llama"), backend=backend, device=device, dtype="float32")
    text = llama.generate("", max_tokens=12, temperature=0)
    assert llama.generate("", max_tokens=12, temperature=0, speculate="lookup") == text
    assert llama.generate("", max_tokens=12, temperature=0, draft=llama) == text


@pytest.mark.parametrize(
    ("settings", "controls", "first"),
    [
        (
            {"bos_token": "<s>", "eos_token": "</s>"},
            CONTROLS,
            START,
        ),  # bos, though it stands before no text
        ({"eos_token": "</s>"}, CONTROLS, SEPARATOR),  # eos may end answers alone
        ({"eos_token": "</s>"}, CONTROLS[:2], END),
        ({}, CONTROLS, SEPARATOR),
        ({"bos_token": "<s>"}, CONTROLS[:2], START),
    ],
)
def test_what_begins_a_text(
    tmp_path: Path, settings: dict[str, str], controls: tuple[str, ...], first: int
) -> None:
    """One token for an empty prompt and for an empty context whose continuation is scored."""
    write_tokenizer(tmp_path, start=False, controls=controls, **settings)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer is not None
    assert (tokenizer.begin_id, tokenizer.encode_prompt(""), tokenizer.encode_prompt("a")) == (
        first,
        [first],
        [64],
    )
    if "bos_token" in settings:
        transformers = pytest.importorskip("transformers")
        assert transformers.AutoTokenizer.from_pretrained(tmp_path).bos_token_id == first


def test_nothing_begins_a_text(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, start=False, controls=CONTROLS[:2])
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer is not None
    assert tokenizer.begin_id is None
    with pytest.raises(UsageError, match=r"^the prompt is empty, and .*: give some text$"):
        tokenizer.encode_prompt("")


def test_a_written_start_token_is_not_doubled(
    make_started: Callable[..., Path], run_cli: Run, tmp_path: Path
) -> None:
    folder = make_started("llama")
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    assert tokenizer.encode("<s>", special=True) == tokenizer.encode_prompt("") == [START]
    assert tokenizer.encode("<s>ab", special=True) == tokenizer.encode("ab")
    assert tokenizer.encode("ab<s>", special=True) == [*tokenizer.encode("ab"), START]
    assert tokenizer.encode("<s><s>", special=True) == [START, START]  # both are meant
    assert tokenizer.encode("<s>")[:2] == [
        START,
        *tokenizer.encode("<", bos=False),
    ]  # text, unless asked for
    greedy = ("--temp", "0", "-n", "9")
    wanted = run_cli("generate", folder, "-p", "ab", *greedy)
    assert run_cli("generate", folder, "--special", "-p", "<s>ab", *greedy) == wanted
    cache = tmp_path / "start.cache"
    assert run_cli("cache", "build", cache, "-m", folder, "--special", "-p", "<s>ab")[0] == 0
    assert run_cli("generate", folder, "--cache", cache, "-p", "ab", *greedy) == wanted


def test_a_template_that_writes_the_start_token_gives_one(
    make_started: Callable[..., Path],
) -> None:
    from minigen.chat.conversation import Conversation, Message

    tokenizer = load_tokenizer(make_started("llama"))
    assert tokenizer is not None
    template = ChatTemplate(
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}", {"bos_token": "<s>"}
    )
    ids = ChatFormat(template, tokenizer).ids(Conversation([Message("user", "ab")]))
    assert ids == tokenizer.encode("ab")


def test_on_the_command_line(
    make_started: Callable[..., Path], run_cli: Run, tmp_path: Path, tiny: Tiny, backend: str
) -> None:
    folder, greedy = make_started("gpt2"), ("--temp", "0", "-n", "9", "--backend", backend)
    wanted = minigen.load(folder, backend=backend).generate("", temperature=0, max_tokens=9)
    code, out, err = run_cli("generate", folder, "-p", "", *greedy)
    assert (code, out) == (0, f"{wanted}\n")
    assert (
        "add_bos_token is true" in err
    )  # the tokenizer.json of this test begins no text with a token
    empty = tmp_path / "empty.txt"
    for content in ("", "\n", "\ufeff"):
        empty.write_text(content)
        code, out, err = run_cli("generate", folder, "-p", "ab", "-f", empty, *greedy)
        assert (code, out) == (2, "")
        assert (
            err == f'minigen: {empty} is empty: give some text, or -p "" to start like a document\n'
        )
    code, _, err = run_cli("cache", "build", tmp_path / "x.cache", "-m", folder, "-p", "")
    assert code == 2
    assert err.endswith("minigen: the prompt is a single token: a cache of it saves nothing\n")
    code, _, err = run_cli("cache", "build", tmp_path / "x.cache", "-m", tiny("llama"), "-p", "")
    assert (code, "has no token that begins or separates texts" in err) == (2, True)
    assert (
        run_cli(
            "cache", "build", tmp_path / "x.cache", "-m", folder, "-p", "abc", "--backend", backend
        )[0]
        == 0
    )
    code, _, err = run_cli("generate", folder, "--cache", tmp_path / "x.cache", "-p", "", *greedy)
    assert (code, "the prompt ends after 1 of the 4 tokens" in err) == (2, True)

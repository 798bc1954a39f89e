"""Tokenizers made here are the same for every program that reads them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.errors import MinigenError, UsageError
from minigen.tokenizer import Tokenizer
from minigen.training.data import DataError, open_tokenizer
from minigen.training.data.vocabulary import train_tokenizer

from .conftest import SPECIAL, STORY

quick = settings(deadline=None, derandomize=True, max_examples=200)
WORDS = [
    "The cat",
    " mat",
    "don't",
    "  ",
    "\n",
    "\r\n",
    "12",
    "é",
    "🙂",
    "<|endoftext|>",
    "<|user|>",
    "<|user",
    "|>",
]
ANY = st.characters(exclude_categories=["Cs"])
TEXT = st.lists(st.sampled_from(WORDS) | st.text(ANY, max_size=8), max_size=10).map("".join)


@pytest.fixture(scope="module")
def theirs(bpe_folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(bpe_folder)
    fast = transformers.PreTrainedTokenizerFast.from_pretrained(bpe_folder)
    assert auto("The cat <|user|>")["input_ids"] == fast("The cat <|user|>")["input_ids"]
    return fast


def agree(ours: Tokenizer, theirs: Any, text: str) -> None:
    ids = theirs(text)["input_ids"]
    assert ours.encode(text, special=True) == ids
    assert ours.encode(text) == theirs(text, split_special_tokens=True)["input_ids"]
    assert ours.decode(ids, skip_special=False) == theirs.decode(ids) == text


@quick
@given(text=TEXT)
def test_transformers_gives_the_same_ids(bpe: Tokenizer, theirs: Any, text: str) -> None:
    agree(bpe, theirs, text)


def test_on_all_of_unicode(bpe: Tokenizer, theirs: Any) -> None:
    """And on some of the planes that are empty or for private use."""
    codes = (*range(0x40000), *range(0x40000, 0x110000, 97))
    text = "".join(chr(i) for i in codes if not 0xD800 <= i < 0xE000)
    for start in range(0, len(text), 2**16):
        agree(bpe, theirs, text[start : start + 2**16])


def test_what_is_made(bpe: Tokenizer, theirs: Any) -> None:
    assert bpe.kind == "tiktoken"
    assert bpe.special_tokens == {name: i for i, name in enumerate(("<|endoftext|>", *SPECIAL))}
    assert (bpe.vocab_size, bpe.eos_id, bpe.bos_id, bpe.start_ids) == (280, 0, 0, ())
    assert (theirs.eos_token, theirs.eos_token_id, len(theirs)) == ("<|endoftext|>", 0, 280)
    assert len(bpe.encode(STORY)) < len(STORY) * 0.7


def test_the_same_files_make_the_same_tokenizer(bpe_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(STORY * 3)
    code = "import sys; from pathlib import Path; from minigen.training.data.vocabulary import train_tokenizer; "
    code += "train_tokenizer([sys.argv[1]], Path(sys.argv[2]), 280, special=sys.argv[3:])"
    command = [
        sys.executable,
        "-c",
        code,
        str(tmp_path / "text.txt"),
        str(tmp_path / "out"),
        *SPECIAL,
    ]
    subprocess.run(
        command, check=True, env=os.environ | {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3"}
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (bpe_folder / name).read_bytes()


def test_special_tokens_in_a_text_are_not_learned_from(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"text": f"<|user|>{word}<|end|>" * 9} for word in ("one", "two")]
    talk = [
        {"role": "user", "content": "three three"},
        {"role": "assistant", "content": "three<|user|>"},
    ]
    path = write("r.jsonl", [*rows, {"messages": talk}])
    made = train_tokenizer([path], tmp_path / "out", 264, special=["<|user|>", "<|end|>"])
    assert (made.documents, made.bytes) == (3, 2 * 9 * (8 + 3 + 7) + 11 + 13)
    for word in ("one", "two", "three"):
        assert len(made.tokenizer.encode(word)) == 1 or word == "three"
    assert len(made.tokenizer.encode("<|user|>")) == 8


def test_a_text_with_too_few_pairs(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        made = train_tokenizer([write("t.txt", "abab abab")], tmp_path / "out", 5000)
    size = made.tokenizer.vocab_size
    assert 257 < size < 265
    message = (
        f"the vocabulary has {size} tokens instead of 5000: no other pair occurs twice in the text"
    )
    assert caplog.messages == [message]


def test_characters_and_bytes(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write("t.txt", "banana é\n🙂 ")
    made = train_tokenizer([path], tmp_path / "char", kind="char")
    assert "".join(made.tokenizer.decode([i]) for i in range(8)) == "\n abné🙂"
    assert made.tokenizer.kind == "characters"
    made = train_tokenizer([path], tmp_path / "bytes", kind="bytes")
    assert (made.tokenizer.kind, made.documents, made.bytes) == (
        "bytes",
        1,
        len("banana é\n🙂 ".encode()),
    )
    with pytest.raises(DataError, match="has no tokenizer: make one with minigen tokenizer train"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 256}, "the vocabulary size is 256: it must be at least 257"),
        ({}, "bpe needs a vocabulary size"),
        ({"vocab_size": 300, "kind": "char"}, "are only for bpe: drop them, or char"),
        ({"special": ["<|x|>"], "kind": "bytes"}, "are only for bpe: drop them, or bytes"),
        ({"kind": "words"}, "kind of tokenizer is 'words': it must be one of bpe, char, bytes"),
        (
            {"vocab_size": 300, "special": ["the"]},
            "special token 'the' looks like text: write it like",
        ),
        ({"vocab_size": 300, "special": [""]}, "special token '' looks like text"),
        ({"vocab_size": 300, "special": ["|||"]}, "looks like text"),
    ],
)
def test_settings_that_cannot_be(
    write: Callable[..., Path], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train_tokenizer([write("t.txt", "abc")], tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_or_half_written(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write("t.txt", "abc abc")
    write("full/config.json", "{}")
    with pytest.raises(UsageError, match="full already exists: name a new folder"):
        train_tokenizer([path], tmp_path / "full", 300)
    with pytest.raises(UsageError, match=r"t\.txt already exists"):
        train_tokenizer([path], path, 300)
    with pytest.raises(DataError, match=r"b\.txt: is not text: byte 0x00 at offset 1"):
        train_tokenizer([write("b.txt", b"a\0b")], tmp_path / "out", 300)
    with pytest.raises(MinigenError, match=r"cannot write .*t\.txt/x"):
        train_tokenizer([path], path / "x", 300)
    (tmp_path / "empty").mkdir()
    train_tokenizer([path], tmp_path / "empty", 260)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.txt", "empty", "full", "t.txt"]

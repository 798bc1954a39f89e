"""Merges are learned in time that is linear in a word, and Ctrl-C is heard meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigen.errors import TokenizerError
from minigen.training.data import learning
from minigen.training.data.learning import (
    LONGEST_WORD,
    learn_bpe,
    run_interruptibly,
    still_learning,
)

from .conftest import STORY

GENEROUS = 60  # seconds that nothing here comes near


def plainly_learned(texts: list[str], vocab_size: int) -> str:
    """The tokenizer that the library makes by itself, of words however long they are."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=["<|e|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    text: str = library.to_str()
    return text


def test_ordinary_words_teach_what_they_always_did() -> None:
    texts = [STORY * 3, "東京" * (LONGEST_WORD // 6), "a" * LONGEST_WORD, " " * 50 + "\n" * 50]
    assert learn_bpe(texts, 400, ["<|e|>"]).to_str() == plainly_learned(texts, 400)


@pytest.mark.parametrize("unit", ["x", " ", "\n", "1", "'", "`", "\u0301", "東", "🙂", "_="])
def test_a_long_word_is_learned_from_in_pieces(unit: str) -> None:
    """Pairs of pairs would otherwise go on to a token of many thousand."""
    library = learn_bpe([unit * 20_000], 400, ["<|e|>"])
    longest = max(map(len, library.get_vocab()))
    assert LONGEST_WORD / 4 < longest <= LONGEST_WORD  # names have a character each byte


def test_letters_without_a_space_take_seconds() -> None:
    """By itself the library needs minutes for these."""
    text = "".join(random.Random(0).choices("ACGT", k=400_000))
    ended = threading.Event()

    def learn() -> None:
        learn_bpe([text], 512, ["<|e|>"])
        ended.set()

    threading.Thread(target=learn, daemon=True).start()
    assert ended.wait(GENEROUS)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Lets a thread that stands in for the library end, at the latest with the test."""
    event = threading.Event()
    yield event
    event.set()
    for thread in threading.enumerate():
        if thread.name == learning.THREAD:
            thread.join(GENEROUS)


def interrupt_after(begun: threading.Event) -> None:
    def work() -> None:
        begun.wait(GENEROUS)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=work, daemon=True).start()


def test_ctrl_c_is_heard_while_the_library_works(
    release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "PATIENCE", 0.01)
    begun = threading.Event()

    def learn(texts: Iterator[str]) -> None:
        list(texts)
        begun.set()
        release.wait(GENEROUS)

    interrupt_after(begun)
    with pytest.raises(KeyboardInterrupt):
        run_interruptibly(learn, ["a"], lambda: None)
    assert still_learning()
    release.set()
    for thread in threading.enumerate():
        if thread.name == learning.THREAD:
            thread.join(GENEROUS)
    assert not still_learning()


def test_ctrl_c_ends_the_reading(release: threading.Event) -> None:
    begun = threading.Event()

    def endless() -> Iterator[str]:
        while not release.wait(0.001):
            begun.set()
            yield "a"

    interrupt_after(begun)
    with pytest.raises(KeyboardInterrupt):
        run_interruptibly(lambda texts: list(texts) and None, endless(), lambda: None)
    assert not still_learning()


def test_what_goes_wrong_in_the_thread_comes_out_of_it() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise TokenizerError("a bad file")

    with pytest.raises(TokenizerError, match=r"^a bad file$"):
        learn_bpe(broken(), 300, ["<|e|>"])

    def refuse(texts: Iterator[str]) -> None:
        raise ValueError("no\nway")

    with pytest.raises(TokenizerError, match="cannot learn from these texts: no way"):
        run_interruptibly(refuse, ["a"], lambda: None)


def test_it_is_told_when_all_is_read(release: threading.Event) -> None:
    read: list[str] = []

    def learn(texts: Iterator[str]) -> None:
        read.extend(texts)
        release.wait(GENEROUS)

    def merging() -> None:
        assert read == ["a", "b"]
        release.set()

    run_interruptibly(learn, ["a", "b"], merging)
    assert release.is_set()


@pytest.mark.parametrize(
    "words",
    [["tokenizer", "train", "--vocab-size", "30000"], ["train", "--tokenizer", "bpe:30000"]],
)
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, words: list[str]) -> None:
    """The real library, in the middle of work that would take it a minute."""
    (tmp_path / "dna.txt").write_text("".join(random.Random(0).choices("ACGT", k=1_500_000)))
    imports = "import sys; from minigen.cli import main; from minigen.cli.display import progress"
    code = f"{imports}; progress.DELAY = 0; sys.exit(main.main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        code,
        *words,
        str(tmp_path / "dna.txt"),
        "--out",
        str(tmp_path / "out"),
    ]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stderr.readline() == "minigen: merging tokens, which may take a while\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=GENEROUS)
    assert (process.returncode, out, err) == (130, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["dna.txt"]

"""Disks that take no more: one line, exit code 1, and what was good stays."""

from __future__ import annotations

import io
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minigen.cli.main import main

Run = Callable[..., tuple[int, str, str]]
Make = Callable[..., Path]
FULL = Path("/dev/full")

PROMPTS = 'format = 1\nchoices = ["yes", "no"]\n' + "".join(
    f'[[items]]\ninput = "Is {i} odd?"\noutput = "{("no", "yes")[i % 2]}"\n' for i in range(6)
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_model: Make) -> Path:
    """The current folder, with a prompt file and a model over bytes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.prompt.toml").write_text(PROMPTS)
    make_model("llama").rename(tmp_path / "tiny")
    return tmp_path


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: a write is cut there, and the next one fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WORDS = ("prompt", "t.prompt.toml", "-m", "tiny", "--backend", "torch", "--jsonl", "run.jsonl")


def test_a_jsonl_ends_with_its_last_whole_item(run_cli: Run, folder: Path) -> None:
    pytest.importorskip("torch")
    assert run_cli(*WORDS)[0] == 0
    whole = (folder / "run.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (folder / "run.jsonl").unlink()
    room = len(lines[0]) + len(lines[1]) + 40  # and a part of the third
    with files_end_at(room):
        code, out, err = run_cli(*WORDS)
    assert (code, out) == (1, "")
    advice = "make room, and the same command continues after the items in it"
    assert err == f"minigen: cannot write run.jsonl: File too large; {advice}\n"
    assert (folder / "run.jsonl").read_bytes() == lines[0] + lines[1]
    code, _, err = run_cli(*WORDS)
    assert (code, err) == (0, "minigen: run.jsonl has 2 finished items\n")
    resumed = (folder / "run.jsonl").read_bytes()
    assert resumed.startswith(lines[0] + lines[1])
    assert resumed.count(b"\n") == len(lines) == 6


def test_a_jsonl_without_an_item_is_not_left(run_cli: Run, folder: Path) -> None:
    pytest.importorskip("torch")
    with files_end_at(200):  # less than an item, and more than the message
        assert run_cli(*WORDS) == (1, "", "minigen: cannot write run.jsonl: File too large\n")
    assert not (folder / "run.jsonl").exists()
    (folder / "run.jsonl").write_bytes(b"")  # what was there before stays
    with files_end_at(200):  # less than an item, and more than the message
        assert run_cli(*WORDS)[0] == 1
    assert (folder / "run.jsonl").read_bytes() == b""


def test_a_jsonl_is_a_file(run_cli: Run, folder: Path) -> None:
    """A device would be read for ever, a pipe waited for."""
    pytest.importorskip("torch")
    os.mkfifo(folder / "pipe")
    for name in (
        "pipe",
        *(str(path) for path in (FULL, Path("/dev/zero"), Path("/dev/null")) if path.exists()),
    ):
        wanted = (
            f"minigen: cannot use {name}: it is not an ordinary file; give a file for --jsonl\n"
        )
        assert run_cli(*WORDS[:-1], name) == (1, "", wanted)


def test_a_plot_is_refused_before_the_run(
    run_cli: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    (folder / "p.png").mkdir()

    def never(*words: object) -> None:
        raise AssertionError("the work was done first")

    monkeypatch.setattr("minigen.cli.prompt.run.load_model", never)
    monkeypatch.setattr("minigen.benchmark.run.measure", never)
    wanted = (1, "", "minigen: cannot write p.png: Is a directory\n")
    assert run_cli("prompt", "t.prompt.toml", "-m", "tiny", "--plot", "p.png") == wanted
    assert run_cli("bench", "tiny", "--plot", "p.png") == wanted


OUTPUTS: dict[str, tuple[str, ...]] = {
    "version": ("--version",),
    "help": ("prompt", "--help"),
    "print": ("prompt", "t.prompt.toml", "--print"),
    "print more than a buffer": ("prompt", "long.prompt.toml", "--print", "--item", "all"),
    "check": ("prompt", "t.prompt.toml", "--check"),
    "json": ("prompt", "t.prompt.toml", "-m", "tiny", "--backend", "torch", "--json"),
    "table": ("prompt", "t.prompt.toml", "-m", "tiny", "--backend", "torch"),
    "generate": ("generate", "tiny", "-p", "a", "--max-tokens", "2", "--backend", "torch"),
    "generate --json": (
        "generate",
        "tiny",
        "-p",
        "a",
        "--max-tokens",
        "2",
        "--json",
        "--backend",
        "torch",
    ),
    "score": ("score", "t.prompt.toml", "-m", "tiny", "--backend", "torch"),
    "score --tokens": ("score", "long.prompt.toml", "-m", "tiny", "--tokens", "--backend", "torch"),
    "convert": ("convert", "tiny", "other"),
    "tokenizer": ("tokenizer", "train", "t.prompt.toml", "--kind", "bytes", "--out", "bytes"),
}


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("name", OUTPUTS)
def test_standard_output_on_a_full_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """Also where the disk refuses only what the buffer holds at the end, which no command sees itself."""
    pytest.importorskip("torch")
    (folder / "long.prompt.toml").write_text(PROMPTS.replace("odd", "odd, and " * 400))
    with open(os.open(FULL, os.O_WRONLY), "w", encoding="utf-8") as full:
        assert isinstance(full, io.TextIOWrapper)
        monkeypatch.setattr(sys, "stdout", full)
        try:
            code = main(OUTPUTS[name])
        finally:
            monkeypatch.undo()
    assert code == 1
    assert capfd.readouterr() == (
        "",
        "minigen: cannot write to standard output: No space left on device\n",
    )


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
def test_a_reader_that_left_is_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        try:
            code = main(["prompt", "t.prompt.toml", "--print"])
        finally:
            monkeypatch.undo()
    assert (code, capfd.readouterr().err) == (141, "")


def test_what_is_replaced_stays(run_cli: Run, folder: Path) -> None:
    pytest.importorskip("torch")
    build = ("cache", "build", "c", "-m", "tiny", "--backend", "torch", "-p")
    assert run_cli(*build, "one two")[0] == 0
    before = (folder / "c").read_bytes()
    with files_end_at(400):  # less than a file of weights, and more than the message
        code, out, err = run_cli(*build, "one two three")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("minigen: cannot write c: ")
    assert (folder / "c").read_bytes() == before
    with files_end_at(400):
        code, out, err = run_cli("convert", "tiny", "other")
    assert (code, out, err) == (1, "", "minigen: cannot write other: File too large\n")
    assert sorted(path.name for path in folder.iterdir()) == ["c", "t.prompt.toml", "tiny"]


def test_generated_data_is_whole_or_not_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from minigen.weights.synthetic.__main__ import main as synthetic

    with files_end_at(500):
        assert synthetic(["--out", "data", "--stories", "9", "--chats", "1", "--fewshot", "1"]) == 1
    assert capsys.readouterr().err == "minigen: cannot write data/stories.txt: File too large\n"
    assert list((folder / "data").iterdir()) == []

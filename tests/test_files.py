"""Files and folders are whole or as they were, whenever a process dies; what it leaves goes, and nobody else's does."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minigen
from minigen import files
from minigen.checkpoints.checkpoint import read_headers
from minigen.checkpoints.convert import convert
from minigen.errors import MinigenError, UsageError
from minigen.files import new_folder, replacing, sweep, workspace
from minigen.prompt_cache import load_prompt, save_prompt
from minigen.tokenizer import ByteTokenizer
from minigen.training.data import open_tokenizer, prepare
from minigen.training.data.vocabulary import train_tokenizer

Killed = Callable[[Path, int, Callable[[], object]], bool]
NOBODY = 2**22 + 1  # above the largest number that a process may have here

HOLD = """
import sys, time
from pathlib import Path
from minigen.files import workspace
with workspace(Path(sys.argv[1])) as work:
    (work / "half").write_text("x")
    print(work, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that is at work beside tmp_path/file."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "file")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    work = Path(process.stdout.readline().strip())
    yield process, work
    process.kill()
    process.wait()
    process.stdout.close()


def hidden(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


def write(path: Path, text: str) -> None:
    with replacing(path) as beside:
        beside.write_text(text)


def test_only_what_the_dead_left_is_swept(
    other: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, work = other
    write(tmp_path / "file", "mine")
    assert (work / "half").read_text() == "x"  # two at once do each other no harm
    assert hidden(tmp_path) == [work.name]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert work.is_dir()
    write(tmp_path / "another", "mine")
    assert hidden(tmp_path) == []


def test_nothing_else_is_swept(tmp_path: Path) -> None:
    host = files.own_host()
    keep = [
        ".notes.tmp",
        f".a.{host}.{NOBODY}.tmp",
        f".a.{host}.{NOBODY}.0123abcg.tmp",
        f"a.{host}.{NOBODY}.01234567.tmp",
    ]
    for name in keep:
        (tmp_path / name).mkdir()
    (tmp_path / f".file.{host}.{NOBODY}.01234567.tmp").write_text("a file is no workspace")
    (tmp_path / f".link.{host}.{NOBODY}.01234567.tmp").symlink_to(tmp_path / keep[0])
    before = sorted(os.listdir(tmp_path))
    (tmp_path / f".a.{host}.{NOBODY}.01234567.tmp").mkdir()
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == before
    sweep(tmp_path / "nothing")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the number of the process tells, as far as this machine knows it."""

    def refuse(*_: Any) -> None:
        raise OSError(95, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    host = files.own_host()
    dead, alive, far = (
        tmp_path / f".x.{machine}.{process}.01234567.tmp"
        for machine, process in ((host, NOBODY), (host, os.getppid()), (f"{host}2", NOBODY))
    )
    for folder in (dead, alive, far):
        folder.mkdir()
    write(tmp_path / "file", "mine")
    assert sorted(tmp_path.iterdir()) == sorted([alive, far, tmp_path / "file"])


def test_swept_before_it_had_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making a workspace and locking it another process may take it for one that is left."""
    lock, times = files.take_lock, 3

    def late(handle: int, *, wait: bool) -> bool | None:
        nonlocal times
        times -= 1
        if times > 0:
            for name in hidden(tmp_path):
                shutil.rmtree(tmp_path / name)
        return lock(handle, wait=wait)

    monkeypatch.setattr(files, "take_lock", late)
    write(tmp_path / "file", "there")
    assert os.listdir(tmp_path) == ["file"]
    times = 10**6
    with pytest.raises(MinigenError, match=r"^cannot write .*file: No such file or directory$"):
        write(tmp_path / "file", "never")
    assert (tmp_path / "file").read_text() == "there"


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "a.long.name." + "x" * 50)
    name = "é" * 126 + "ab"
    write(tmp_path / name, "long")
    with workspace(tmp_path / name) as work:
        sweep(tmp_path)
        assert work.is_dir()
        assert files._LEFT.fullmatch(work.name)
    assert os.listdir(tmp_path) == [name]


def test_a_new_folder(tmp_path: Path, killed: Killed) -> None:
    def make() -> None:
        with new_folder(tmp_path / "deep/out") as beside:
            (beside / "a").write_text("a")
            (beside / "b").write_text("b")

    make()
    with pytest.raises(UsageError, match=r"out is there already"):
        make()
    shutil.rmtree(tmp_path / "deep")
    assert killed(tmp_path, 4, make)
    assert len(hidden(tmp_path / "deep")) == 1
    make()
    assert os.listdir(tmp_path / "deep") == ["out"]


# -- each file-changing command, killed before each of its changes --
def at_every_point(
    folder: Path, killed: Killed, act: Callable[[], object], check: Callable[[bool], object]
) -> None:
    """`check(done)` reads back what there is, and `act` once more leaves it whole, with nothing beside it."""
    before = folder.with_name(f"{folder.name}-before")
    shutil.copytree(folder, before)
    assert not killed(folder, 0, act)
    after = sorted(os.listdir(folder))
    total = killed.count  # type: ignore[attr-defined]
    assert total > 3
    for at in range(1, total + 1):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        assert killed(folder, at, act)
        check(False)
        act()
        check(True)
        assert sorted(os.listdir(folder)) == after, at
    shutil.rmtree(before)


def test_a_file_killed_at_every_point(tmp_path: Path, killed: Killed) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("old")

    def check(done: bool) -> None:
        assert (folder / "file").read_text() in (("new",) if done else ("old", "new"))

    at_every_point(folder, killed, lambda: write(folder / "file", "new"), check)


def test_a_prompt_cache_killed_at_every_point(
    tmp_path: Path, killed: Killed, tiny: Callable[[str], Path], backend: str, device: str
) -> None:
    model = minigen.load(tiny("llama"), backend, device)
    folder = tmp_path / "folder"
    folder.mkdir()
    save_prompt(model, [1, 2, 3], folder / "cache")

    def check(done: bool) -> None:
        assert len(load_prompt(model, folder / "cache")[1]) in ((5,) if done else (3, 5))

    at_every_point(
        folder, killed, lambda: save_prompt(model, [1, 2, 3, 4, 5], folder / "cache"), check
    )


def test_a_converted_model_killed_at_every_point(
    tmp_path: Path, killed: Killed, tiny: Callable[[str], Path], backend: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def act() -> None:
        if not (folder / "out").exists():
            convert(tiny("llama"), folder / "out", dtype="float16", backend=backend)

    def check(done: bool) -> None:
        if done or (folder / "out").exists():
            assert {info.dtype for info in read_headers(folder / "out").values()} == {"F16"}
            assert json.loads((folder / "out/config.json").read_text())["vocab_size"] == 256

    at_every_point(folder, killed, act, check)


def test_a_tokenizer_killed_at_every_point(tmp_path: Path, killed: Killed) -> None:
    (tmp_path / "text.txt").write_text("hello there hello there\n")
    folder = tmp_path / "folder"
    folder.mkdir()

    def act() -> None:
        if not (folder / "bpe").exists():
            train_tokenizer([tmp_path / "text.txt"], folder / "bpe", 262)

    def check(done: bool) -> None:
        if done or (folder / "bpe").exists():
            assert open_tokenizer(folder / "bpe").vocab_size == 262

    at_every_point(folder, killed, act, check)


def test_tokens_killed_at_every_point(tmp_path: Path, killed: Killed) -> None:
    (tmp_path / "text.txt").write_text("hello\n<|endoftext|>\nmore text\n<|endoftext|>\nand more\n")
    folder = tmp_path / "cache"
    folder.mkdir()

    def act() -> Any:
        return prepare([tmp_path / "text.txt"], ByteTokenizer(), cache=folder, valid=0.4)

    def check(done: bool) -> None:
        if done:
            found = act()
            assert not found.made
            assert found.train.tokens + found.valid.tokens == len("hellomore textand more\n")

    at_every_point(folder, killed, act, check)
    (shard,) = folder.iterdir()
    (shard / "tokens.bin").write_bytes(
        b"x"
    )  # it is made again, and the damaged one goes as a whole
    at_every_point(folder, killed, act, check)

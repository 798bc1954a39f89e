"""Which files are meant, and what is said of those that cannot be used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigen.errors import MinigenError
from minigen.training.data import DataError, Dataset, find_files
from minigen.training.data import sources as module
from minigen.training.data.sources import Reader

Write = Callable[..., Path]


def test_folders_globs_and_names(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "d/b.txt",
        "d/a/z.md",
        "d/a.JSONL",
        "d/.hidden.txt",
        "d/.git/x.txt",
        "d/x.py",
        "e.log",
        "f1.txt",
    ):
        write(name, "x")
    monkeypatch.chdir(tmp_path)
    found = find_files(["d"])
    assert [str(path) for path in found.files] == ["d/a/z.md", "d/a.JSONL", "d/b.txt"]
    assert sorted(map(str, found.left_out)) == ["d/.git", "d/.hidden.txt", "d/x.py"]
    # A named file may be called anything and be hidden; each file counts once, however it is meant.
    found = find_files(
        ["f?.txt", "e.log", "d/b.txt", "d", "./d/b.txt", "d/.hidden.txt", "**/*.txt"]
    )
    names = ["f1.txt", "e.log", "d/b.txt", "d/a/z.md", "d/a.JSONL", "d/.hidden.txt"]
    assert [str(path) for path in found.files] == names
    assert sorted(map(str, found.left_out)) == ["d/.git", "d/x.py"]
    write("[a].txt", "x")
    assert find_files(["[a].txt"]).files == (Path("[a].txt"),)


def test_nothing_to_take(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("d/x.py", "x")
    write("zero.txt", "")
    os.mkfifo("pipe")
    for source, message in {
        "d": "d: the folder has no .txt, .md, .jsonl file",
        "*.csv": r"\*.csv: no file matches",
        "none.txt": "none.txt: cannot be read: No such file",
        "zero.txt": "zero.txt: is empty",
        "pipe": "pipe: is not a regular file",
        "": "the name of a source is empty",
    }.items():
        with pytest.raises(MinigenError, match=message):
            find_files([source])
    with pytest.raises(MinigenError, match="no training data"):
        find_files([])


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_any_chunk_gives_the_same_text(
    write: Write, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    text = "naïve 🙂 東京\r\nx\ufeffy\n"
    path = write("t.txt", b"\xef\xbb\xbf" + text.encode())
    counted: list[int] = []
    reader = Reader(path, counted.append)
    if chunk >= 3:
        assert "".join(reader.chunks()) == text
        assert reader.digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert sum(counted) == path.stat().st_size
    assert "".join(Reader(write("u.txt", text)).chunks()) == text
    assert list(Reader(path).lines()) == [(1, "naïve 🙂 東京"), (2, "x\ufeffy")]


BROKEN: list[tuple[bytes, str]] = [
    (b"abc\xff\n", r": is not UTF-8: byte 0xFF at offset 3; save it"),
    (b"\xef\xbb\xbfab\xe4\xb8", r": is not UTF-8: byte 0xE4 at offset 5; save it"),
    (b"ab\nc\0d", r": is not text: byte 0x00 at offset 4; drop it"),
    (b"\xef\xbb\xbf", r": has no (text|rows): drop it"),
    (b" \n\t\n", r": has no (text|rows): drop it"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN)
@pytest.mark.parametrize("name", ["t.txt", "t.jsonl"])
def test_broken_files_are_named(
    write: Write,
    data: Callable[..., Dataset],
    name: str,
    content: bytes,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "t.jsonl" and b"\n" in content and content.strip():
        content = content.replace(b"abc", b'"c"').replace(b"ab\n", b"  \n")
    path = write(name, content)
    with pytest.raises(DataError, match=message) as caught:
        data(path, write("good.txt", "good text"))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_byte_is_told_across_chunks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    with pytest.raises(DataError, match="byte 0xE6 at offset 7"):
        list(Reader(write("t.txt", b"1234567\xe6\x9d!89")).chunks())
    with pytest.raises(DataError, match="byte 0xE6 at offset 7"):
        list(Reader(write("t.txt", b"1234567\xe6\x9d")).chunks())


def test_one_token(write: Write, data: Callable[..., Dataset], bpe: Any, bpe_folder: Path) -> None:
    for name, content in (("t.txt", "a"), ("t.jsonl", [{"text": "a"}])):
        path = write(name, content)
        with pytest.raises(
            DataError, match=r"t\.\w+: (has a single token|1 characters are too few)"
        ):
            data(path, write("good.txt", "good text"))
        with pytest.raises(DataError, match=r"t\.\w+: 1 characters are too few to divide at 0.05"):
            data(path)
        with pytest.raises(DataError, match=r"t\.\w+: has a single token"):
            data(path, write("good.txt", "good"), tokenizer=bpe, folder=bpe_folder)

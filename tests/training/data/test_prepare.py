"""Tokens on disk: made once, whole or not at all, on two sides that share nothing."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.errors import MinigenError, UsageError
from minigen.tokenizer import ByteTokenizer, CharacterTokenizer, Tokenizer, load_tokenizer
from minigen.training.data import DataError, Dataset, Tokens, prepare
from minigen.training.data import encoding as module
from minigen.training.data.vocabulary import train_tokenizer

Write = Callable[..., Path]
Data = Callable[..., Dataset]
STORIES = [f"Story {i} of the cat, in {i * i} words." for i in range(200)]


def texts(tokens: Tokens, tokenizer: Tokenizer | None = None) -> list[str]:
    found = []
    for document in tokens.index:
        ids, _ = tokens.read(int(document["start"]), int(document["tokens"]))
        found.append((tokenizer or ByteTokenizer()).decode(ids.tolist(), skip_special=False))
    return found


def stories(items: list[str]) -> str:
    return "".join(f"{item}\n<|endoftext|>\n" for item in items)


def test_documents_come_out_as_they_went_in(
    write: Write, data: Data, bpe: Tokenizer, bpe_folder: Path
) -> None:
    path = write("s.txt", stories(STORIES))
    found = data(path, tokenizer=bpe, folder=bpe_folder)
    both = texts(found.train, bpe) + texts(found.valid, bpe)
    assert sorted(both) == sorted(f"{story}<|endoftext|>" for story in STORIES)
    assert 0 < found.valid.documents < 30
    assert found.train.bytes + found.valid.bytes == sum(map(len, STORIES))
    assert found.train.shard.ids.dtype == np.uint16
    assert found.train.largest_id < bpe.vocab_size
    assert (found.files, found.left_out, found.made) == ((path,), (), True)
    again = data(path, tokenizer=bpe, folder=bpe_folder)
    assert (again.made, again.key) == (False, found.key)
    assert texts(again.valid, bpe) == texts(found.valid, bpe)


def test_start_tokens(write: Write, data: Data, shared: Path) -> None:
    folder = shared / "models/stories260K"
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    found = data(
        write("s.txt", stories(STORIES[:20])), tokenizer=tokenizer, folder=folder, valid=0.5
    )
    for document in found.train.index:
        ids, _ = found.train.read(int(document["start"]), int(document["tokens"]))
        text = tokenizer.decode(ids.tolist())
        assert ids.tolist() == [*tokenizer.encode(text), tokenizer.eos_id]
        assert text in STORIES


def test_the_sides_stay(write: Write, data: Data) -> None:
    few = data(write("s.txt", stories(STORIES[:100])), valid=0.2)
    # More documents, in another order, in another file, some of them twice.
    more = data(write("t.txt", stories(STORIES[150:] + STORIES[::-1])), valid=0.2)
    assert set(texts(few.valid)) == set(texts(more.valid)) & set(STORIES[:100])
    assert not set(texts(more.valid)) & set(texts(more.train))
    assert len(texts(more.valid)) + len(texts(more.train)) == 250
    larger = data(write("s.txt", stories(STORIES[:100])), valid=0.4)
    assert set(texts(few.valid)) < set(texts(larger.valid))
    assert larger.key != few.key
    assert not larger.made


@pytest.mark.parametrize("valid", [1e-12, 0.5, 1 - 1e-12])
def test_each_side_has_a_document(write: Write, data: Data, valid: float) -> None:
    for count in (2, 3):
        found = data(write("s.txt", stories([*STORIES[:count], STORIES[0]])), valid=valid)
        assert set(texts(found.train)) | set(texts(found.valid)) == set(STORIES[:count])
        assert texts(found.train)
        assert texts(found.valid)
        assert not set(texts(found.train)) & set(texts(found.valid))


def test_a_lone_text_is_cut_as_nanogpt_cuts_it(
    write: Write, data: Data, bpe: Tokenizer, bpe_folder: Path
) -> None:
    text = "".join(f"línea {i}\n" for i in range(77))
    path = write("t.txt", text)
    cut = int(len(text) * 0.9)
    for tokenizer, folder in ((CharacterTokenizer(sorted(set(text))), None), (bpe, bpe_folder)):
        found = data(path, tokenizer=tokenizer, folder=folder, valid=0.1)
        end = "<|endoftext|>" if tokenizer is bpe else ""
        assert texts(found.train, tokenizer) == [text[:cut]]  # it does not end there
        assert texts(found.valid, tokenizer) == [text[cut:] + end]
    assert texts(data(path, valid=0.3).train) == [text[: int(len(text) * 0.7)]]


def test_validation_sources(write: Write, data: Data, caplog: pytest.LogCaptureFixture) -> None:
    train, valid = write("s.txt", stories(STORIES[:50])), write("v.txt", stories(STORIES[40:60]))
    with caplog.at_level(logging.WARNING):
        found = data(train, valid_sources=[valid], valid=0)
    assert texts(found.train) == STORIES[:40]
    assert texts(found.valid) == STORIES[40:60]
    assert caplog.messages == ["10 of 50 training documents are left out: they are for validation"]
    assert found.files == (train, valid)
    with pytest.raises(
        DataError, match=r"s\.txt: all training documents are also validation documents"
    ):
        data(train, valid_sources=[train])


def test_what_cannot_be_split(write: Write, data: Data) -> None:
    path = write("s.txt", stories(STORIES[:1] * 3))
    with pytest.raises(
        DataError, match=r"s\.txt: and all others have the same document, which cannot be divided"
    ):
        data(path)
    for valid in (0, 1, -0.1, 2, float("nan")):
        with pytest.raises(
            UsageError, match=f"the validation fraction is {valid}: it must be a number > 0 and < 1"
        ):
            data(path, valid=valid)
    with pytest.raises(UsageError, match="the separator of documents is empty"):
        data(path, separator="")


def test_the_key_is_of_the_content(write: Write, data: Data, tmp_path: Path) -> None:
    text = stories(STORIES[:20])
    first = data(write("s.txt", text))
    moved = data(write("elsewhere/other.txt", text))
    assert (moved.key, moved.made) == (first.key, False)
    path = write("s.txt", text.replace("cat", "cut", 1))
    info = path.stat()
    changed = data(path)
    path.write_text(text.replace("cat", "cot", 1))
    os.utime(
        path, ns=(info.st_atime_ns, info.st_mtime_ns)
    )  # not even a file that claims to be as old is believed
    keys = [first.key, changed.key, data(path).key]
    keys.append(data(path, separator="cot").key)
    keys.append(data(write("s.jsonl", [{"text": story} for story in STORIES[:20]])).key)
    keys.append(data(path, tokenizer=CharacterTokenizer(sorted(set(text)))).key)
    keys.append(data(path, tokenizer=CharacterTokenizer(sorted(set(text), reverse=True))).key)
    assert len(set(keys)) == len(keys)


def test_another_tokenizer_is_another_key(write: Write, data: Data, tmp_path: Path) -> None:
    path = write("s.txt", stories(STORIES[:20]))
    keys = set()
    for size in (270, 280):
        tokenizer = train_tokenizer([path], tmp_path / f"tok{size}", size).tokenizer
        keys.add(data(path, tokenizer=tokenizer, folder=tmp_path / f"tok{size}").key)
    (tmp_path / "tok280/tokenizer_config.json").write_text("{}")
    tokenizer = load_tokenizer(tmp_path / "tok280")
    keys.add(data(path, tokenizer=tokenizer, folder=tmp_path / "tok280").key)
    assert len(keys) == 3
    one = data(path, tokenizer=tokenizer, folder=tmp_path / "tok280").key
    spec = tmp_path / "tok280/tokenizer.json"
    spec.write_text(
        spec.read_text().replace('"trim_offsets": true', '"trim_offsets": false')
    )  # any byte counts
    assert data(path, tokenizer=tokenizer, folder=tmp_path / "tok280").key != one


def test_a_damaged_cache_is_made_again(
    write: Write, data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write("s.txt", stories(STORIES))
    first = texts(data(path).train)
    (place,) = (tmp_path / "cache").iterdir()
    for name in ("tokens.bin", "about.json", "documents.npy"):
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[:-2])
        caplog.clear()
        found = data(path)
        assert (found.made, len(caplog.messages)) == (True, 1)
        assert "is damaged and is made again" in caplog.text
        assert texts(found.train) == first
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [place.name]


def test_a_file_that_changes_meanwhile(write: Write, data: Data, tmp_path: Path) -> None:
    path = write("s.txt", stories(STORIES))

    old = module.file_digest(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "file_digest", lambda path: old)
        path.write_text(stories(STORIES[:-1]))
        with pytest.raises(DataError, match=r"s\.txt: changed while it was read"):
            data(path)
    assert not list((tmp_path / "cache").iterdir())
    assert data(path).made


def test_an_error_leaves_nothing(write: Write, data: Data, tmp_path: Path) -> None:
    tokenizer = CharacterTokenizer("abc")
    with pytest.raises(DataError, match=r"s\.txt: this model's 3 characters have no 'x'"):
        data(write("s.txt", "abcabc" * 9 + "x"), tokenizer=tokenizer)
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(MinigenError, match=r"cannot write .*/file/c/"):
        data(write("s.txt", "abcabc"), cache=tmp_path / "file" / "c")


def test_progress(write: Write, data: Data) -> None:
    seen: list[tuple[int, int]] = []
    paths = [write("s.txt", stories(STORIES)), write("r.jsonl", [{"text": "one"}, {"text": "two"}])]
    data(*paths, progress=lambda done, total: seen.append((done, total)))
    size = sum(path.stat().st_size for path in paths)
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)


SCRIPT = """
    import sys
    from pathlib import Path
    from minigen.tokenizer import ByteTokenizer
    from minigen.training.data import prepare, sources
    sources.CHUNK = 1000
    def slow(done, total):
        if done > total // 2:
            print("half", flush=True)
            sys.stdin.readline()
    found = prepare([sys.argv[1]], ByteTokenizer(), cache=Path(sys.argv[2]), progress=slow)
    print("made", found.made, found.key, found.train.tokens, flush=True)
"""


def start(path: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(path), str(cache)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "half\n"
    return child


def test_a_killed_preparation_leaves_nothing_half(write: Write, data: Data, tmp_path: Path) -> None:
    path, cache = write("s.txt", stories(STORIES)), tmp_path / "cache"
    child = start(path, cache)
    (left,) = cache.iterdir()
    assert (left / "tokens.bin").exists()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert list(cache.iterdir()) == [left]
    found = data(path)
    assert found.made
    assert sorted(texts(found.train) + texts(found.valid)) == sorted(STORIES)
    assert [place.name for place in cache.iterdir()] == [
        found.train.shard.about.key[:32]
    ]  # the rest is cleared away


def test_two_at_once_end_with_one_good_cache(write: Write, data: Data, tmp_path: Path) -> None:
    path, cache = write("s.txt", stories(STORIES)), tmp_path / "cache"
    children = [start(path, cache) for _ in range(2)]
    assert len(list(cache.iterdir())) == 2  # neither took the other's for a dead one's
    outputs = [child.communicate("\n" * 100)[0].splitlines()[-1] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert outputs[0] == outputs[1]
    found = data(path)
    assert outputs[0] == f"made True {found.key} {found.train.tokens}"
    assert not found.made
    assert len(list(cache.iterdir())) == 1


def test_memory_stays_small(tmp_path: Path) -> None:
    """32 MB of one text take a few MB above what is needed anyway."""
    (tmp_path / "big.txt").write_text("It was a day like any other, and so they went.\n" * 700_000)
    script = """
        import resource, sys
        from pathlib import Path
        from minigen.tokenizer import ByteTokenizer
        from minigen.training.data import prepare
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
        before = peak()
        prepare([sys.argv[1]], ByteTokenizer(), cache=Path(sys.argv[2]))
        print(peak() - before)
    """
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(script),
        str(tmp_path / "big.txt"),
        str(tmp_path / "cache"),
    ]
    begun = time.monotonic()
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 64, f"{grown} MB, {time.monotonic() - begun:.1f} s"


def test_tinyshakespeare(shared: Path, tmp_path: Path) -> None:
    path = shared / "corpora/tinyshakespeare/input.txt"
    text = path.read_text()
    tokenizer: Any = CharacterTokenizer(sorted(set(text)))
    found = prepare([path], tokenizer, valid=0.1, cache=tmp_path)
    assert (tokenizer.vocab_size, found.train.tokens, found.valid.tokens) == (
        65,
        1_003_854,
        111_540,
    )

"""`minigen score` as it is typed: the table, JSON, the tokens, and what it says of bad input."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import minigen
from minigen.evaluation.perplexity import score_text

Run = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]
TEXT = "A snail, a small one, went up the tall tree; it took all day, and the snail was happy at the top of it.\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "snail.txt"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("name", ["llama", "lstm"])
def test_the_table(
    run_cli: Run, tiny: Tiny, file: Path, backend: str, tmp_path: Path, name: str
) -> None:
    short = tmp_path / "s"
    short.write_text("ab")
    score = score_text(minigen.load(tiny(name), backend=backend), TEXT)
    code, out, err = run_cli("score", file, short, "-m", tiny(name), "--backend", backend)
    assert (code, err) == (0, "")
    heading, *rows = out.splitlines()
    width = len(str(file))
    assert re.split(" {2,}", heading) == [
        "file",
        "tokens",
        "bytes",
        "nats/token",
        "perplexity",
        "bits/byte",
    ]
    assert all(
        len(row) == len(heading) and row[:width].rstrip() == str(f)
        for row, f in zip(rows, (file, short), strict=True)
    )
    tokens, size, nats, perplexity, bits = rows[0][width:].replace(",", "").split()
    assert (int(tokens), int(size)) == (score.tokens, score.bytes) == (len(TEXT) - 1, len(TEXT) - 1)
    for shown, wanted in (
        (nats, score.nats_per_token),
        (perplexity, score.perplexity),
        (bits, score.bits_per_byte),
    ):
        assert float(shown) == pytest.approx(wanted, rel=1e-3)


def test_json(run_cli: Run, tiny: Tiny, file: Path, backend: str) -> None:
    where = ("-m", tiny("llama"), "--backend", backend, "--json")
    code, out, err = run_cli("score", file, file, *where, "--stride", "9", "--window", "20")
    assert (code, err) == (0, "")
    one, other = map(json.loads, out.splitlines())
    assert one == other
    score = score_text(minigen.load(tiny("llama"), backend=backend), TEXT, stride=9, window=20)
    assert one == {
        "file": str(file),
        "model": str(tiny("llama")),
        "bits_per_byte": pytest.approx(score.bits_per_byte),
        "perplexity": pytest.approx(score.perplexity),
        "nats_per_token": pytest.approx(score.nats_per_token),
        "tokens": len(TEXT) - 1,
        "bytes": len(TEXT) - 1,
    }
    assert one["bits_per_byte"] * math.log(2) == pytest.approx(one["nats_per_token"])


def test_tokens(run_cli: Run, tiny: Tiny, file: Path, backend: str) -> None:
    where = ("-m", tiny("gpt2"), "--backend", backend)
    code, out, _ = run_cli("score", file, *where, "--tokens", "--json")
    assert code == 0
    logprobs = json.loads(out)["logprobs"]
    assert "".join(token["token"] for token in logprobs) == TEXT[1:]
    assert [token["id"] for token in logprobs] == list(TEXT[1:].encode())
    wanted = score_text(minigen.load(tiny("gpt2"), backend=backend), TEXT).logprobs
    assert np.abs(np.array([token["logprob"] for token in logprobs]) - wanted).max() < 1e-5
    code, out, _ = run_cli("score", file, *where, "--logprobs")
    lines = out.splitlines()
    assert lines[: len(TEXT) - 1] == [
        f"{p:9.4f}  {c!r}" for p, c in zip(wanted, TEXT[1:], strict=True)
    ]
    assert lines[-3] == ""
    assert lines[-2].startswith("file")


def test_documents_and_stdin(tiny: Tiny, run_cli: Run, file: Path, any_backend: str) -> None:
    words = ["-m", tiny("llama"), "--backend", any_backend, "--json"]
    alone = json.loads(run_cli("score", file, *words)[1])
    command = [sys.executable, "-m", "minigen", "score", "-", *map(str, words), "--split", "<|>"]
    both = (TEXT.strip() + "<|>\n" + TEXT + "<|>").encode()
    piped = subprocess.run(command, input=both, capture_output=True, check=True)
    assert piped.stderr == b""
    found = json.loads(piped.stdout)
    assert (found["file"], found["tokens"]) == ("-", 2 * (alone["tokens"] - 1))
    code, _, err = run_cli("score", file, *words, "--split", "")
    assert (code, err) == (
        2,
        "minigen: the string to split at is empty: give the separator between the documents\n",
    )


BAD: dict[str, tuple[list[str], int, str]] = {
    "missing": (
        ["nowhere.txt"],
        1,
        r"minigen: cannot read nowhere\.txt: No such file or directory",
    ),
    "folder": (["."], 1, r"minigen: cannot read \.: Is a directory"),
    "empty": (["EMPTY"], 2, r"minigen: .*/empty is empty: there is nothing to score"),
    "latin": (["LATIN"], 1, r"minigen: .*/latin is not UTF-8: byte 0xe9 at offset 1"),
    "short": (
        ["SHORT"],
        2,
        r"minigen: the text has nothing to score: it needs at least two tokens, or one if .*",
    ),
    "stride": (
        ["FILE", "--stride", "64"],
        2,
        r"minigen: stride is 64: it must be a whole number from 1 to 63",
    ),
    "no stride": (
        ["FILE", "--stride", "0"],
        2,
        r"minigen: stride is 0: it must be a whole number from 1 to 63",
    ),
    "window": (
        ["FILE", "--window", "65"],
        2,
        r"minigen: window is 65: it must be a whole number from 1 to 64",
    ),
    "one": (
        ["FILE", "--window", "1"],
        1,
        r"minigen: a window of 1 token leaves no token to predict from: it must have at least 2",
    ),
    "word": (
        ["FILE", "--stride", "x"],
        2,
        r"minigen( score)?: argument --stride: invalid int value: 'x' .*",
    ),
    "nothing": ([], 2, r"minigen( score)?: the following arguments are required: FILE .*"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(
    run_cli: Run, tiny: Tiny, file: Path, tmp_path: Path, backend: str, what: str
) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "latin").write_bytes("déjà".encode("latin-1"))
    (tmp_path / "short").write_text("x")
    names = {"FILE": str(file)} | {
        name.upper(): str(tmp_path / name) for name in ("empty", "latin", "short")
    }
    words, wanted, message = BAD[what]
    code, out, err = run_cli(
        "score", *(names.get(word, word) for word in words), "-m", tiny("llama")
    )
    assert (code, out) == (wanted, "")
    assert re.fullmatch(message + "\n", err)

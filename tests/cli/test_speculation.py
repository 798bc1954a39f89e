"""--speculate and --draft as they are typed: the same text, and what is said of the guesses."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]
Make = Callable[..., Path]


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """feed(text): standard input from here on."""
    return lambda text: monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()))
    )


def test_generate(run_cli: Run, tiny: Tiny, backend: str) -> None:
    where = (
        tiny("llama"),
        "-p",
        "abcab",
        "--backend",
        backend,
        "-n",
        "30",
        "--ignore-eos",
        "-s",
        "1",
    )
    wanted = run_cli("generate", *where)
    assert wanted[0] == 0
    assert run_cli("generate", *where, "--speculate", "lookup") == wanted
    assert run_cli("generate", *where, "--draft", tiny("llama"), "--draft-tokens", "3") == wanted
    code, out, err = run_cli("generate", *where, "--draft", tiny("llama"), "--verbose")
    assert (code, out) == wanted[:2]
    accepted = r"(\d+) of (\d+) drafted tokens accepted, 100%, ([\d.]+) tokens per pass"
    found = re.search(rf"^minigen: speculation  {accepted}$", err, re.M)
    assert found is not None
    assert int(found[1]) == int(found[2]) > 15
    assert float(found[3]) == round(29 / (29 - int(found[1])), 2)
    assert "speculation" not in run_cli("generate", *where, "--verbose")[2]


def test_json_has_the_counts(run_cli: Run, tiny: Tiny, backend: str) -> None:
    where = (
        tiny("llama"),
        "-p",
        "abcab",
        "--backend",
        backend,
        "-n",
        "20",
        "--ignore-eos",
        "--json",
    )
    plain = json.loads(run_cli("generate", *where)[1])
    assert (plain["timing"]["drafted_tokens"], plain["timing"]["accepted_tokens"]) == (0, 0)
    assert (plain["settings"]["speculate"], plain["settings"]["draft_tokens"]) == (None, 10)
    found = json.loads(run_cli("generate", *where, "--draft", tiny("llama"))[1])
    assert found["timing"]["drafted_tokens"] == found["timing"]["accepted_tokens"] > 0


def test_errors(run_cli: Run, tiny: Tiny, make_model: Make, backend: str) -> None:
    where = ("--backend", backend, "-n", "2")
    small = make_model("llama", vocab_size=50)
    cases = [
        (
            (tiny("llama"), "-p", "a", "-p", "b", "--speculate", "lookup"),
            "speculation follows one text, not 2: ",
        ),
        (
            (tiny("llama"), "-p", "a", "--draft", small),
            "the draft model has 50 token ids and the model 256: ",
        ),
        (
            (tiny("lstm"), "-p", "a", "--speculate", "lookup"),
            "a recurrent model reads a token at a time",
        ),
    ]
    for words, message in cases:
        code, out, err = run_cli("generate", *words, *where)
        assert (code, out) == (2, "")
        assert err.startswith(f"minigen: {message}")
        assert err.count("\n") == 1
    assert run_cli("generate", tiny("llama"), "-p", "a", "--draft-tokens", "0")[0] == 2


def test_chat(
    run_cli: Run, make_bigram: Make, backend: str, tmp_path: Path, feed: Callable[[str], None]
) -> None:
    folder = make_bigram()
    where = ("chat", folder, "--backend", backend, "--lines", "--temp", "0", "-n", "12")
    lines = "Hi\nWhat is rain?\n"
    feed(lines)
    wanted = run_cli(*where, "--no-save")
    assert wanted[0] == 0
    path = tmp_path / "talk.jsonl"
    feed(lines)
    assert run_cli(*where, "--speculate", "lookup", "--session", path) == wanted
    feed("/stats\n" + lines + "/stats\n")
    code, out, _ = run_cli(*where, "--no-save", "--draft", folder)
    assert code == 0
    found = re.search(r"drafted tokens accepted +(\d+) of (\d+) +(\d+) of (\d+)\n", out)
    assert found is not None
    assert found[1] == found[2]
    assert int(found[3]) == int(found[4]) > 0
    feed("/set\n")
    _, out, err = run_cli(
        "chat", "--resume", path, "--backend", backend, "--lines", "--no-save", "--draft", folder
    )
    assert "speculate             null" in out, err  # the session's way of guessing gives way
    feed("/set speculate lookup\n/set speculate default\n")
    code, _, err = run_cli(*where, "--no-save")
    assert (code, err) == (0, "minigen: speculate is lookup\nminigen: speculate is null\n")

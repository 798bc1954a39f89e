"""`minigen help`: which pages there are, and how they are shown."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from minigen.cli.commands import help as command
from minigen.cli.display import pager, pages

Run = Callable[..., tuple[int, str, str]]
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def test_the_list_of_pages(run_cli: Run) -> None:
    code, out, err = run_cli("help")
    assert (code, err) == (0, "")
    for topic, line in pages.TOPICS.items():
        assert f"| `minigen help {topic}` | {line} |\n" in out


@pytest.mark.parametrize("topic", pages.TOPICS)
def test_a_page_that_is_piped_is_markdown(run_cli: Run, topic: str) -> None:
    code, out, err = run_cli("help", topic)
    assert (code, err) == (0, "")
    assert out.startswith("# ")
    assert "\x1b" not in out
    assert "<!--" not in out
    assert set(re.findall(r"\]\((\w+):", out)) <= {"https"}
    assert not re.search(r"\]\(\S+\.md", out)  # files are not there for everyone
    assert out == pages.page_text(topic)


@pytest.mark.parametrize(
    ("word", "topic"),
    [
        ("score", "prompts"),
        ("cache", "generate"),
        ("Tokenizer", "train"),
        ("adding_a_family", "adding-a-family"),
    ],
)
def test_a_command_has_a_page_too(run_cli: Run, word: str, topic: str) -> None:
    assert run_cli("help", word) == run_cli("help", topic)


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("trian", "did you mean train?"),
        ("model", "did you mean models?"),
        ("xyz", f"choose from {', '.join(pages.TOPICS)}"),
    ],
)
def test_an_unknown_page(run_cli: Run, word: str, advice: str) -> None:
    assert run_cli("help", word) == (2, "", f"minigen: there is no help on '{word}': {advice}\n")


@pytest.mark.parametrize("topic", pages.TOPICS)
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_page_on_a_terminal(topic: str, columns: int) -> None:
    """Nothing is wider than the terminal, and nothing of the text is lost."""
    text = pages.page_text(topic)
    shown = STYLE.sub("", pages.for_terminal(text, columns))
    assert max(map(len, shown.splitlines())) <= min(columns, pages.WIDEST)
    letters = re.compile(r"[^\W_]")
    for line in text.splitlines():
        assert line.count("`") % 2 == 0 or "```" in line
    missing = set(re.findall(r"--[a-z][a-z-]+", text)) - set(
        re.findall(r"--[a-z][a-z-]+", shown.replace("\n", " "))
    )
    assert columns < 80 or not missing
    assert len(letters.findall(shown)) >= 0.97 * len(letters.findall(text))


def test_a_terminal_gets_a_pager(monkeypatch: pytest.MonkeyPatch, run_cli: Run) -> None:
    paged: list[str] = []
    monkeypatch.setattr(command, "screen", lambda: (80, True))
    monkeypatch.setattr(command, "page", paged.append)
    assert run_cli("help", "chat") == (0, "", "")
    assert paged == [pages.for_terminal(pages.page_text("chat"), 80)]


def test_which_pager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "none" else f"/bin/{name}")
    monkeypatch.delenv("PAGER", raising=False)
    assert pager.pager() == ["less"]
    for value, words in [("more -d", ["more", "-d"]), ("cat", []), ("", []), ("none", [])]:
        monkeypatch.setenv("PAGER", value)
        assert pager.pager() == words


def test_a_pager_reads_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "pager"
    script.write_text(f'#!/bin/sh\necho "$LESS" > {tmp_path}/less; cat > {tmp_path}/page\n')
    script.chmod(0o755)
    monkeypatch.setenv("PAGER", str(script))
    monkeypatch.delenv("LESS", raising=False)
    pager.page("a page\n")
    assert (tmp_path / "page").read_text() == "a page\n"
    assert (tmp_path / "less").read_text() == "FRX\n"


def test_a_pager_that_is_left_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "true")
    pager.page("line\n" * 100_000)


def test_no_pager(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PAGER", "")
    pager.page("a page\n")
    assert capsys.readouterr().out == "a page\n"

"""Prompt files written for a test: loaded by a relative path, so that messages can be compared whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from minigen.evaluation.fewshot import PromptFile, load_prompt_file

Load = Callable[..., PromptFile]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """load(text, **{"rows.jsonl": text or bytes}): the prompt file t.prompt.toml beside these data files."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes, **data: str | bytes) -> PromptFile:
        for name, content in {"t.prompt.toml": text, **data}.items():
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return load_prompt_file("t.prompt.toml")

    return write

"""A cache of its own for each test, texts to prepare, and a chat format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from minigen.tokenizer import ByteTokenizer, Tokenizer
from minigen.training.data import Dataset, open_tokenizer, prepare
from minigen.training.data.vocabulary import train_tokenizer

SPECIAL = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
STORY = "The cat sat on the mat. The dog said: don't! It's the cat's mat.\n\nThe end, said the cat; the dog sat too.\n"


class Format:
    """Each message after its role as a control token, and a control token after it."""

    special: Mapping[str, str] = {}

    def __init__(
        self, head: str = "<|{role}|>\n", tail: str = "<|end|>\n", ask: str = "<|assistant|>\n"
    ) -> None:
        self.head, self.tail, self.ask = head, tail, ask
        self.source = json.dumps([head, tail, ask])

    def render(self, messages: Sequence[Mapping[str, Any]], *, generate: bool) -> str:
        text = "".join(
            self.head.format(role=m["role"]) + m["content"] + self.tail for m in messages
        )
        return text + self.ask if generate else text


@pytest.fixture
def make_format() -> Callable[..., Format]:
    return Format


@pytest.fixture(scope="session")
def bpe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bpe")
    (root / "text.txt").write_text(STORY * 3)
    train_tokenizer([root / "text.txt"], root / "bpe", 280, special=SPECIAL)
    return root / "bpe"


@pytest.fixture(scope="session")
def bpe(bpe_folder: Path) -> Tokenizer:
    return open_tokenizer(bpe_folder)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(name, text, bytes or rows): a file; rows become JSON lines."""

    def make(name: str, content: str | bytes | list[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., Dataset]:
    """data(sources, ...): prepared with bytes for tokens, in a cache of this test."""

    def make(*sources: Path | str, tokenizer: Tokenizer | None = None, **settings: Any) -> Dataset:
        settings.setdefault("cache", tmp_path / "cache")
        return prepare(sources, tokenizer or ByteTokenizer(), **settings)

    return make

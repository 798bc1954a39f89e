"""What prepared tokens depend on, as one hash: the content of the sources, the tokenizer, the chat format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigen.tokenizer import CharacterTokenizer, Tokenizer, load_tokenizer
from minigen.tokenizer.files import read_object
from minigen.tokenizer.names import (
    MERGES,
    OLD_MERGES,
    OLD_VOCABULARY,
    SETTINGS,
    TOKENIZER,
    VOCABULARY,
    files_there,
    rank_files,
)
from minigen.training.data.answers import ChatRenderer
from minigen.training.data.documents import is_rows
from minigen.training.data.shards import FORMAT
from minigen.training.data.sources import DataError, file_digest

# Runs keep a hash of these files in this order, so it stays as it is.
HASHED = (TOKENIZER, *SETTINGS, VOCABULARY, MERGES, OLD_MERGES, OLD_VOCABULARY)


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, by its config.json too where it has one. Raises TokenizerError, DataError."""
    tokenizer = load_tokenizer(folder, read_object(folder / "config.json"))
    if tokenizer is None:
        raise DataError(f"{folder}: has no tokenizer: make one with minigen tokenizer train")
    return tokenizer


def tokenizer_identity(tokenizer: Tokenizer, folder: Path | None) -> str:
    """64 hexadecimal digits: of its files in `folder`, and of the tokens that it has."""
    parts: list[Any] = [
        tokenizer.kind,
        tokenizer.vocab_size,
        sorted(tokenizer.special_tokens.items()),
    ]
    parts += [tokenizer.bos_id, tokenizer.eos_id, tokenizer.start_ids]
    if isinstance(tokenizer, CharacterTokenizer):
        parts.append(tokenizer.characters)
    elif tokenizer.kind != "bytes":
        assert folder is not None, (
            "what this tokenizer does is written in its files: say where they are"
        )
        paths = files_there(folder, HASHED) + rank_files(folder)
        parts += [[path.name, file_digest(path)] for path in paths]
    return digest_of(parts)


def data_key(
    files: Sequence[Path],
    digests: Mapping[Path, str],
    tokenizer: str,
    chat: ChatRenderer | None,
    separator: str | None,
    cut: int | None,
) -> str:
    """The same for the same tokens, wherever the files lie and whatever they are called."""
    parts: list[Any] = [FORMAT, tokenizer, separator, cut]
    parts.append(None if chat is None else [chat.source, sorted(chat.special.items())])
    parts += [[is_rows(path), digests[path]] for path in files]
    return digest_of(parts)


def digest_of(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

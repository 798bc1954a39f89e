"""Hashes of everything that prepared tokens depend on: sources, tokenizer, chat format."""

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
    """The tokenizer of a folder, which may be described in its config.json.

    Raises TokenizerError if it is invalid, DataError if there is none.
    """
    tokenizer = load_tokenizer(folder, read_object(folder / "config.json"))
    if tokenizer is None:
        raise DataError(f"{folder}: has no tokenizer: make one with minigen tokenizer train")
    return tokenizer


def tokenizer_identity(tokenizer: Tokenizer, folder: Path | None) -> str:
    """64 hexadecimal digits that depend on the tokens and on the tokenizer's files in `folder`."""
    special = sorted(tokenizer.special_tokens.items())
    parts: list[Any] = [tokenizer.kind, tokenizer.vocab_size, special]
    parts += [tokenizer.bos_id, tokenizer.eos_id, tokenizer.start_ids]
    if isinstance(tokenizer, CharacterTokenizer):
        parts.append(tokenizer.characters)
    elif tokenizer.kind != "bytes":
        assert folder is not None, "the identity of this tokenizer depends on its files"
        paths = files_there(folder, HASHED) + rank_files(folder)
        for path in paths:
            parts.append([path.name, file_digest(path)])
    return digest_of(parts)


def data_key(
    files: Sequence[Path],
    digests: Mapping[Path, str],
    tokenizer: str,
    chat: ChatRenderer | None,
    separator: str | None,
    cut: int | None,
) -> str:
    """A key that is the same for the same tokens, whatever the names of the files."""
    parts: list[Any] = [FORMAT, tokenizer, separator, cut]
    parts.append(None if chat is None else [chat.source, sorted(chat.special.items())])
    parts += [[is_rows(path), digests[path]] for path in files]
    return digest_of(parts)


def digest_of(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

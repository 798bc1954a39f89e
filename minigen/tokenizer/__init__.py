"""Text to ids and back: `load_tokenizer` finds the tokenizer of a model folder.

The libraries that run it (tiktoken, tokenizers) are imported only when they are needed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minigen.errors import TokenizerError
from minigen.tokenizer.base import StreamDecoder, Tokenizer
from minigen.tokenizer.files import parse_json, read_settings, read_text
from minigen.tokenizer.names import (
    MERGES,
    OLD_MERGES,
    OLD_VOCABULARY,
    TOKENIZER,
    VOCABULARIES,
    VOCABULARY,
    files_there,
    rank_files,
)
from minigen.tokenizer.rankfile import from_gpt2_files, from_rank_file
from minigen.tokenizer.simple import ByteTokenizer, CharacterTokenizer, characters_from
from minigen.tokenizer.tokenizer_json import from_tokenizer_json

__all__ = ["ByteTokenizer", "CharacterTokenizer", "StreamDecoder", "Tokenizer", "load_tokenizer"]

# Merges and the vocabulary they belong to.
PAIRS = ((OLD_MERGES, OLD_VOCABULARY), (MERGES, VOCABULARY))


def token_files(folder: Path) -> list[Path]:
    """The files that define which tokens a text becomes."""
    return rank_files(folder) + files_there(folder, VOCABULARIES)


def load_tokenizer(folder: Path, config: Mapping[str, Any] | None = None) -> Tokenizer | None:
    """The tokenizer of a model folder.

    Args:
        folder: The folder.
        config: The model's config.json. Its "tokenizer" may name one of minigen's own kinds:
            "char", with the characters in vocab.json, or "bytes". Otherwise the files decide:
            tokenizer.json comes first, then GPT-2's pairs of files, then a *.tiktoken file.

    Returns:
        The tokenizer; None if the folder has no tokenizer files.

    Raises TokenizerError: a file is broken or missing, or of a kind that minigen cannot use.
    """
    folder, config = Path(folder), config or {}
    with _no_garbage_collection():
        kind = config.get("tokenizer")
        if kind == "bytes":
            return ByteTokenizer()
        if kind == "char":
            path = folder / VOCABULARY
            return characters_from(path, parse_json(path, read_text(path), halves=True))
        return _from_files(folder, config)


def _from_files(folder: Path, config: Mapping[str, Any]) -> Tokenizer | None:
    path = folder / TOKENIZER
    if path.is_file():
        text = read_text(path)
        spec, settings = parse_json(path, text), read_settings(folder, config)
        return from_tokenizer_json(path, text, spec, settings)
    for merges, vocab in PAIRS:
        if (folder / merges).is_file():
            if not (folder / vocab).is_file():
                raise TokenizerError(f"{folder / merges}: its vocabulary, {vocab}, is missing")
            return from_gpt2_files(folder / merges, folder / vocab, read_settings(folder, config))
    ranks = rank_files(folder)
    if len(ranks) > 1:
        names = ", ".join(file.name for file in ranks)
        raise TokenizerError(f"{folder} has several rank files ({names}): keep one")
    if ranks:
        return from_rank_file(ranks[0], config, read_settings(folder, config))
    path = folder / VOCABULARY
    if path.is_file():
        content = parse_json(path, read_text(path), halves=True)
        if isinstance(content, list):
            return characters_from(path, content)
        raise TokenizerError(f"{path}: its merges, {MERGES}, are missing")
    if (folder / OLD_VOCABULARY).is_file():
        raise TokenizerError(f"{folder / OLD_VOCABULARY}: its merges, {OLD_MERGES}, are missing")
    if (folder / "tokenizer.model").is_file():
        raise TokenizerError(
            f"{folder / 'tokenizer.model'}: minigen does not read SentencePiece models; convert it "
            "to a tokenizer.json (transformers: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder))"
        )
    if config.get("tokenizer") is not None:
        raise TokenizerError(
            f"config.json: tokenizer is {config['tokenizer']!r:.60}: choose 'char' or 'bytes'"
        )
    return None


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Turns it off: it would take longer than reading a vocabulary, a million small objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

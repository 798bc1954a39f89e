"""Tokenizers without a learned vocabulary: one token per character, or per byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigen.errors import TokenizerError
from minigen.tokenizer.base import Controls, Tokenizer


class CharacterTokenizer(Tokenizer):
    """The id of a character is its index in a list."""

    kind = "characters"

    def __init__(self, characters: Sequence[str]) -> None:
        super().__init__(len(characters), Controls())
        self.characters = tuple(characters)
        self._ids = {character: index for index, character in enumerate(characters)}
        self._bytes = [character.encode("utf-8") for character in characters]

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < self.vocab_size:
            return b""
        return self._bytes[token_id]

    def _encode_plain(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise TokenizerError(
                f"this model's {self.vocab_size} characters have no {character!r} "
                f"(U+{ord(character):04X}, at position {text.index(character)} of the text)"
            ) from None


class ByteTokenizer(Tokenizer):
    """The ids are the bytes of the text in UTF-8."""

    kind = "bytes"

    def __init__(self) -> None:
        super().__init__(256, Controls())

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < 256:
            return b""
        return bytes((token_id,))

    def _encode_plain(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))


def characters_from(path: Path, content: Any) -> CharacterTokenizer:
    """The tokenizer of a vocab.json with a list of different characters.

    Raises TokenizerError: it has something else.
    """
    if not isinstance(content, list) or not content:
        raise TokenizerError(f"{path}: a character vocabulary must be a list of characters")
    seen: set[str] = set()
    for index, character in enumerate(content):
        is_character = isinstance(character, str) and len(character) == 1
        if not is_character or "\ud800" <= character <= "\udfff":
            raise TokenizerError(f"{path}: entry {index} is {character!r:.60}, not one character")
        if character in seen:
            raise TokenizerError(f"{path}: {character!r} is listed twice, again as entry {index}")
        seen.add(character)
    return CharacterTokenizer(content)

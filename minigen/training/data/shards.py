"""Tokens on disk as memory maps: all documents of some files in one folder, written once, whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from minigen.reading import parse_object, read_bytes

FORMAT = 1  # of the folder, and of how documents become tokens: a change of either is a new number
SMALL = 2**16  # vocabularies up to this size take two bytes a token
DTYPES = ("<u2", "<u4")

TOKENS, MASK, INDEX, ABOUT = "tokens.bin", "mask.bin", "documents.npy", "about.json"
DOCUMENT = np.dtype(
    [
        ("start", "<i8"),  # the place of its first token
        ("tokens", "<i8"),
        ("bytes", "<i8"),  # of UTF-8 text, what is trained on alone
        ("first", "<i8"),  # so many of these are its first token's, which nothing may predict
        ("hash", "<u8"),  # of its content
    ]
)

Ids = npt.NDArray[Any]  # (N,) uint16 or uint32


@dataclass(frozen=True)
class About:
    """What a shard says of itself."""

    format: int
    key: str
    dtype: str
    tokens: int
    documents: int
    largest_id: int
    end_id: int | None
    masked: bool
    files: list[str]  # what they were called then

    def sizes(self) -> dict[str, int]:
        """The bytes of the files that only hold numbers."""
        sizes = {TOKENS: self.tokens * np.dtype(self.dtype).itemsize}
        return sizes | ({MASK: self.tokens} if self.masked else {})


@dataclass(frozen=True)
class Shard:
    """The tokens of all documents, one document after another."""

    about: About
    ids: Ids
    mask: npt.NDArray[np.uint8] | None  # (N,): 0 where a token is not trained on; None: all are
    index: npt.NDArray[Any]  # (documents,) of DOCUMENT


class Writer:
    """Fills a folder with tokens, document by document."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self.folder = folder
        self.dtype = np.dtype(DTYPES[0] if vocab_size <= SMALL else DTYPES[1])
        self.tokens, self.largest, self.masked = 0, -1, False
        self._begin = 0
        self._index: list[tuple[int, int, int, int, int]] = []
        self._files: dict[str, BinaryIO] = {}
        try:
            for name in (TOKENS, MASK):
                self._files[name] = (folder / name).open("wb")
        except BaseException:
            self.close()
            raise

    @property
    def document_tokens(self) -> int:
        """How many tokens the document has so far."""
        return self.tokens - self._begin

    def add(self, ids: list[int], weights: npt.NDArray[np.uint8] | None = None) -> None:
        if ids:
            array = np.array(ids, np.int64)
            self.largest = max(self.largest, int(array.max()))
            assert array.min() >= 0, "a tokenizer has no negative ids"
            assert self.largest <= np.iinfo(self.dtype).max, "every id is below vocab_size"
            weights = np.ones(len(ids), np.uint8) if weights is None else weights
            self.masked |= not weights.all()
            self._files[TOKENS].write(array.astype(self.dtype).tobytes())
            self._files[MASK].write(weights.tobytes())
            self.tokens += len(ids)

    def end_document(self, count: int, first: int, digest: bytes) -> None:
        """`count` and `first` in bytes, as in DOCUMENT."""
        self._index.append(
            (self._begin, self.document_tokens, count, first, int.from_bytes(digest[:8], "little"))
        )
        self._begin = self.tokens

    def finish(self, key: str, end_id: int | None, files: list[str]) -> None:
        """Writes what the numbers mean."""
        self.close()
        if not self.masked:
            (self.folder / MASK).unlink()
        np.save(self.folder / INDEX, np.array(self._index, DOCUMENT))
        about = About(
            FORMAT,
            key,
            self.dtype.str,
            self.tokens,
            len(self._index),
            self.largest,
            end_id,
            self.masked,
            files,
        )
        (self.folder / ABOUT).write_text(
            json.dumps(asdict(about), indent=1, ensure_ascii=True) + "\n"
        )

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def open_shard(folder: Path, key: str) -> Shard | None:
    """The shard of a folder; None where there is none, or one that is not whole."""
    try:
        content = parse_object(read_bytes(folder / ABOUT))
        about = About(**{field.name: content[field.name] for field in fields(About)})
        if about.format != FORMAT or about.key != key or about.dtype not in DTYPES:
            return None
        if any((folder / name).stat().st_size != size for name, size in about.sizes().items()):
            return None
        # Mapped first: an array in memory is made as large as the file says that it is.
        index = np.array(np.lib.format.open_memmap(folder / INDEX, mode="r"))
        if (
            index.dtype != DOCUMENT
            or index.shape != (about.documents,)
            or index["tokens"].sum() != about.tokens
        ):
            return None
        # Still mapped, but without the class of its own, whose slices cost more than what they hold.
        ids = np.asarray(np.memmap(folder / TOKENS, np.dtype(about.dtype), "r"))
        mask = np.asarray(np.memmap(folder / MASK, np.uint8, "r")) if about.masked else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, EOFError):
        return None
    return Shard(about, ids, mask, index)

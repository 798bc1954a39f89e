"""Tokens on disk as memory maps: all documents of some files in one folder, written once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from minigen.reading import parse_object, read_bytes

FORMAT = 1  # of the folder, and of how documents become tokens; to be raised if either changes
SMALL = 2**16  # vocabularies up to this size need two bytes per token
DTYPES = ("<u2", "<u4")

TOKENS, MASK, INDEX, ABOUT = "tokens.bin", "mask.bin", "documents.npy", "about.json"
DOCUMENT = np.dtype(
    [
        ("start", "<i8"),  # the position of its first token
        ("tokens", "<i8"),
        ("bytes", "<i8"),  # of UTF-8 text that is trained on
        ("first", "<i8"),  # those of its first token, if nothing may predict it
        ("hash", "<u8"),  # of its content
    ]
)

Ids = npt.NDArray[Any]  # (N,) uint16 or uint32


@dataclass(frozen=True)
class About:
    """The description of a shard, in about.json."""

    format: int
    key: str
    dtype: str
    tokens: int
    documents: int
    largest_id: int
    end_id: int | None
    masked: bool
    files: list[str]  # their names at that time

    def sizes(self) -> dict[str, int]:
        """The sizes in bytes of the files of tokens and weights."""
        sizes = {TOKENS: self.tokens * np.dtype(self.dtype).itemsize}
        if self.masked:
            sizes[MASK] = self.tokens
        return sizes


@dataclass(frozen=True)
class Shard:
    """The tokens of all documents, one document after another."""

    about: About
    ids: Ids
    mask: npt.NDArray[np.uint8] | None  # (N,): 0 if a token is not trained on; None: all are
    index: npt.NDArray[Any]  # (documents,) of DOCUMENT


class Writer:
    """Writes a shard into a folder, document by document."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self.folder = folder
        self.dtype = np.dtype(DTYPES[0] if vocab_size <= SMALL else DTYPES[1])
        self.tokens = 0
        self.largest = -1
        self.masked = False
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
        """The number of tokens of the document so far."""
        return self.tokens - self._begin

    def add(self, ids: list[int], weights: npt.NDArray[np.uint8] | None = None) -> None:
        """Adds tokens to the document, with weights of 0 or 1 (default: 1)."""
        if not ids:
            return
        array = np.array(ids, np.int64)
        self.largest = max(self.largest, int(array.max()))
        assert array.min() >= 0, "a tokenizer has no negative ids"
        assert self.largest <= np.iinfo(self.dtype).max, "every id is below vocab_size"
        if weights is None:
            weights = np.ones(len(ids), np.uint8)
        self.masked |= not weights.all()
        self._files[TOKENS].write(array.astype(self.dtype).tobytes())
        self._files[MASK].write(weights.tobytes())
        self.tokens += len(ids)

    def end_document(self, text_bytes: int, first_bytes: int, digest: bytes) -> None:
        """Ends the document; the bytes are as in DOCUMENT, `digest` is the hash of its content."""
        key = int.from_bytes(digest[:8], "little")
        entry = (self._begin, self.document_tokens, text_bytes, first_bytes, key)
        self._index.append(entry)
        self._begin = self.tokens

    def finish(self, key: str, end_id: int | None, files: list[str]) -> None:
        """Writes the index and the description, after the last document."""
        self.close()
        if not self.masked:
            (self.folder / MASK).unlink()
        np.save(self.folder / INDEX, np.array(self._index, DOCUMENT))
        about = About(
            format=FORMAT,
            key=key,
            dtype=self.dtype.str,
            tokens=self.tokens,
            documents=len(self._index),
            largest_id=self.largest,
            end_id=end_id,
            masked=self.masked,
            files=files,
        )
        content = json.dumps(asdict(about), indent=1, ensure_ascii=True)
        (self.folder / ABOUT).write_text(content + "\n")

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def open_shard(folder: Path, key: str) -> Shard | None:
    """The shard of a folder; None if there is none, or if it is damaged."""
    try:
        content = parse_object(read_bytes(folder / ABOUT))
        about = About(**{field.name: content[field.name] for field in fields(About)})
        if about.format != FORMAT or about.key != key or about.dtype not in DTYPES:
            return None
        for name, size in about.sizes().items():
            if (folder / name).stat().st_size != size:
                return None
        # Mapped first: otherwise the size in the file would be allocated, whatever it is.
        index = np.array(np.lib.format.open_memmap(folder / INDEX, mode="r"))
        if index.dtype != DOCUMENT or index.shape != (about.documents,):
            return None
        if index["tokens"].sum() != about.tokens:
            return None
        # Still mapped, but as plain arrays: slices of np.memmap are slow.
        ids = np.asarray(np.memmap(folder / TOKENS, np.dtype(about.dtype), "r"))
        mask = None
        if about.masked:
            mask = np.asarray(np.memmap(folder / MASK, np.uint8, "r"))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, EOFError):
        return None
    return Shard(about, ids, mask, index)

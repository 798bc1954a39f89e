"""Documents to tokens on disk, found or made."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minigen.errors import MinigenError
from minigen.files import new_folder, workspace
from minigen.tokenizer import Tokenizer
from minigen.training.data.answers import ChatRenderer
from minigen.training.data.chats import ChatEncoder
from minigen.training.data.documents import Chat, Part, Text, cut_at, read_parts
from minigen.training.data.identity import data_key
from minigen.training.data.shards import Shard, Writer, open_shard
from minigen.training.data.sources import DataError, Reader, file_digest

Progress = Callable[[int, int], None]  # (bytes of the sources that were read, all of them)

IN_PIECES = (
    "tiktoken",
    "characters",
    "bytes",
)  # tokenizers that give a text cut by cutting.py the same tokens

log = logging.getLogger("minigen.training.data")


@dataclass(frozen=True)
class Preparation:
    """What is the same for all sources of a data set."""

    tokenizer: Tokenizer
    identity: str
    chat: ChatRenderer | None
    separator: str | None
    cache: Path
    progress: Progress


def tokens_of(work: Preparation, files: Sequence[Path], cut: int | None) -> tuple[Shard, bool]:
    """The shard of some files, and whether it had to be made."""
    digests = {path: file_digest(path) for path in files}
    key = data_key(files, digests, work.identity, work.chat, work.separator, cut)
    place = work.cache / key[:32]
    if (shard := open_shard(place, key)) is not None:
        return shard, False
    if place.exists():
        log.warning("%s is damaged and is made again", place)
        discard(place)
    with new_folder(place, shared=True) as beside:
        writer = Writer(beside, work.tokenizer.vocab_size)
        try:
            encode_files(work, files, digests, cut, writer)
            writer.finish(key, work.tokenizer.eos_id, [str(path) for path in files])
        finally:
            writer.close()
    shard = open_shard(place, key)
    if shard is None:
        raise MinigenError(f"{place} is not as it was written: check the disk")
    return shard, True


def discard(place: Path) -> None:
    """Removes a folder; others see it whole, or not at all."""
    try:
        with workspace(place) as work:
            os.rename(place, work / place.name)
    except FileNotFoundError:  # another process did it
        pass
    except OSError as error:
        raise MinigenError(f"cannot remove {place}: {error.strerror or error}") from error


def encode_files(
    work: Preparation,
    files: Sequence[Path],
    digests: dict[Path, str],
    cut: int | None,
    writer: Writer,
) -> None:
    """All documents of the files into a shard; `cut` is a place in the first. Raises DataError for a file of one token,
    or one that changed."""
    total, done = sum(path.stat().st_size for path in files), 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        work.progress(done, total)

    whole = work.tokenizer.kind not in IN_PIECES
    for path in files:
        reader = Reader(path, read)
        parts: Iterator[Part] = read_parts(reader, work.separator, whole=whole)
        count = Encoder(work, writer).encode(
            parts if cut is None or path != files[0] else cut_at(parts, cut)
        )
        if reader.digest != digests[path]:
            raise DataError(f"{path}: changed while it was read: run it again when it is written")
        if count < 2:
            raise DataError(
                f"{path}: holds a single token, so there is nothing to predict: give more text"
            )


class Encoder:
    """Writes documents as tokens: start tokens, the text, the end token."""

    def __init__(self, work: Preparation, writer: Writer) -> None:
        self.work, self.tokenizer, self.writer = work, work.tokenizer, writer
        self.chats = ChatEncoder(work.chat, work.tokenizer) if work.chat is not None else None
        self._begin()

    def _begin(self) -> None:
        self._hash, self._bytes, self._first = hashlib.sha256(), 0, 0

    def encode(self, parts: Iterator[Part]) -> int:
        """Returns how many tokens of text there were, those that begin and end a document not counted."""
        count = 0
        for part in parts:
            count += self._chat(part) if isinstance(part, Chat) else self._piece(part)
            if part.last:
                self.writer.end_document(self._bytes, self._first, self._hash.digest())
                self._begin()
        for what, rows in (self.chats.notes if self.chats is not None else {}).items():
            more = f", and so in {len(rows) - 1} more rows" if len(rows) > 1 else ""
            log.warning("%s: %s%s", rows[0], what, more)
        return count

    def _chat(self, part: Chat) -> int:
        if self.chats is None:
            raise DataError(
                f"{part.where}: a conversation, but no chat format is given: name one with --chat, or begin with a "
                "model that has a chat template (--from)"
            )
        ids, weights, self._bytes = self.chats.encode(part)
        self._hash.update(part.canonical.encode())
        self.writer.add(ids, weights)
        return len(ids)

    def _piece(self, part: Text) -> int:
        try:
            ids = self.tokenizer.encode(part.text, bos=False)
        except MinigenError as error:
            raise DataError(f"{part.where}: {error}") from error
        raw = part.text.encode("utf-8")
        self._hash.update(raw)
        self._bytes += len(raw)
        if self.writer.document_tokens == 0:
            starts = [] if part.resumed else list(self.tokenizer.start_ids)
            self._first = 0 if starts else len(self.tokenizer.token_bytes(ids[0])) if ids else 0
            self.writer.add(starts)
        self.writer.add(ids)
        if part.last and not part.cut and self.tokenizer.eos_id is not None:
            self.writer.add([self.tokenizer.eos_id])
        return len(ids)

"""From documents to tokens on disk, which are made once and then found again."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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

Progress = Callable[[int, int], None]  # (bytes read of the sources, bytes in all)

# Tokenizers for which a text that is cut by cutting.py has the same tokens.
IN_PIECES = ("tiktoken", "characters", "bytes")

log = logging.getLogger("minigen.training.data")


@dataclass(frozen=True)
class Preparation:
    """How all sources of a data set are prepared."""

    tokenizer: Tokenizer
    identity: str
    chat: ChatRenderer | None
    separator: str | None
    cache: Path
    progress: Progress


def tokens_of(work: Preparation, files: Sequence[Path], cut: int | None) -> tuple[Shard, bool]:
    """The shard of some files, and whether it was made now.

    `cut` is a position in the first file, where a single text is cut in two.
    """
    digests = {path: file_digest(path) for path in files}
    key = data_key(files, digests, work.identity, work.chat, work.separator, cut)
    folder = work.cache / key[:32]
    shard = open_shard(folder, key)
    if shard is not None:
        return shard, False
    if folder.exists():
        log.warning("%s is damaged and is made again", folder)
        discard(folder)
    with new_folder(folder, shared=True) as temporary:
        writer = Writer(temporary, work.tokenizer.vocab_size)
        try:
            encode_files(work, files, digests, cut, writer)
            writer.finish(key, work.tokenizer.eos_id, [str(path) for path in files])
        finally:
            writer.close()
    shard = open_shard(folder, key)
    if shard is None:
        raise MinigenError(f"{folder} differs from what was written: check the disk")
    return shard, True


def discard(folder: Path) -> None:
    """Removes a folder; other processes see all of it, or nothing."""
    try:
        with workspace(folder) as work:
            os.rename(folder, work / folder.name)
    except FileNotFoundError:  # another process removed it
        pass
    except OSError as error:
        raise MinigenError(f"cannot remove {folder}: {error.strerror or error}") from error


def encode_files(
    work: Preparation,
    files: Sequence[Path],
    digests: dict[Path, str],
    cut: int | None,
    writer: Writer,
) -> None:
    """Writes all documents of the files; `cut` as in `tokens_of`.

    Raises DataError for a file with a single token, or one that has changed.
    """
    total = sum(path.stat().st_size for path in files)
    done = 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        work.progress(done, total)

    whole = work.tokenizer.kind not in IN_PIECES
    for path in files:
        reader = Reader(path, read)
        parts: Iterator[Part] = read_parts(reader, work.separator, whole=whole)
        if cut is not None and path == files[0]:
            parts = cut_at(parts, cut)
        count = Encoder(work, writer).encode(parts)
        if reader.digest != digests[path]:
            raise DataError(f"{path}: changed while it was read: run again when it is complete")
        if count < 2:
            raise DataError(
                f"{path}: has a single token, so there is nothing to predict: give more text"
            )


class Encoder:
    """Writes documents as tokens: start tokens, the text, the end token."""

    def __init__(self, work: Preparation, writer: Writer) -> None:
        self.tokenizer = work.tokenizer
        self.writer = writer
        self.chats: ChatEncoder | None = None
        if work.chat is not None:
            self.chats = ChatEncoder(work.chat, work.tokenizer)
        self._begin_document()

    def _begin_document(self) -> None:
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._first_bytes = 0  # of a first token that nothing predicts

    def encode(self, parts: Iterator[Part]) -> int:
        """Writes all documents. Returns the number of tokens without start and end tokens."""
        count = 0
        for part in parts:
            count += self._chat(part) if isinstance(part, Chat) else self._text(part)
            if part.last:
                self.writer.end_document(self._bytes, self._first_bytes, self._hash.digest())
                self._begin_document()
        if self.chats is not None:
            log_warnings(self.chats.warnings)
        return count

    def _chat(self, part: Chat) -> int:
        if self.chats is None:
            raise DataError(
                f"{part.where}: a conversation, but no chat format is given: name one with "
                "--chat, or begin with a model that has a chat template (--from)"
            )
        ids, weights, self._bytes = self.chats.encode(part)
        self._hash.update(part.canonical.encode())
        self.writer.add(ids, weights)
        return len(ids)

    def _text(self, part: Text) -> int:
        try:
            ids = self.tokenizer.encode(part.text, bos=False)
        except MinigenError as error:
            raise DataError(f"{part.where}: {error}") from error
        raw = part.text.encode("utf-8")
        self._hash.update(raw)
        self._bytes += len(raw)
        if self.writer.document_tokens == 0:
            start_ids: list[int] = []
            if not part.resumed:
                start_ids = list(self.tokenizer.start_ids)
            if ids and not start_ids:
                self._first_bytes = len(self.tokenizer.token_bytes(ids[0]))
            self.writer.add(start_ids)
        self.writer.add(ids)
        if part.last and not part.cut and self.tokenizer.eos_id is not None:
            self.writer.add([self.tokenizer.eos_id])
        return len(ids)


def log_warnings(warnings: Mapping[str, Sequence[str]]) -> None:
    """Logs warnings about rows, each with the first row that it is about."""
    for text, rows in warnings.items():
        more = ""
        if len(rows) > 1:
            more = f" (and in {len(rows) - 1} more rows)"
        log.warning("%s: %s%s", rows[0], text, more)

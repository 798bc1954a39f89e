"""From sources to a data set: tokens on disk, divided into training and validation."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minigen.errors import UsageError
from minigen.reading import at_home
from minigen.tokenizer import Tokenizer
from minigen.training.data.answers import ChatRenderer
from minigen.training.data.documents import count_documents, lone_text
from minigen.training.data.encoding import Preparation, Progress, tokens_of
from minigen.training.data.identity import digest_of, tokenizer_identity
from minigen.training.data.shards import Shard
from minigen.training.data.sources import DataError, FileList, find_files
from minigen.training.data.tokens import Tokens

Sources = Sequence[str | os.PathLike[str]]

log = logging.getLogger("minigen.training.data")


@dataclass(frozen=True)
class Dataset:
    """Training and validation data, which have no document in common."""

    train: Tokens
    valid: Tokens
    key: str  # 64 hexadecimal digits: the same for the same tokens, divided in the same way
    files: tuple[Path, ...]
    left_out: tuple[Path, ...]  # other files in the folders
    made: bool  # whether tokens were made now

    def warn_of_cuts(self, context: int) -> None:
        """Warns of conversations that are longer than a row of `context` tokens."""
        lengths = np.concatenate([self.train.chat_lengths(), self.valid.chat_lengths()])
        longer = int((lengths > context).sum())
        if longer:
            log.warning(
                "%d of %d conversations are longer than the context of %d tokens: they are cut "
                "into rows, and later rows are learned without the messages before; "
                "the longest fits into --context %d",
                *(longer, len(lengths), context, lengths.max()),
            )


def default_cache() -> Path:
    """The folder MINIGEN_DATA_CACHE, or one in the user's folder of caches."""
    named = os.environ.get("MINIGEN_DATA_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return at_home(named or Path(base, "minigen", "data"))


def prepare(
    sources: Sources,
    tokenizer: Tokenizer,
    folder: Path | None = None,
    *,
    chat: ChatRenderer | None = None,
    separator: str | None = None,
    valid: float = 0.05,
    valid_sources: Sources = (),
    train_sources: Sources = (),
    cache: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Dataset:
    """The tokens of all documents of some files, folders and globs, as memory maps.

    A document is for validation if the hash of its content is in the lowest part `valid` of all
    hashes: so it stays there whatever is added, and so do its copies. If all documents were on one
    side, the one nearest to the other side is moved there. A single text is cut instead: the first
    int(n * (1 - valid)) of its n characters are for training.

    Args:
        sources: files, folders and globs.
        tokenizer: encodes the documents.
        folder: the tokenizer's files; characters and bytes need none.
        chat: renders rows with messages.
        separator: between the documents of a text file; None: a line that is <|endoftext|>.
        valid: the part of the documents for validation.
        valid_sources: if given, all of these are for validation, and nothing else. Copies of their
            documents are removed from the training data.
        train_sources: sources whose documents are only for training. Copies of validation documents
            are removed from them.
        cache: the folder of prepared tokens; None: `default_cache`.
        progress: called with the bytes read of the sources, and the bytes in all.

    Raises UsageError: `valid` is not between 0 and 1, or no source is given.
    Raises DataError: a source cannot be used, or there is nothing to divide; it names the file.
    Raises MinigenError: the cache cannot be written.
    """
    if not valid_sources and not 0 < valid < 1:
        raise UsageError(
            f"the validation fraction is {valid}: it must be a number > 0 and < 1, such as 0.05"
        )
    work = Preparation(
        tokenizer=tokenizer,
        identity=tokenizer_identity(tokenizer, folder),
        chat=chat,
        separator=separator,
        cache=cache or default_cache(),
        progress=progress,
    )
    train_only: tuple[Path, ...] = ()
    if train_sources:
        train_only = find_files(train_sources).files
    listing = FileList(())
    if sources or not (train_only and valid_sources):
        listing = find_files(sources)
    own: list[Path] = []
    for path in listing.files:  # a folder may have the files of train_sources too
        if not any(path.samefile(other) for other in train_only):
            own.append(path)
    files = (*own, *train_only)
    if valid_sources:
        return _divided_by_sources(work, files, listing, find_files(valid_sources))
    return _divided_by_hash(work, own, train_only, listing, valid)


def _divided_by_sources(
    work: Preparation, files: Sequence[Path], listing: FileList, valid_listing: FileList
) -> Dataset:
    """The data set of `files` for training, and of other files for validation."""
    shard, made = tokens_of(work, files, None)
    valid_shard, valid_made = tokens_of(work, valid_listing.files, None)
    return Dataset(
        train=without_copies(shard, valid_shard),
        valid=Tokens(valid_shard, np.arange(len(valid_shard.index))),
        key=digest_of([shard.about.key, valid_shard.about.key]),
        files=(*files, *valid_listing.files),
        left_out=listing.left_out + valid_listing.left_out,
        made=made or valid_made,
    )


def _divided_by_hash(
    work: Preparation,
    files: Sequence[Path],
    train_only: Sequence[Path],
    listing: FileList,
    valid: float,
) -> Dataset:
    """The data set of `files`, of which a part is for validation, and of `train_only`."""
    cut = _cut_of_single_text(files, work.separator, valid)
    shard, made = tokens_of(work, (*files, *train_only), cut)
    hashes = shard.index["hash"]
    count = len(hashes) - count_documents(train_only, work.separator)  # of documents in `files`
    for_validation = np.zeros(len(hashes), np.bool_)
    if cut is not None:
        for_validation[:count] = [False, True]
    else:
        for_validation[:count] = by_hash(hashes[:count], valid, listing.files[0])
    for_training = ~for_validation
    for_training[count:] = ~np.isin(hashes[count:], hashes[for_validation])
    key_parts = [shard.about.key, valid]
    if train_only:
        key_parts.append(count)
    return Dataset(
        train=Tokens(shard, np.flatnonzero(for_training)),
        valid=Tokens(shard, np.flatnonzero(for_validation)),
        key=digest_of(key_parts),
        files=(*files, *train_only),
        left_out=listing.left_out,
        made=made,
    )


def _cut_of_single_text(files: Sequence[Path], separator: str | None, valid: float) -> int | None:
    """The character at which a single text is cut in two; None if there are several documents."""
    if len(files) != 1:
        return None
    count = lone_text(files, separator)
    if count is None:
        return None
    cut = int(count * (1 - valid))
    if not 0 < cut < count:
        raise DataError(
            f"{files[0]}: {count} characters are too few to divide at {valid}: give more text"
        )
    return cut


def by_hash(hashes: npt.NDArray[np.uint64], valid: float, file: Path) -> npt.NDArray[np.bool_]:
    """(documents,): whether each is for validation.

    Raises DataError, with the name of a file, if there is only one text.
    """
    if len(np.unique(hashes)) < 2:
        problem = "and all others have the same document"
        if len(hashes) == 1:
            problem = "is one conversation"
        raise DataError(
            f"{file}: {problem}, which cannot be divided: give more, or name sources for validation"
        )
    for_validation: npt.NDArray[np.bool_] = hashes < np.uint64(int(valid * 2**64))
    if not for_validation.any():
        return np.asarray(hashes == hashes.min())
    if for_validation.all():
        return np.asarray(hashes != hashes.max())
    return for_validation


def without_copies(shard: Shard, valid_shard: Shard) -> Tokens:
    """The documents of a shard that are not in the other. Raises DataError if none is left."""
    chosen = np.flatnonzero(~np.isin(shard.index["hash"], valid_shard.index["hash"]))
    copies = len(shard.index) - len(chosen)
    if not len(chosen):
        raise DataError(
            f"{shard.about.files[0]}: all training documents are also validation documents: "
            "name other files"
        )
    if copies:
        log.warning(
            "%d of %d training documents are left out: they are for validation",
            copies,
            len(shard.index),
        )
    return Tokens(shard, chosen)

"""From sources to a data set: tokens on disk, made once, and which documents are for validation."""

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
from minigen.training.data.sources import DataError, Found, find_files
from minigen.training.data.tokens import Tokens

Sources = Sequence[str | os.PathLike[str]]

log = logging.getLogger("minigen.training.data")


@dataclass(frozen=True)
class Dataset:
    """Two sides that have no document in common."""

    train: Tokens
    valid: Tokens
    key: str  # 64 hexadecimal digits: the same for the same tokens on the same sides
    files: tuple[Path, ...]
    left_out: tuple[Path, ...]  # what lay in the folders and was not taken
    made: bool  # whether tokens were made now, rather than found

    def warn_of_cuts(self, context: int) -> None:
        """Says how many conversations no row of so many tokens can hold."""
        lengths = np.concatenate([self.train.chat_lengths(), self.valid.chat_lengths()])
        longer = int((lengths > context).sum())
        if longer:
            log.warning(
                "%d of %d conversations are longer than the context of %d tokens: they are cut into rows, and what "
                "comes later is learned without what was said before; --context %d holds the longest",
                *(longer, len(lengths), context, lengths.max()),
            )


def default_cache() -> Path:
    """MINIGEN_DATA_CACHE, or the folder that the system has for such things."""
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
    """The tokens of all documents of some files, folders and globs, as memory maps, found or made.

    `folder` has the tokenizer's files; characters and bytes need none. `chat` renders rows with messages. `separator`:
    what stands between the documents of a text file (default: a line that is <|endoftext|>).

    A document is for validation if the hash of its content is in the lowest part `valid` of all hashes: so it stays on
    its side whatever is added, and so do its copies. Where all would fall on one side, the document nearest to the
    other goes there. A corpus of a single text is cut instead: the first int(n * (1 - valid)) of its n characters are
    for training. With `valid_sources` all of these validate, and copies of them are taken out of the training side.
    Documents of `train_sources` are for training alone, but for copies of those that validate, which are left out.

    Raises UsageError: `valid` is not between 0 and 1, or no source is given.
    Raises DataError: a source cannot be used, or there is nothing to split; the message names the file.
    Raises MinigenError: the cache cannot be written.
    """
    if not valid_sources and not 0 < valid < 1:
        raise UsageError(
            f"the validation fraction is {valid}: it must be a number > 0 and < 1, such as 0.05"
        )
    work = Preparation(
        tokenizer,
        tokenizer_identity(tokenizer, folder),
        chat,
        separator,
        cache or default_cache(),
        progress,
    )
    more = find_files(train_sources).files if train_sources else ()
    found = find_files(sources) if sources or not (more and valid_sources) else Found(())
    own = tuple(
        path for path in found.files if not any(path.samefile(other) for other in more)
    )  # of a folder of both
    if valid_sources:
        others = find_files(valid_sources)
        shard, made = tokens_of(work, own + more, None)
        second, made_too = tokens_of(work, others.files, None)
        train, held = without_copies(shard, second), Tokens(second, np.arange(len(second.index)))
        key, files = digest_of([shard.about.key, second.about.key]), own + more + others.files
        return Dataset(train, held, key, files, found.left_out + others.left_out, made or made_too)
    count = lone_text(own, separator) if len(own) == 1 else None
    cut = None if count is None else int(count * (1 - valid))
    if cut is not None and count is not None and not 0 < cut < count:
        raise DataError(
            f"{own[0]}: {count} characters are too few to split at {valid}: give more text"
        )
    shard, made = tokens_of(work, own + more, cut)
    hashes, first = (
        shard.index["hash"],
        len(shard.index) - count_documents(more, separator),
    )  # those of `more` are last
    validates, trains = np.zeros((2, len(hashes)), np.bool_)
    validates[:first] = (
        [False, True] if cut is not None else by_hash(hashes[:first], valid, found.files[0])
    )
    trains[:first] = ~validates[:first]
    trains[first:] = ~np.isin(hashes[first:], hashes[validates])
    train, held = (Tokens(shard, np.flatnonzero(side)) for side in (trains, validates))
    key = digest_of([shard.about.key, valid, *([first] if more else [])])
    return Dataset(train, held, key, own + more, found.left_out, made)


def by_hash(hashes: npt.NDArray[np.uint64], valid: float, file: Path) -> npt.NDArray[np.bool_]:
    """(documents,): whether each is for validation. Raises DataError, naming a file, where there is only one text."""
    if len(np.unique(hashes)) < 2:
        what = (
            "is one conversation" if len(hashes) == 1 else "and all others hold the same document"
        )
        raise DataError(
            f"{file}: {what}, which cannot be split: give more, or name sources for validation"
        )
    side: npt.NDArray[np.bool_] = hashes < np.uint64(int(valid * 2**64))
    if not side.any():
        side = hashes == hashes.min()
    elif side.all():
        side = hashes != hashes.max()
    return side


def without_copies(shard: Shard, held: Shard) -> Tokens:
    """The documents of the first that the second has not. Raises DataError where none is left."""
    chosen = np.flatnonzero(~np.isin(shard.index["hash"], held.index["hash"]))
    copies = len(shard.index) - len(chosen)
    if not len(chosen):
        raise DataError(
            f"{shard.about.files[0]}: all training documents are validation documents too: name others"
        )
    if copies:
        log.warning(
            "%d of %d training documents are left out: they are for validation",
            copies,
            len(shard.index),
        )
    return Tokens(shard, chosen)

"""One side of a data set: some documents of a shard, and tokens read from them in any order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.training.data.shards import Shard

Ids = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tokens:
    """The documents to train on, or those to validate with; a view, so it takes no memory of its own to speak of."""

    shard: Shard
    chosen: npt.NDArray[np.int64]  # (documents,): which ones of the shard's

    @cached_property
    def index(self) -> npt.NDArray[Any]:
        """(documents,): of shards.DOCUMENT."""
        return self.shard.index[self.chosen]

    @property
    def documents(self) -> int:
        return len(self.chosen)

    @cached_property
    def tokens(self) -> int:
        return int(self.index["tokens"].sum())

    @cached_property
    def bytes(self) -> int:
        """UTF-8 bytes of the text; of a conversation, those of the assistant's messages, as only they count."""
        return int(self.index["bytes"].sum())

    def chat_lengths(self) -> npt.NDArray[np.int64]:
        """(conversations,): the tokens of each document of which some are not trained on."""
        mask, index = self.shard.mask, self.index
        if mask is None:
            return np.zeros(0, np.int64)
        chats = [not mask[i["start"] : i["start"] + i["tokens"]].all() for i in index]
        return index["tokens"][np.array(chats, np.bool_)].astype(np.int64)

    @property
    def largest_id(self) -> int:
        """No id is above it, on either side; a model's vocabulary must be larger."""
        return self.shard.about.largest_id

    @property
    def end_id(self) -> int | None:
        """The token that ends each document, if the tokenizer has one."""
        return self.shard.about.end_id

    def read(self, start: int, count: int) -> tuple[Ids, Weights]:
        """`count` tokens of the shard from place `start` on, and their weights: (count,) each."""
        ids = self.shard.ids[start : start + count].astype(np.int64)
        if self.shard.mask is None:
            return ids, np.ones(len(ids), np.float32)
        return ids, self.shard.mask[start : start + count].astype(np.float32)


class Stream:
    """Documents back to back, in an order of their own: the places of a shard as one line."""

    def __init__(self, tokens: Tokens, order: npt.NDArray[np.int64] | None = None) -> None:
        index = tokens.index if order is None else tokens.index[order]
        self.tokens = tokens
        self.starts = index["start"]
        self.ends = np.cumsum(index["tokens"])
        self.length = int(self.ends[-1]) if len(index) else 0

    def fill(self, begin: int, ids: Ids, weights: Weights) -> int:
        """Writes the tokens from place `begin` on into two arrays (T,), and returns how many there were."""
        done = 0
        document = int(np.searchsorted(self.ends, begin, "right"))
        while done < len(ids) and document < len(self.ends):
            end = int(self.ends[document])
            length = end - (int(self.ends[document - 1]) if document else 0)
            left = end - begin - done  # so many of this document's tokens are still to come
            count = min(left, len(ids) - done)
            got = self.tokens.read(int(self.starts[document]) + length - left, count)
            ids[done : done + count], weights[done : done + count] = got
            done += count
            document += 1
        return done

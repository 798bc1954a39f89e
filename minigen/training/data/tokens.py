"""Some documents of a shard, for training or for validation, and their tokens in any order."""

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
    """The documents for training, or those for validation: a view of a shard."""

    shard: Shard
    chosen: npt.NDArray[np.int64]  # (documents,): indices of the shard's documents

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
        """UTF-8 bytes of the text; in conversations, only those of the assistant's messages."""
        return int(self.index["bytes"].sum())

    def chat_lengths(self) -> npt.NDArray[np.int64]:
        """(conversations,): the numbers of tokens of documents that are not all trained on."""
        mask = self.shard.mask
        if mask is None:
            return np.zeros(0, np.int64)
        lengths: list[int] = []
        for document in self.index:
            start, count = document["start"], document["tokens"]
            if not mask[start : start + count].all():
                lengths.append(count)
        return np.array(lengths, np.int64)

    @property
    def largest_id(self) -> int:
        """The largest id of the shard; a model's vocabulary must be larger."""
        return self.shard.about.largest_id

    @property
    def end_id(self) -> int | None:
        """The token that ends each document, if the tokenizer has one."""
        return self.shard.about.end_id

    def read(self, start: int, count: int) -> tuple[Ids, Weights]:
        """`count` tokens of the shard from `start` on, and their weights: (count,) each."""
        ids = self.shard.ids[start : start + count].astype(np.int64)
        if self.shard.mask is None:
            return ids, np.ones(len(ids), np.float32)
        return ids, self.shard.mask[start : start + count].astype(np.float32)


class Stream:
    """The tokens of documents, concatenated in some order."""

    def __init__(self, tokens: Tokens, order: npt.NDArray[np.int64] | None = None) -> None:
        index = tokens.index if order is None else tokens.index[order]
        self.tokens = tokens
        self.starts = index["start"]
        self.ends = np.cumsum(index["tokens"])
        self.length = int(self.ends[-1]) if len(index) else 0

    def fill(self, begin: int, ids: Ids, weights: Weights) -> int:
        """Fills two arrays (T,) with the tokens from `begin` on; returns how many there were."""
        done = 0
        document = int(np.searchsorted(self.ends, begin, "right"))
        while done < len(ids) and document < len(self.ends):
            end = int(self.ends[document])
            previous_end = int(self.ends[document - 1]) if document else 0
            position = begin + done
            count = min(end - position, len(ids) - done)
            start = int(self.starts[document]) + position - previous_end
            read_ids, read_weights = self.tokens.read(start, count)
            ids[done : done + count] = read_ids
            weights[done : done + count] = read_weights
            done += count
            document += 1
        return done

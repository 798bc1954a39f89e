"""Batches as a pure function of (seed, step, micro), and the validation side once, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from minigen.errors import UsageError
from minigen.reading.settings import Range
from minigen.sampling.uniforms import check_word
from minigen.training.batch import Batch
from minigen.training.data.sources import DataError
from minigen.training.data.tokens import Ids, Stream, Tokens, Weights

Mode = Literal["documents", "windows"]


def choose_mode(tokens: Tokens) -> Mode:
    """Random windows of a corpus that is one text, else documents in a new order each epoch."""
    return "windows" if tokens.documents == 1 else "documents"


def random_words(seed: int, purpose: str, number: int, count: int) -> npt.NDArray[np.uint64]:
    """(count,) random words for (seed, purpose, number), the same on every machine.

    Philox 4x64 (Salmon, Moraes, Dror and Shaw 2011), as in sampling/uniforms.py: the key is the seed and the first 8
    letters of the purpose, and the number is the high word of the counter, so that no two streams meet.
    """
    key = [check_word("seed", seed), int.from_bytes(purpose.encode()[:8].ljust(8), "little")]
    philox = np.random.Philox(
        key=np.array(key, np.uint64), counter=np.array([0, 0, 0, number], np.uint64)
    )
    return np.asarray(philox.random_raw(count), np.uint64)


def permutation(seed: int, purpose: str, number: int, count: int) -> npt.NDArray[np.int64]:
    """(count,): the numbers below `count` in a random order."""
    # Not Generator.permutation: NumPy may change that from one version to the next, the words of Philox never.
    return np.argsort(random_words(seed, purpose, number, count), kind="stable").astype(np.int64)


class Batches:
    """What each step trains on.

    A step has `micros` batches of `batch` rows of `context` tokens: several for accumulation, or for several devices;
    what they hold together depends on micros * batch alone.

    "documents": in each epoch all documents in a new random order, back to back, end token and all, cut into rows,
    which come in a random order too. Each token is read once an epoch, as one of `ids`; a row that the end of an epoch
    cuts through goes on with the next one. A row may hold several documents, and nothing hides one from another.
    "windows": rows from random places of all documents back to back, as nanoGPT takes them.

    Raises UsageError for a number below 1 or a seed that is none, DataError for fewer tokens than a row needs.
    """

    def __init__(
        self,
        tokens: Tokens,
        batch: int,
        context: int,
        seed: int,
        *,
        mode: Mode | None = None,
        micros: int = 1,
    ) -> None:
        for name, value in (("batch", batch), ("context", context), ("micros", micros)):
            Range(whole=True, least=1).check(name, value)
        if tokens.tokens <= context:
            raise DataError(
                f"{tokens.shard.about.files[0]}: {tokens.tokens} tokens to train on are too few for a context of "
                f"{context}: lower the context to {max(tokens.tokens - 1, 1)} or less, or give more text"
            )
        self.tokens, self.batch_size, self.context, self.micros = tokens, batch, context, micros
        self.seed = check_word("seed", seed)
        self.mode: Mode = mode or choose_mode(tokens)
        if self.mode not in ("documents", "windows"):
            raise UsageError(f"mode is {mode!r}: known are 'documents' and 'windows'")
        self._plain = Stream(tokens)
        self._epoch = lru_cache(maxsize=3)(self._make_epoch)

    @property
    def tokens_per_step(self) -> int:
        return self.micros * self.batch_size * self.context

    def epoch_of(self, step: int) -> float:
        """How often all tokens have been read before this step; of random windows, on average."""
        return step * self.tokens_per_step / self.tokens.tokens

    def batch(self, step: int, micro: int = 0) -> Batch:
        """Batch `micro` of a step; both count from 0."""
        assert step >= 0
        assert 0 <= micro < self.micros
        B, T = self.batch_size, self.context
        ids, weights = np.zeros((B, T + 1), np.int64), np.zeros((B, T + 1), np.float32)
        if self.mode == "windows":
            words = random_words(self.seed, "windows", step, self.micros * B)[
                micro * B : (micro + 1) * B
            ]
            # A number in [0, 1) of 53 bits; below 2**53 tokens every place can come up.
            places = ((words >> np.uint64(11)) * 2.0**-53 * (self._plain.length - T)).astype(
                np.int64
            )
            for row, place in enumerate(places):
                self._plain.fill(int(place), ids[row], weights[row])
        else:
            first = (step * self.micros + micro) * B
            for row in range(B):
                self._packed_row(first + row, ids[row], weights[row])
        return Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), weights[:, 1:].copy())

    def _packed_row(self, number: int, ids: Ids, weights: Weights) -> None:
        """Row `number` of the endless line of epochs; those that begin in the same epoch change places."""
        T, N = self.context, self.tokens.tokens
        epoch = number * T // N
        stream, rows = self._epoch(epoch)
        first = self._first_row(epoch)
        begin = (first + int(rows[number - first])) * T - epoch * N
        done = stream.fill(begin, ids, weights)
        if done < len(ids):
            done += self._epoch(epoch + 1)[0].fill(0, ids[done:], weights[done:])
        assert done == len(ids)

    def _first_row(self, epoch: int) -> int:
        return -(-epoch * self.tokens.tokens // self.context)

    def _make_epoch(self, epoch: int) -> tuple[Stream, npt.NDArray[np.int64]]:
        """The documents of an epoch in their order, and the order of its rows."""
        count = self._first_row(epoch + 1) - self._first_row(epoch)
        order = permutation(self.seed, "document", epoch, self.tokens.documents)
        return Stream(self.tokens, order), permutation(self.seed, "rows", epoch, count)


@dataclass(frozen=True)
class Validation:
    """The validation side, once and in order, as batches (the last one padded with rows of weight 0)."""

    tokens: Tokens
    batch: int
    context: int
    mode: Mode

    def __iter__(self) -> Iterator[Batch]:
        B, T = self.batch, self.context
        ids, weights, row = np.zeros((B, T + 1), np.int64), np.zeros((B, T + 1), np.float32), 0
        for line, begin, lead in self._windows():
            ids[row], weights[row] = 0, 0
            if lead is not None:
                ids[row, 0] = lead
                line.fill(begin, ids[row, 1:], weights[row, 1:])
            else:
                line.fill(begin, ids[row], weights[row])
            row += 1
            if row == B:
                yield self._batch(ids, weights)
                row = 0
        if row:
            ids[row:], weights[row:] = 0, 0
            yield self._batch(ids, weights)

    @staticmethod
    def _batch(ids: Ids, weights: Weights) -> Batch:
        return Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), weights[:, 1:].copy())

    def __len__(self) -> int:
        return -(-sum(1 for _ in self._windows()) // self.batch)

    def _windows(self) -> Iterator[tuple[Stream, int, int | None]]:
        """A line of tokens, where to begin in it, and what to put before that."""
        if self.mode == "windows":
            line = Stream(self.tokens)
            for begin in range(0, line.length - 1, self.context):
                yield line, begin, None
            return
        for place, document in enumerate(self.tokens.index):
            line = Stream(self.tokens, np.array([place]))
            lead = self._lead(document)
            if lead is not None:
                yield line, 0, lead
            for begin in range(
                0 if lead is None else self.context - 1, line.length - 1, self.context
            ):
                yield line, begin, None

    def _lead(self, document: np.void) -> int | None:
        """What a document's first token is predicted from, where it is text: the end token of another document, which
        it follows in training too.
        """
        return self.tokens.end_id if document["first"] else None

    @property
    def targets(self) -> int:
        """How many tokens are predicted."""
        return int(sum(batch.weights.sum(dtype=np.float64) for batch in self))

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text that is predicted, for bits per byte: what no token predicts does not count."""
        first = self.tokens.index["first"]
        if self.mode == "windows":
            return self.tokens.bytes - int(first[0])
        return self.tokens.bytes - (int(first.sum()) if self.tokens.end_id is None else 0)


def validation(tokens: Tokens, batch: int, context: int, mode: Mode | None = None) -> Validation:
    """Each token of a side as a target once, in order; what stands in no row's reach has the weight 0.

    "documents": each document begins a row of its own; one that is longer than the context goes on in further rows. Its
    first token is predicted from the tokenizer's end token, which stands before it in training too, or from its own
    start token; where a tokenizer has neither, it is not predicted. "windows": rows of all the text, back to back.

    Raises UsageError for a number below 1, DataError where there is nothing to predict.
    """
    for name, value in (("batch", batch), ("context", context)):
        Range(whole=True, least=1).check(name, value)
    found = Validation(tokens, batch, context, mode or choose_mode(tokens))
    if not found.targets:
        raise DataError(
            f"{tokens.shard.about.files[0]}: {tokens.tokens} tokens for validation are too few to predict any: "
            "give more text, or a larger validation fraction"
        )
    return found

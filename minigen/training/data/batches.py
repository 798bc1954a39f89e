"""Batches as a pure function of (seed, step, micro), and the validation data once, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

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
    """Random windows if the data is one text, otherwise documents in a new order each epoch."""
    return "windows" if tokens.documents == 1 else "documents"


def random_words(seed: int, purpose: str, number: int, count: int) -> npt.NDArray[np.uint64]:
    """(count,) random words for (seed, purpose, number), the same on every machine.

    Philox 4x64 (Salmon, Moraes, Dror and Shaw 2011), as in sampling/uniforms.py. The key is the
    seed and the first 8 letters of the purpose, and the number is the high word of the counter, so
    that no two streams overlap.
    """
    key = [check_word("seed", seed), int.from_bytes(purpose.encode()[:8].ljust(8), "little")]
    counter = [0, 0, 0, number]
    philox = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))
    return np.asarray(philox.random_raw(count), np.uint64)


def permutation(seed: int, purpose: str, number: int, count: int) -> npt.NDArray[np.int64]:
    """(count,): the numbers below `count` in a random order."""
    # Not Generator.permutation, which may change between versions of NumPy; words of Philox do not.
    return np.argsort(random_words(seed, purpose, number, count), kind="stable").astype(np.int64)


class Batches:
    """The batches of each training step.

    A step has `micros` batches of `batch` rows of `context` tokens: several for gradient
    accumulation, or for several devices. Their content as a whole depends only on micros * batch.

    "documents": in each epoch all documents are put in a new random order, concatenated with their
    end tokens, and cut into rows, which are shuffled too. Each token is read once per epoch, as one
    of `ids`. A row at the end of an epoch continues with the next epoch. A row may have several
    documents, which see each other.
    "windows": rows from random positions of all documents, concatenated, as in nanoGPT.

    Raises UsageError for a number below 1 or an invalid seed, DataError for fewer tokens than a row
    needs.
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
                f"{tokens.shard.about.files[0]}: {tokens.tokens} tokens to train on are too few "
                f"for a context of {context}: lower the context to at most "
                f"{max(tokens.tokens - 1, 1)}, or give more text"
            )
        self.tokens = tokens
        self.batch_size = batch
        self.context = context
        self.micros = micros
        self.seed = check_word("seed", seed)
        self.mode: Mode = mode or choose_mode(tokens)
        if self.mode not in ("documents", "windows"):
            raise UsageError(f"mode is {mode!r}: choose documents or windows")
        self._unshuffled = Stream(tokens)
        self._epoch = lru_cache(maxsize=3)(self._make_epoch)

    @property
    def tokens_per_step(self) -> int:
        return self.micros * self.batch_size * self.context

    def epoch_of(self, step: int) -> float:
        """How often all tokens have been read before this step; for random windows, on average."""
        return step * self.tokens_per_step / self.tokens.tokens

    def batch(self, step: int, micro: int = 0) -> Batch:
        """Batch `micro` of a step; both count from 0."""
        assert step >= 0
        assert 0 <= micro < self.micros
        B, T = self.batch_size, self.context
        ids = np.zeros((B, T + 1), np.int64)
        weights = np.zeros((B, T + 1), np.float32)
        if self.mode == "windows":
            words = random_words(self.seed, "windows", step, self.micros * B)
            words = words[micro * B : (micro + 1) * B]
            # Numbers in [0, 1) of 53 bits; with fewer than 2**53 tokens every position is possible.
            uniform = (words >> np.uint64(11)) * 2.0**-53
            positions = (uniform * (self._unshuffled.length - T)).astype(np.int64)
            for row, position in enumerate(positions):
                self._unshuffled.fill(int(position), ids[row], weights[row])
        else:
            first = (step * self.micros + micro) * B
            for row in range(B):
                self._fill_row(first + row, ids[row], weights[row])
        return shifted(ids, weights)

    def _fill_row(self, number: int, ids: Ids, weights: Weights) -> None:
        """Row `number` of all epochs; rows that begin in the same epoch are shuffled."""
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
        """The first row that begins in this epoch."""
        return -(-epoch * self.tokens.tokens // self.context)

    def _make_epoch(self, epoch: int) -> tuple[Stream, npt.NDArray[np.int64]]:
        """The documents of an epoch in random order, and the order of its rows."""
        count = self._first_row(epoch + 1) - self._first_row(epoch)
        order = permutation(self.seed, "document", epoch, self.tokens.documents)
        return Stream(self.tokens, order), permutation(self.seed, "rows", epoch, count)


def shifted(ids: Ids, weights: Weights) -> Batch:
    """The batch of rows (B, T + 1): each token but the last, and the token after it as a target."""
    return Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), weights[:, 1:].copy())


class Row(NamedTuple):
    """A row of validation: tokens of a stream from `begin` on, after the token `lead`, if any."""

    stream: Stream
    begin: int
    lead: int | None = None


@dataclass(frozen=True)
class Validation:
    """The validation data, once and in order, as batches.

    The last batch is padded with rows of weight 0.
    """

    tokens: Tokens
    batch: int
    context: int
    mode: Mode

    def __iter__(self) -> Iterator[Batch]:
        B, T = self.batch, self.context
        ids = np.zeros((B, T + 1), np.int64)
        weights = np.zeros((B, T + 1), np.float32)
        filled = 0
        for row in self._rows():
            ids[filled] = 0
            weights[filled] = 0
            skip = 0
            if row.lead is not None:
                ids[filled, 0] = row.lead
                skip = 1
            row.stream.fill(row.begin, ids[filled, skip:], weights[filled, skip:])
            filled += 1
            if filled == B:
                yield shifted(ids, weights)
                filled = 0
        if filled:
            ids[filled:] = 0
            weights[filled:] = 0
            yield shifted(ids, weights)

    def __len__(self) -> int:
        rows = sum(1 for _ in self._rows())
        return -(-rows // self.batch)

    def _rows(self) -> Iterator[Row]:
        if self.mode == "windows":
            stream = Stream(self.tokens)
            for begin in range(0, stream.length - 1, self.context):
                yield Row(stream, begin)
            return
        for i, document in enumerate(self.tokens.index):
            stream = Stream(self.tokens, np.array([i]))
            lead = self._lead(document)
            first = 0
            if lead is not None:
                yield Row(stream, 0, lead)
                first = self.context - 1
            for begin in range(first, stream.length - 1, self.context):
                yield Row(stream, begin)

    def _lead(self, document: np.void) -> int | None:
        """The token from which a document's first token is predicted, if that is text.

        It is the end token of another document, as in training.
        """
        return self.tokens.end_id if document["first"] else None

    @property
    def targets(self) -> int:
        """The number of tokens that are predicted."""
        return int(sum(batch.weights.sum(dtype=np.float64) for batch in self))

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the predicted text, for bits per byte."""
        first = self.tokens.index["first"]
        if self.mode == "windows":
            return self.tokens.bytes - int(first[0])
        if self.tokens.end_id is None:
            return self.tokens.bytes - int(first.sum())
        return self.tokens.bytes


def validation(tokens: Tokens, batch: int, context: int, mode: Mode | None = None) -> Validation:
    """Batches with each token as a target once, in order; padding has the weight 0.

    "documents": each document begins a row, and continues in further rows if it is longer than the
    context. Its first token is predicted from the tokenizer's end token, which is also before it in
    training, or from its own start token; if a tokenizer has neither, it is not predicted.
    "windows": rows of all the text, concatenated.

    Raises UsageError for a number below 1, DataError if there is nothing to predict.
    """
    for name, value in (("batch", batch), ("context", context)):
        Range(whole=True, least=1).check(name, value)
    result = Validation(tokens, batch, context, mode or choose_mode(tokens))
    if not result.targets:
        raise DataError(
            f"{tokens.shard.about.files[0]}: {tokens.tokens} tokens for validation are too few to "
            "predict any: give more text, or a larger validation fraction"
        )
    return result

"""The first phase of generation: reading. A reader turns prompts and new tokens into logits.

`Runner` is the plain reader of a model. The others wrap one, and avoid reading some tokens again,
or read some early:

- `shared_text.BranchReader` reads the beginning of all prompts once; each continues as a branch;
- `prompt_cache.CachedReader` takes the state of the beginning of the prompts from a file;
- `chat/kept.KeptReader` reads one text after another and keeps the state;
- `speculation.SpeculativeReader` reads guesses together with each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from minigen.backends.base import Array, Backend, Tree
from minigen.models.architecture import Architecture

BLOCK = 512  # tokens of a text that are read in one forward pass


class Reader(Protocol):
    """Computes the logits of a run. A state belongs to the reader whose `prefill` returned it."""

    @property
    def runner(self) -> Runner:
        """The model."""
        ...

    @property
    def ahead(self) -> bool:
        """Whether `read` accepts ids on the device that the host does not know yet."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, Any]:
        """Reads prompts, which may differ in length.

        Returns the logits (B, 1, V) after each prompt, and a state with room for `capacity` tokens
        per row.
        """
        ...

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Array:
        """Appends tokens to the state.

        Args:
            ids: (B, T), as lists, a NumPy array, or an array on the device.
            state: The state, which is changed.
            at: The positions within T whose logits are returned; the default is the last.

        Returns the logits (B, len(at), V).
        """
        ...


@dataclass(frozen=True)
class Runner:
    """A model that is ready to run: the backend, the architecture, and the weights."""

    ops: Backend
    architecture: Architecture
    params: Tree
    ahead: ClassVar[bool] = True

    @property
    def runner(self) -> Runner:
        """Itself, as it is a Reader too."""
        return self

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, Any]:
        """Reads prompts, which may differ in length, as one batch that is padded on the left.

        A GPU reads BLOCK tokens at a time, since one long pass may take more memory or time than
        the device allows.

        Returns the logits (B, 1, V) after each prompt, and the state, with room for `capacity`
        tokens per row.
        """
        longest = max(map(len, prompts))
        starts = np.array([longest - len(prompt) for prompt in prompts])
        ids = np.zeros((len(prompts), longest), dtype=np.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[longest - len(prompt) :] = prompt
        padding = None
        if starts.any():
            padding = starts
        state = self.architecture.new_state(self.ops, len(prompts), max(capacity, longest), padding)
        first = 0
        while self.ops.accelerated and longest - first > BLOCK:
            self.ops.sync(self.read(ids[:, first : first + BLOCK], state))
            self.ops.release()
            first += BLOCK
        return self.read(ids[:, first:], state), state

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Array:
        """As `Reader.read`, by replaying a recorded pass if the backend has one."""
        if isinstance(ids, Sequence):
            ids = np.asarray(ids)

        def record(ops: Backend, tokens: Array) -> Array | None:
            return self.architecture.record(ops, self.params, tokens, state, at)

        logits = None
        if not state.must_skip_padding:
            logits = self.ops.replay(ids, state, tuple(at), record)
        if logits is None:
            if isinstance(ids, np.ndarray):
                ids = self.ops.asarray(ids)
            logits = self.architecture.forward(self.ops, self.params, ids, state, at)
        return logits

    def decode(self, ids: Sequence[int] | Array, state: Any) -> Array:
        """Reads one new token (B,) per row. Returns the logits (B, 1, V) after it."""
        return decode(self, ids, state)


def decode(reader: Reader, ids: Sequence[int] | Array, state: Any) -> Array:
    """Reads one new token (B,) per row. Returns the logits (B, 1, V) after it."""
    if isinstance(ids, Sequence):
        ids = np.asarray(ids)
    return reader.read(ids[:, None], state)

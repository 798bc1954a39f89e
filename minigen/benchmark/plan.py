"""What is measured: llama-bench's tests by its names, on models that are checked before anything is run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from minigen.benchmark.shapes import SHAPES
from minigen.checkpoints.loading import stored_dtype
from minigen.checkpoints.opening import open_stored
from minigen.errors import UsageError


@dataclass(frozen=True)
class Case:
    """A test of `batch` rows after `depth` tokens each: "pp" reads `tokens` in one pass, "tg" decodes them in steps.

    "train" makes steps of training on rows of `tokens`.
    """

    kind: str
    tokens: int
    depth: int = 0
    batch: int = 1

    @property
    def name(self) -> str:
        if self.kind == "train":
            return f"train b{self.batch}x{self.tokens}"
        depth, batch = f" @ d{self.depth}" * (self.depth > 0), f" b{self.batch}" * (self.batch > 1)
        return f"{self.kind}{self.tokens}{depth}{batch}"

    @property
    def before(self) -> int:
        """Tokens in the context before the clock starts: decoding needs one to begin with."""
        return max(self.depth, 1) if self.kind == "tg" else self.depth

    def passes(self) -> Iterator[tuple[int, int]]:
        """(tokens before, new tokens) of each pass that is timed."""
        if self.kind == "tg":
            yield from ((self.before + i, 1) for i in range(self.tokens))
        else:
            yield self.before, self.tokens


def make_cases(
    prompts: Sequence[int], decoded: Sequence[int], depths: Sequence[int], batches: Sequence[int]
) -> list[Case]:
    """Every combination; a length of 0 leaves its test out. Raises UsageError where none is left."""
    kinds = [("pp", tokens) for tokens in prompts] + [("tg", tokens) for tokens in decoded]
    cases = [
        Case(kind, tokens, depth, batch)
        for batch in batches
        for depth in depths
        for kind, tokens in kinds
        if tokens
    ]
    if not cases:
        raise UsageError("there is nothing to measure: give a length above 0 to -p or -n")
    return list(dict.fromkeys(cases))


def model_of(source: str | None, offline: bool = False) -> dict[str, Any]:
    """The fields of a Subject that a model decides; None is the model that ships. Raises as `minigen.load` does."""
    found = open_stored(source, offline=offline)
    return {
        "model": found.folder.name if source is None else os.path.normpath(source), "config": found.config,
        "folder": found.folder, "stored": stored_dtype(found.tensors), "held": found.packings(),
    }  # fmt: skip


def shape_of(name: str) -> dict[str, Any]:
    """The same of a named shape. Raises UsageError for one that is not known."""
    if name not in SHAPES:
        raise UsageError(f"unknown shape {name!r}: choose {', '.join(SHAPES)}")
    config = SHAPES[name]
    return {
        "model": f"{name} shape",
        "config": config,
        "folder": None,
        "stored": config["torch_dtype"],
    }

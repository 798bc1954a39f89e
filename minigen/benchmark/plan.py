"""The tests, named as in llama-bench, and the models on which they run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from minigen.benchmark.shapes import SHAPES
from minigen.checkpoints.loading import stored_dtype
from minigen.checkpoints.opening import open_stored
from minigen.errors import UsageError


@dataclass(frozen=True)
class Case:
    """A test with `batch` rows, each after `depth` tokens.

    "pp" reads `tokens` in one pass, "tg" decodes them one by one, and "train" makes training steps
    on rows of `tokens`.
    """

    kind: str
    tokens: int
    depth: int = 0
    batch: int = 1

    @property
    def name(self) -> str:
        if self.kind == "train":
            return f"train b{self.batch}x{self.tokens}"
        name = f"{self.kind}{self.tokens}"
        if self.depth > 0:
            name += f" @ d{self.depth}"
        if self.batch > 1:
            name += f" b{self.batch}"
        return name

    @property
    def before(self) -> int:
        """Tokens in the context before the timed part; decoding needs at least one."""
        return max(self.depth, 1) if self.kind == "tg" else self.depth

    def passes(self) -> Iterator[tuple[int, int]]:
        """(tokens before, new tokens) of each timed pass."""
        if self.kind == "tg":
            for i in range(self.tokens):
                yield self.before + i, 1
        else:
            yield self.before, self.tokens


def make_cases(
    prompts: Sequence[int], decoded: Sequence[int], depths: Sequence[int], batches: Sequence[int]
) -> list[Case]:
    """Every combination, without lengths of 0. Raises UsageError if none is left."""
    kinds = [("pp", tokens) for tokens in prompts]
    kinds += [("tg", tokens) for tokens in decoded]
    cases: list[Case] = []
    for batch, depth, (kind, tokens) in product(batches, depths, kinds):
        if tokens:
            cases.append(Case(kind, tokens, depth, batch))
    if not cases:
        raise UsageError("there is nothing to measure: give a length > 0 to -p or -n")
    return list(dict.fromkeys(cases))


def model_of(source: str | None, offline: bool = False) -> dict[str, Any]:
    """The fields of a Subject for a model; None: the model that ships. Raises as `minigen.load`."""
    stored = open_stored(source, offline=offline)
    return {
        "model": stored.folder.name if source is None else os.path.normpath(source),
        "config": stored.config,
        "folder": stored.folder,
        "stored": stored_dtype(stored.tensors),
        "held": stored.packings(),
    }


def shape_of(name: str) -> dict[str, Any]:
    """The fields of a Subject for a named shape. Raises UsageError for an unknown name."""
    if name not in SHAPES:
        raise UsageError(f"unknown shape {name!r}: choose {', '.join(SHAPES)}")
    config = SHAPES[name]
    return {
        "model": f"{name} shape",
        "config": config,
        "folder": None,
        "stored": config["torch_dtype"],
    }

"""What is measured: llama-bench's tests by its names, on models that are checked before anything is run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigen.errors import ContextError, UsageError
from minigen.families import Architecture, HubConfig, find_family
from minigen.families.family import with_kv_bits
from minigen.families.held import held_on
from minigen.families.loading import stored_dtype
from minigen.families.opening import open_stored
from minigen.families.quantization import Packings, choose_packings
from minigen.measure.shapes import SHAPES


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
        Case(kind, tokens, depth, batch) for batch in batches for depth in depths for kind, tokens in kinds if tokens
    ]
    if not cases:
        raise UsageError("there is nothing to measure: give a length above 0 to -p or -n")
    return list(dict.fromkeys(cases))


@dataclass(frozen=True)
class Subject:
    """A model on a backend: the weights of `folder`, or random ones where that is None.

    `stored` is the checkpoint's own dtype, which a GPU computes in where `dtype` is None; `held` are the matrices that
    it has quantized, and `quant` is what it is loaded with, `kv_bits` the bits of a number in its cache. `threads` of
    the CPU compute; None: as many as torch takes.
    """

    model: str
    config: Mapping[str, Any]
    folder: Path | None
    stored: str
    backend: str
    device: str | None = None
    dtype: str | None = None
    quant: str | None = None
    held: Packings = field(default_factory=dict)
    kv_bits: int | None = None
    threads: int | None = None

    def packings(self) -> Packings:
        """How its matrices are quantized. Raises UsageError as `choose_packings` does."""
        return choose_packings(self.quant, self.architecture(), self.held, self.model)

    def packings_in_memory(self) -> Packings:
        """The same as its backend holds them, which may be in more bits."""
        return held_on(self.backend, self.packings())

    def architecture(self) -> Architecture:
        where = f"the shape {self.model}" if self.folder is None else str(self.folder / "config.json")
        return with_kv_bits(find_family(self.config).build(HubConfig(self.config, where)), self.kv_bits)

    def session(self) -> Any:
        """What measures it, made in the process that does: it has the methods of Session."""
        from minigen.measure.session import Session

        return Session(self)

    def takes(self, case: Case) -> bool:
        """Whether it can be asked for this test."""
        return True

    def packages(self) -> Sequence[str]:
        """What pip calls that which it runs on."""
        return (self.backend,)


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
    return {"model": f"{name} shape", "config": config, "folder": None, "stored": config["torch_dtype"]}


def check_context(subjects: Iterable[Subject], cases: Iterable[Case]) -> None:
    """Raises ContextError, naming the test, for one that goes beyond a model's context."""
    for subject in subjects:
        context = subject.architecture().context
        for case in cases:
            if context is not None and case.before + case.tokens > context:
                raise ContextError(
                    f"{case.name} takes {case.before + case.tokens} tokens, and the context of {subject.model} is "
                    f"{context}: ask for less of -p, -n or -d"
                )

"""How a matrix is stored and held in few bits a weight: the tensors that it becomes, and what they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minigen.backends.quantized import computed_in


@dataclass(frozen=True)
class Packing:
    """How a matrix is quantized: bits a weight, weights of a row that share a scale, and which of MODES."""

    bits: int
    group: int
    mode: str = "affine"

    def names(self, name: str) -> tuple[str, ...]:
        """Of the tensors that a matrix called `name` is stored as."""
        return stored_names(name)[: 3 if self.mode == "affine" else 2]

    def tensors(self, name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shapes of those tensors for a matrix (out, in)."""
        out, columns = shape
        shapes = (out, columns * self.bits // 32), *[(out, columns // self.group)] * 2
        return dict(zip(self.names(name), shapes, strict=False))

    def integers(self, name: str) -> dict[str, str]:
        """The dtypes of those that are not floats."""
        weight, scales, _ = stored_names(name)
        return {weight: "U32"} if self.mode == "affine" else {weight: "U32", scales: "U8"}

    def memory(self, size: int) -> tuple[int, int]:
        """What so many weights take: floats, of the dtype that is computed in, and bytes of codes."""
        codes, groups = size * self.bits // 8, size // self.group
        return (2 * groups, codes) if self.mode == "affine" else (0, codes + groups)

    def bytes(self, size: int, wide: int) -> int:
        """The same in bytes, where a float has `wide`."""
        floats, codes = self.memory(size)
        return floats * wide + codes

    def held_on(self, backend: str) -> Packing | None:
        """What a backend holds it as, by its name; None: floats."""
        kind = computed_in(backend, self.mode, self.bits, self.group)
        return None if kind is None else Packing(kind[1], self.group, kind[0])

    @property
    def label(self) -> str:
        """ "q4" or "mxfp4", say."""
        return f"q{self.bits}" if self.mode == "affine" else self.mode

    def as_config(self) -> dict[str, int]:
        """Of an affine one, as all of those that minigen writes are."""
        return {"group_size": self.group, "bits": self.bits}


Packings = Mapping[str, Packing]  # by a matrix's path in the parameter tree; those that are not in it are plain


def stored_names(name: str) -> tuple[str, str, str]:
    """Of the packed weight, the scales and the biases."""
    return name, f"{module_of(name)}.scales", f"{module_of(name)}.biases"


def module_of(name: str) -> str:
    """The module whose weight a tensor is; torch's recurrent layers have several, each then a module of its own."""
    return name.removesuffix(".weight")

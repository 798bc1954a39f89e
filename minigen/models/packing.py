"""How a quantized matrix is stored: the tensors it becomes, and the memory they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minigen.backends.quantized import computed_in


@dataclass(frozen=True)
class Packing:
    """How a matrix is quantized.

    Fields:
        bits: The bits of each weight.
        group: The number of weights in a row that share a scale.
        mode: A key of `backends.quantized.MODES`.
    """

    bits: int
    group: int
    mode: str = "affine"

    @property
    def is_affine(self) -> bool:
        """Whether weights are scale * code + bias, with scales and biases in the model's dtype."""
        return self.mode == "affine"

    def names(self, name: str) -> tuple[str, ...]:
        """The names of the tensors that a matrix called `name` is stored as."""
        weight, scales, biases = stored_names(name)
        if self.is_affine:
            return weight, scales, biases
        return weight, scales

    def tensors(self, name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shapes of those tensors for a matrix of shape (out, in)."""
        out, columns = shape
        codes, scales = (out, columns * self.bits // 32), (out, columns // self.group)
        return dict(zip(self.names(name), (codes, scales, scales), strict=False))

    def integers(self, name: str) -> dict[str, str]:
        """The dtypes of those tensors that are integers, by name."""
        weight, scales, _ = stored_names(name)
        if self.is_affine:
            return {weight: "U32"}
        return {weight: "U32", scales: "U8"}

    def memory(self, weights: int) -> tuple[int, int]:
        """What so many weights take: floats in the model's dtype, and bytes of codes."""
        codes, groups = weights * self.bits // 8, weights // self.group
        if self.is_affine:
            return 2 * groups, codes
        return 0, codes + groups

    def bytes(self, weights: int, float_bytes: int) -> int:
        """The bytes that so many weights take, where a float takes `float_bytes`."""
        floats, codes = self.memory(weights)
        return floats * float_bytes + codes

    def on_backend(self, backend: str) -> Packing | None:
        """The packing that this backend computes with instead; None: it computes with floats."""
        packed = computed_in(backend, self.mode, self.bits)
        if packed is None:
            return None
        mode, bits = packed
        return Packing(bits, self.group, mode)

    @property
    def label(self) -> str:
        """Such as "q4" or "mxfp4"."""
        if self.is_affine:
            return f"q{self.bits}"
        return self.mode

    def as_config(self) -> dict[str, int]:
        """Its values in config.json; only affine ones are ever written."""
        return {"group_size": self.group, "bits": self.bits}


# By a matrix's path in the parameter tree; matrices that are not in it are not quantized.
Packings = Mapping[str, Packing]


def stored_names(name: str) -> tuple[str, str, str]:
    """The names of the packed weight, the scales and the biases of a matrix called `name`."""
    return name, f"{module_of(name)}.scales", f"{module_of(name)}.biases"


def module_of(name: str) -> str:
    """The module that a weight belongs to.

    torch's recurrent layers have several weights; each counts as a module of its own.
    """
    return name.removesuffix(".weight")

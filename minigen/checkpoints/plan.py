"""Which tensors of a checkpoint make which array of the parameter tree, before a byte is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend, Quantized
from minigen.backends.quantized import each
from minigen.checkpoints.adapters import key_of
from minigen.families.family import Family, Source
from minigen.layers.param import Param
from minigen.models.architecture import Architecture
from minigen.tree import flatten

INDEX = re.compile(r"\{(\w+)\}")  # a named index in a pattern
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # an index in a path


@dataclass(frozen=True)
class Piece:
    """One stored tensor and the shape that the architecture wants it in."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One array of the tree and the tensors it is made of.

    `stack` is the length of a first axis that no tensor has: the pieces come in so many groups of equal size, each is
    joined by rows, and the results are stacked. None: there is one group, and no such axis.
    """

    path: str
    pieces: tuple[Piece, ...]
    transposed: bool
    stack: int | None = None

    def groups(self) -> Iterator[tuple[Piece, ...]]:
        """The pieces of each joined matrix."""
        size = len(self.pieces) // (self.stack or 1)
        for first in range(0, len(self.pieces), size):
            yield self.pieces[first : first + size]

    def assemble(self, ops: Backend, parts: Sequence[Array | Quantized]) -> Array | Quantized:
        """The array of the tree, of `parts` in the order of the pieces: all floats, or all quantized alike."""
        remaining = iter(parts)
        matrices = [self.join(ops, [next(remaining) for _ in group]) for group in self.groups()]
        if self.stack is None:
            return matrices[0]
        return each(lambda *arrays: ops.stack(arrays, axis=0), *matrices)

    def join(self, ops: Backend, parts: Sequence[Array | Quantized]) -> Array | Quantized:
        """One matrix, by rows."""
        x = parts[0] if len(parts) == 1 else each(lambda *arrays: ops.concat(arrays, axis=0), *parts)
        if self.transposed and not isinstance(x, Quantized) and x.ndim == 2:
            x = ops.contiguous(ops.permute(x, (1, 0)))
        return x

    def take_apart(self, array: npt.NDArray[Any], transposed: bool) -> Iterator[tuple[Piece, npt.NDArray[Any]]]:
        """What `assemble` did, undone: each piece and its numbers, `transposed` as they are stored."""
        matrices = [array] if self.stack is None else list(array)
        for matrix, group in zip(matrices, self.groups(), strict=True):
            if transposed and matrix.ndim == 2:
                matrix = matrix.T
                assert len(group) == 1, "no family transposes and joins"
            ends = np.cumsum([piece.shape[0] for piece in group])
            yield from zip(group, np.split(matrix, ends[:-1]), strict=True)


def plan(architecture: Architecture, family: Family, names: Iterable[str]) -> list[Entry]:
    """Which tensor goes where, in the order of the tree.

    The prefix is dropped from the names where the checkpoint has them without it, and is mlx-lm's where it has that.
    """
    given = set(names)
    by_mlx = bool(family.mlx_prefix) and any(name.startswith(family.mlx_prefix) for name in given)
    prefix = present_prefix(family, given, by_mlx)
    patterns = {INDEX.sub("#", pattern): pattern for pattern in family.names}
    entries = []
    for path, param in flatten(architecture.shapes()).items():
        pattern = patterns[NUMBER.sub("#", path)]
        indices = dict(zip(INDEX.findall(pattern), NUMBER.findall(path), strict=True))
        source = family.names[pattern]
        transposed = source.transposed and not by_mlx
        stack = stack_of(source, indices, param)
        pieces = []
        for name, shape in zip(names_of(source, indices, stack), shapes_of(param, source, stack), strict=True):
            if name.startswith(family.prefix):
                name = prefix + name.removeprefix(family.prefix)
            pieces.append(Piece(name, shape[::-1] if transposed else shape))
        entries.append(Entry(path, tuple(pieces), transposed, stack))
    return entries


def present_prefix(family: Family, given: set[str], by_mlx: bool) -> str:
    """What stands in the place of the family's prefix in a checkpoint with these names."""
    if by_mlx:
        return family.mlx_prefix
    if any(name.startswith(family.prefix) for name in given):
        return family.prefix
    every = [name for source in family.names.values() for name in source.names]
    shorter = [name.removeprefix(family.prefix) for name in every if name.startswith(family.prefix)]
    pattern = re.compile("|".join(expression_of(name) for name in shorter))
    return "" if any(pattern.fullmatch(name) for name in given) else family.prefix


def expression_of(name: str) -> str:
    """A regular expression for a stored name at any indices."""
    return r"\d+".join(re.escape(part) for part in INDEX.split(name)[::2])


def names_of(source: Source, indices: Mapping[str, str], stack: int | None) -> list[str]:
    """The stored names that a source means, at these indices of the path."""
    if stack is None:
        return [name.format(**indices) for name in source.names]
    (index,) = stacked_indices(source, indices)
    return [name.format(**indices, **{index: number}) for number in range(stack) for name in source.names]


def stacked_indices(source: Source, indices: Mapping[str, str]) -> set[str]:
    """The indices that the stored names have and the path has not: along these, tensors are stacked."""
    return {index for name in source.names for index in INDEX.findall(name)} - indices.keys()


def stack_of(source: Source, indices: Mapping[str, str], param: Param) -> int | None:
    """How many matrices are stacked to this parameter; None where it is not a stack."""
    found = stacked_indices(source, indices)
    assert len(found) <= 1, f"{source.names} are stacked along {sorted(found)}: one index at most"
    return param.shape[0] if found else None


def shapes_of(param: Param, source: Source, stack: int | None) -> list[tuple[int, ...]]:
    """The shape of each tensor that this parameter is made of."""
    shape, count = param.shape if stack is None else param.shape[1:], len(source.names)
    if count == 1:
        return [shape] * (stack or 1)
    assert len(param.parts) == count
    return [(rows, *shape[1:]) for rows in param.parts] * (stack or 1)


def unused_names(architecture: Architecture, family: Family) -> tuple[str, ...]:
    """Names of tensors that a tied model has no use for: copies of the embedding, as copies.py has seen."""
    return () if "head.weight" in flatten(architecture.shapes()) else family.names["head.weight"].names


def matrices(entries: list[Entry], family: Family) -> dict[str, tuple[int, ...]]:
    """The shape of every stored tensor as the model computes with it, (out, in), by its key for adapters."""
    shapes = {}
    for entry in entries:
        for piece in entry.pieces:
            shapes[key_of(piece.name, family.prefix)] = piece.shape[::-1] if entry.transposed else piece.shape
    return shapes

"""Which tensors of a checkpoint become which array of the parameter tree."""

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
    """One stored tensor, and the shape that the architecture needs it in."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One array of the parameter tree, and the tensors it is made of.

    Fields:
        path: Its path in the tree.
        pieces: The tensors.
        transposed: Whether they are stored as (in, out).
        stack: The length of a first axis that no tensor has. The pieces form so many groups of
            equal size; each group is joined by rows, and the results are stacked. None: there is
            one group and no such axis.
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
        """The array of the tree from `parts`, one per piece: all floats, or all quantized alike."""
        matrices = []
        first = 0
        for group in self.groups():
            matrices.append(self.join(ops, parts[first : first + len(group)]))
            first += len(group)
        if self.stack is None:
            return matrices[0]
        return each(lambda *arrays: ops.stack(arrays, axis=0), *matrices)

    def join(self, ops: Backend, parts: Sequence[Array | Quantized]) -> Array | Quantized:
        """One matrix from its parts, by rows, transposed if it is stored so."""
        x = parts[0]
        if len(parts) > 1:
            x = each(lambda *arrays: ops.concat(arrays, axis=0), *parts)
        if self.transposed and not isinstance(x, Quantized) and x.ndim == 2:
            x = ops.contiguous(ops.permute(x, (1, 0)))
        return x

    def take_apart(
        self, array: npt.NDArray[Any], transposed: bool
    ) -> Iterator[tuple[Piece, npt.NDArray[Any]]]:
        """The inverse of `assemble`: each piece and its numbers, `transposed` as stored."""
        matrices = [array]
        if self.stack is not None:
            matrices = list(array)
        for matrix, group in zip(matrices, self.groups(), strict=True):
            if transposed and matrix.ndim == 2:
                matrix = matrix.T
                assert len(group) == 1, "no family transposes and joins"
            ends = np.cumsum([piece.shape[0] for piece in group])
            yield from zip(group, np.split(matrix, ends[:-1]), strict=True)


def plan(architecture: Architecture, family: Family, names: Iterable[str]) -> list[Entry]:
    """The tensors that each array of the tree is made of, in the order of the tree.

    `names` are those of a checkpoint: they decide whether tensors have the family's prefix,
    mlx-lm's prefix or none.
    """
    stored_names = set(names)
    mlx_prefix = family.mlx_prefix
    by_mlx = bool(mlx_prefix) and any(name.startswith(mlx_prefix) for name in stored_names)
    prefix = present_prefix(family, stored_names, by_mlx)
    patterns = {INDEX.sub("#", pattern): pattern for pattern in family.names}
    entries = []
    for path, param in flatten(architecture.shapes()).items():
        pattern = patterns[NUMBER.sub("#", path)]
        indices = dict(zip(INDEX.findall(pattern), NUMBER.findall(path), strict=True))
        source = family.names[pattern]
        transposed = source.transposed and not by_mlx
        stack = stack_of(source, indices, param)
        pieces = []
        shapes = shapes_of(param, source, stack)
        for name, shape in zip(names_of(source, indices, stack), shapes, strict=True):
            if name.startswith(family.prefix):
                name = prefix + name.removeprefix(family.prefix)
            if transposed:
                shape = shape[::-1]
            pieces.append(Piece(name, shape))
        entries.append(Entry(path, tuple(pieces), transposed, stack))
    return entries


def present_prefix(family: Family, stored_names: set[str], by_mlx: bool) -> str:
    """What a checkpoint with these names has in place of the family's prefix."""
    if by_mlx:
        return family.mlx_prefix
    if any(name.startswith(family.prefix) for name in stored_names):
        return family.prefix
    expressions = []
    for source in family.names.values():
        for name in source.names:
            if name.startswith(family.prefix):
                expressions.append(expression_of(name.removeprefix(family.prefix)))
    without_prefix = re.compile("|".join(expressions))
    if any(without_prefix.fullmatch(name) for name in stored_names):
        return ""
    return family.prefix


def expression_of(name: str) -> str:
    """A regular expression for a stored name at any indices."""
    return r"\d+".join(re.escape(part) for part in INDEX.split(name)[::2])


def names_of(source: Source, indices: Mapping[str, str], stack: int | None) -> list[str]:
    """The names of the tensors of a source, at these indices of the path."""
    if stack is None:
        return [name.format(**indices) for name in source.names]
    (index,) = stacked_indices(source, indices)
    names = []
    for number in range(stack):
        names += [name.format(**indices, **{index: number}) for name in source.names]
    return names


def stacked_indices(source: Source, indices: Mapping[str, str]) -> set[str]:
    """The indices that stored names have and the path has not: tensors are stacked along these."""
    stored = set()
    for name in source.names:
        stored.update(INDEX.findall(name))
    return stored - indices.keys()


def stack_of(source: Source, indices: Mapping[str, str], param: Param) -> int | None:
    """How many matrices are stacked in this parameter; None if it is not a stack."""
    stacked = stacked_indices(source, indices)
    assert len(stacked) <= 1, f"{source.names} are stacked along {sorted(stacked)}: one at most"
    if not stacked:
        return None
    return param.shape[0]


def shapes_of(param: Param, source: Source, stack: int | None) -> list[tuple[int, ...]]:
    """The shape of each tensor that this parameter is made of."""
    shape, repeats = param.shape, 1
    if stack is not None:
        shape, repeats = param.shape[1:], stack
    if len(source.names) == 1:
        return [shape] * repeats
    assert len(param.parts) == len(source.names)
    return [(rows, *shape[1:]) for rows in param.parts] * repeats


def unused_names(architecture: Architecture, family: Family) -> tuple[str, ...]:
    """The names of tensors that a tied model does not need: copies.py has compared their values."""
    if "head.weight" in flatten(architecture.shapes()):
        return ()
    return family.names["head.weight"].names


def matrices(entries: list[Entry], family: Family) -> dict[str, tuple[int, ...]]:
    """The shape (out, in) of every stored tensor, by the key that adapters use for it."""
    shapes = {}
    for entry in entries:
        for piece in entry.pieces:
            shape = piece.shape[::-1] if entry.transposed else piece.shape
            shapes[key_of(piece.name, family.prefix)] = shape
    return shapes

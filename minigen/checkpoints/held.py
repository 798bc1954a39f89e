"""Quantized matrices as a model holds them: their parts joined, in codes that its backend computes with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from minigen.models.packing import Packing, Packings

if TYPE_CHECKING:
    from minigen.checkpoints.plan import Entry

HARDLY = 1.1  # times the memory that a user need not be told of


def held_packings(entries: Iterable[Entry], packed: Mapping[str, Packing]) -> dict[str, Packing]:
    """How each matrix of the tree is quantized once its parts are joined. Those that are not in it become floats."""
    found = {entry.path: joined([packed.get(piece.name) for piece in entry.pieces]) for entry in entries}
    return {path: packing for path, packing in found.items() if packing is not None}


def joined(parts: Sequence[Packing | None]) -> Packing | None:
    """In what parts fit together without loss: affine ones in the most bits that one has, if their groups are alike."""
    known = [part for part in parts if part is not None]
    kinds = {(part.mode, part.group) for part in known}
    if len(known) < len(parts) or len(kinds) > 1:
        return None
    return max(known, key=lambda part: part.bits)


def held_on(backend: str, packings: Packings) -> dict[str, Packing]:
    """What a backend holds in codes, and in which, of matrices that are stored in these."""
    found = {path: packing.on_backend(backend) for path, packing in packings.items()}
    return {path: packing for path, packing in found.items() if packing is not None}


def growth(entries: Iterable[Entry], packed: Packings, joined: Packings, backend: str, dtype: str) -> str:
    """What a backend holds in other codes than those that are stored (`packed`, by name; `joined`, by path), and in how
    much more memory, for a warning; "" where that is hardly more."""
    held = held_on(backend, joined)
    wide = 4 if dtype == "float32" else 2
    before, after = 0, 0
    others = dict[str, None]()  # a set that keeps its order
    for entry in (entry for entry in entries if entry.path in joined):
        now = held.get(entry.path)
        for piece in entry.pieces:
            stored, size = packed[piece.name], math.prod(piece.shape)
            before += stored.bytes(size, wide)
            after += size * wide if now is None else now.bytes(size, wide)
            if now != stored:
                others[f"{stored.label} as {dtype if now is None else now.label}"] = None
    if after <= HARDLY * before:
        return ""
    return f"weights in other codes ({', '.join(others)}): the same numbers, in {after / before:.1f} times the memory"

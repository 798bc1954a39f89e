"""Quantized matrices on a backend: parts joined, in codes that the backend computes with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from minigen.models.packing import Packing, Packings

if TYPE_CHECKING:
    from minigen.checkpoints.plan import Entry

NOTEWORTHY = 1.1  # growth of memory, as a factor, from which on users are warned


def joined_packings(entries: Iterable[Entry], packed: Mapping[str, Packing]) -> dict[str, Packing]:
    """How each matrix of the tree is quantized once its parts are joined, by path.

    `packed` has the stored tensors that are quantized, by name. A matrix that is not in the result
    is not quantized, or its parts do not fit together and become floats.
    """
    packings = {}
    for entry in entries:
        packing = joined([packed.get(piece.name) for piece in entry.pieces])
        if packing is not None:
            packings[entry.path] = packing
    return packings


def joined(parts: Sequence[Packing | None]) -> Packing | None:
    """The packing in which these parts fit together without loss; None: there is none.

    Affine parts with equal groups fit together in the most bits that one of them has.
    """
    quantized = [part for part in parts if part is not None]
    kinds = {(part.mode, part.group) for part in quantized}
    if len(quantized) < len(parts) or len(kinds) > 1:
        return None
    return max(quantized, key=lambda part: part.bits)


def packings_on(backend: str, packings: Packings) -> dict[str, Packing]:
    """The packings that a backend computes with, where matrices are stored in these.

    A matrix that is not in the result becomes floats.
    """
    result = {}
    for path, packing in packings.items():
        own = packing.on_backend(backend)
        if own is not None:
            result[path] = own
    return result


def growth(
    entries: Iterable[Entry], packed: Packings, joined: Packings, backend: str, dtype: str
) -> str:
    """What a backend must store in other codes, and how much more memory that takes.

    Args:
        entries: The plan of the checkpoint.
        packed: How stored tensors are quantized, by name.
        joined: How matrices of the tree are quantized, by path.
        backend: The name of the backend.
        dtype: The dtype it computes in.

    Returns:
        Text for a warning, or "" if memory hardly grows.
    """
    on_backend = packings_on(backend, joined)
    float_bytes = 4 if dtype == "float32" else 2
    before, after = 0, 0
    changes = dict[str, None]()  # a set that keeps its order
    for entry in entries:
        if entry.path not in joined:
            continue
        own = on_backend.get(entry.path)
        for piece in entry.pieces:
            stored, size = packed[piece.name], math.prod(piece.shape)
            before += stored.bytes(size, float_bytes)
            if own is None:
                label, own_bytes = dtype, size * float_bytes
            else:
                label, own_bytes = own.label, own.bytes(size, float_bytes)
            after += own_bytes
            if own != stored:
                changes[f"{stored.label} as {label}"] = None
    if after <= NOTEWORTHY * before:
        return ""
    return (
        f"weights in other codes ({', '.join(changes)}): the same numbers, in "
        f"{after / before:.1f} times the memory"
    )

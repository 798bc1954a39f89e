"""The models that `bench` is asked to measure, on every backend and in every precision."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigen.benchmark.session import Subject


def fields_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What a Subject has of each model and shape that is named, or of the model that ships."""
    from minigen.benchmark.plan import model_of, shape_of

    sources: Sequence[str | None] = args.models or ([] if args.shape else [None])
    found = [model_of(source, args.offline) for source in dict.fromkeys(sources)]
    return found + [shape_of(name) for name in dict.fromkeys(args.shape)]


def on_every_backend(kind: type[Subject], found: Sequence[dict[str, Any]], args: argparse.Namespace) -> list[Subject]:
    """Every model on every backend in every precision."""
    from minigen.backends import choose_backend

    backends = dict.fromkeys(choose_backend(name) for name in args.backend)
    return [
        kind(
            **fields,
            backend=backend,
            device=args.device,
            dtype=dtype,
            quant=None if quant == "none" else quant,
            kv_bits=None if bits == "none" else int(bits),
            threads=threads,
        )
        for fields in found
        for backend in backends
        for dtype in dict.fromkeys(args.dtype)
        for quant in dict.fromkeys(args.quant)
        for bits in dict.fromkeys(args.kv_bits)
        for threads in dict.fromkeys(args.threads)
    ]

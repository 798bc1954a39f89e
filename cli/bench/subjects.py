"""The models that `bench` is asked to measure, on every backend and in every precision."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigen.benchmark.session import Subject


def fields_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A Subject's fields for each model and shape that is named, or for the model that ships."""
    from minigen.benchmark.plan import model_of, shape_of

    sources: Sequence[str | None] = args.models
    if not args.models and not args.shape:
        sources = [None]
    fields = [model_of(source, args.offline) for source in dict.fromkeys(sources)]
    fields += [shape_of(name) for name in dict.fromkeys(args.shape)]
    return fields


def on_every_backend(
    kind: type[Subject], models: Sequence[dict[str, Any]], args: argparse.Namespace
) -> list[Subject]:
    """Every model on every backend in every precision."""
    from minigen.backends import choose_backend

    choices = product(
        models,
        dict.fromkeys(choose_backend(name) for name in args.backend),
        dict.fromkeys(args.dtype),
        dict.fromkeys(args.quant),
        dict.fromkeys(args.kv_bits),
        dict.fromkeys(args.threads),
    )
    subjects = []
    for fields, backend, dtype, quant, kv_bits, threads in choices:
        bits = None if kv_bits == "none" else int(kv_bits)
        subject = kind(
            **fields,
            backend=backend,
            device=args.device,
            dtype=dtype,
            quant=None if quant == "none" else quant,
            kv_bits=bits,
            threads=threads,
        )
        subjects.append(subject)
    return subjects

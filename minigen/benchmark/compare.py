"""Two result files, test by test: is what differs more than the spread of the runs?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.benchmark.statistics import ratio, summarise
from minigen.errors import MinigenError, UsageError
from minigen.reading import parse_object, read_bytes

Key = tuple[str, str, str, str, str]  # model, backend, dtype, quant, test
FASTEST = 1e30  # tokens a second: what is above is no measurement

Rows = Mapping[Key, list[float]]  # tokens a second of each run


@dataclass(frozen=True)
class Compared:
    """One test in both files: medians in tokens a second, and B's speed as a multiple of A's with its interval.

    The interval is of the runs that were made: what changes from one start of the command to the next is not in it.
    """

    model: str
    backend: str
    dtype: str
    quant: str
    test: str
    a_tps: float
    b_tps: float
    ratio: float
    low: float | None
    high: float | None
    verdict: str


def key_of(row: Mapping[str, Any]) -> Key:
    """Files from before there were quantized weights do not name them."""
    quant = str(row.get("quant", ""))
    return str(row["model"]), str(row["backend"]), str(row["dtype"]), quant, str(row["test"])


def read_results(path: Path) -> tuple[dict[str, Any], Rows]:
    """The machine and the rows of a file that `bench -o json` wrote. Raises MinigenError for any other."""
    try:
        found = parse_object(read_bytes(path, pipes=True))
        rows = {key_of(row): [float(x) for x in row["samples_tps"]] for row in found["results"]}
        machine = dict(found["machine"])
        dict(machine.get("versions", {}))
    except OSError as error:
        raise MinigenError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        raise MinigenError(
            f"{path} holds no results of `minigen bench -o json`: write it so"
        ) from None
    if not rows or not all(
        samples and 0 < min(samples) <= max(samples) < FASTEST for samples in rows.values()
    ):
        raise MinigenError(f"{path} has a test without runs, or none at all: measure it again")
    return machine, rows


def compare(a: Rows, b: Rows) -> tuple[list[Compared], list[str]]:
    """Every test that both have, in the order of A, and the names of those that only one has.

    Raises UsageError where they have none in common.
    """
    compared = []
    for key in a:
        if key in b:
            found = ratio(a[key], b[key])
            medians = summarise(a[key]).median, summarise(b[key]).median
            compared.append(
                Compared(*key, *medians, found.ratio, found.low, found.high, found.verdict)
            )
    if not compared:
        raise UsageError(
            "the two files have no test in common: compare runs of the same models and tests"
        )
    pairs = (("A", a, b), ("B", b, a))
    alone = [
        f"only in {name}: {', '.join(filter(None, key))}"
        for name, own, other in pairs
        for key in own
        if key not in other
    ]
    return compared, alone


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What of the machines and versions is not the same, in words."""
    flat = [{**machine, **machine.get("versions", {})} for machine in (a, b)]
    names = dict.fromkeys(name for machine in flat for name in machine)
    ignored = ("versions", "load_start", "load_end")
    return [
        f"{name}: {flat[0].get(name)} in A, {flat[1].get(name)} in B"
        for name in names
        if name not in ignored and flat[0].get(name) != flat[1].get(name)
    ]

"""Compares two result files, test by test: are differences larger than the spread of the runs?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.benchmark.statistics import ratio, summarize
from minigen.errors import MinigenError, UsageError
from minigen.reading import parse_object, read_bytes

Key = tuple[str, str, str, str, str]  # model, backend, dtype, quant, test
FASTEST = 1e30  # tokens per second of a valid measurement, at most

Rows = Mapping[Key, list[float]]  # tokens per second of each run


@dataclass(frozen=True)
class Compared:
    """One test in both files: medians in tokens per second, and the ratio of B to A.

    The interval of the ratio reflects the spread of the runs, but not what changes from one start
    of the command to the next.
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
    """The key of a row; rows of older versions have no quantization."""
    quant = str(row.get("quant", ""))
    return str(row["model"]), str(row["backend"]), str(row["dtype"]), quant, str(row["test"])


def read_results(path: Path) -> tuple[dict[str, Any], Rows]:
    """(machine, rows) of a file that `bench -o json` wrote. Raises MinigenError for other files."""
    rows: dict[Key, list[float]] = {}
    try:
        content = parse_object(read_bytes(path, pipes=True))
        for row in content["results"]:
            rows[key_of(row)] = [float(sample) for sample in row["samples_tps"]]
        machine = dict(content["machine"])
        dict(machine.get("versions", {}))
    except OSError as error:
        raise MinigenError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        raise MinigenError(
            f"{path} has no results: write it with `minigen bench -o json`"
        ) from None
    valid = len(rows) > 0
    for samples in rows.values():
        valid &= bool(samples) and 0 < min(samples) <= max(samples) < FASTEST
    if not valid:
        raise MinigenError(f"{path} has no tests, or a test without runs: measure it again")
    return machine, rows


def compare(a: Rows, b: Rows) -> tuple[list[Compared], list[str]]:
    """(the tests of both files in the order of A, lines about tests of only one file).

    Raises UsageError if they have no test in common.
    """
    compared: list[Compared] = []
    for key, a_samples in a.items():
        if key not in b:
            continue
        b_to_a = ratio(a_samples, b[key])
        compared.append(
            Compared(
                *key,
                a_tps=summarize(a_samples).median,
                b_tps=summarize(b[key]).median,
                ratio=b_to_a.ratio,
                low=b_to_a.low,
                high=b_to_a.high,
                verdict=b_to_a.verdict,
            )
        )
    if not compared:
        raise UsageError(
            "the two files have no test in common: compare runs of the same models and tests"
        )
    return compared, [*only_in("A", a, b), *only_in("B", b, a)]


def only_in(name: str, rows: Rows, other: Rows) -> list[str]:
    """A line for each test that the other file does not have."""
    lines: list[str] = []
    for key in rows:
        if key not in other:
            lines.append(f"only in {name}: {', '.join(part for part in key if part)}")
    return lines


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """A line for each difference between the machines or their versions."""
    a_facts = {**a, **a.get("versions", {})}
    b_facts = {**b, **b.get("versions", {})}
    lines: list[str] = []
    for name in dict.fromkeys([*a_facts, *b_facts]):
        if name in ("versions", "load_start", "load_end"):
            continue
        if a_facts.get(name) != b_facts.get(name):
            lines.append(f"{name}: {a_facts.get(name)} in A, {b_facts.get(name)} in B")
    return lines

"""Two files: what is joined, what differs, and what is said of files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minigen.benchmark.compare import compare, differences, read_results
from minigen.errors import MinigenError, UsageError

FAST, SLOW, NOISY = (
    [110.0, 111, 109, 110, 112],
    [100.0, 101, 99, 100, 102],
    [60.0, 150, 90, 130, 80],
)


def row(test: str, samples: list[float], **changes: str) -> dict[str, Any]:
    names = {"model": "m", "backend": "torch", "dtype": "float32"} | changes
    return {**names, "test": test, "samples_tps": samples, "median_tps": 0}


def write(path: Path, rows: list[dict[str, Any]], **machine: Any) -> Path:
    path.write_text(
        json.dumps({"machine": {"cpu": "x", "versions": {"torch": "1"}} | machine, "results": rows})
    )
    return path


def test_what_both_have(tmp_path: Path) -> None:
    rows = [
        row("pp8", SLOW),
        row("tg8", FAST),
        row("tg9", SLOW),
        row("tg8", SLOW, dtype="bfloat16"),
        row("a", FAST),
    ]
    other = [row("tg9", NOISY), row("tg8", SLOW), row("pp8", FAST), row("tg8", SLOW, backend="mlx")]
    a, b = (
        read_results(write(tmp_path / name, found))[1]
        for name, found in (("a", rows), ("b", [*other, row("a", FAST[:1])]))
    )
    found, alone = compare(a, b)
    assert [(c.test, c.verdict) for c in found] == [
        ("pp8", "faster"), ("tg8", "slower"), ("tg9", "no difference shown"), ("a", "too few runs"),
    ]  # fmt: skip
    assert alone == ["only in A: m, torch, bfloat16, tg8", "only in B: m, mlx, float32, tg8"]
    assert (found[0].a_tps, found[0].b_tps) == (100, 110)
    assert found[0].low is not None
    assert found[0].low < found[0].ratio < 1.1021
    assert found[0].ratio * found[1].ratio == pytest.approx(1)
    assert compare(a, b) == (found, alone)  # the same each time


def test_quantized_weights_are_other_models(tmp_path: Path) -> None:
    old, new = [row("tg8", SLOW)], [row("tg8", SLOW, quant=""), row("tg8", FAST, quant="q4")]
    a, b = (
        read_results(write(tmp_path / name, found))[1] for name, found in (("a", old), ("b", new))
    )
    found, alone = compare(a, b)
    assert [(c.quant, c.ratio) for c in found] == [("", 1.0)]
    assert alone == ["only in B: m, torch, float32, q4, tg8"]


def test_nothing_in_common(tmp_path: Path) -> None:
    a, b = ({("m", "torch", "float32", "", test): SLOW} for test in ("pp8", "tg8"))
    with pytest.raises(
        UsageError, match=r"^the two files have no test in common: compare runs of the same models"
    ):
        compare(a, b)


def test_machines_differ(tmp_path: Path) -> None:
    a = read_results(write(tmp_path / "a", [row("a", FAST)], load_start=1.0))[0]
    b = read_results(
        write(tmp_path / "b", [row("a", FAST)], load_start=2.0, versions={"torch": "2", "mlx": "3"})
    )[0]
    assert differences(a, a) == []
    assert differences(a, b) == ["torch: 1 in A, 2 in B", "mlx: None in A, 3 in B"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"machine": {}, "results": [{"test": "tg8"}]}',
        '{"machine": 1, "results": []}',
        "\x00",
    ],
)
def test_other_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(
        MinigenError, match=r"f has no results: write it with `minigen bench -o json`$"
    ):
        read_results(tmp_path / "f")


def test_files_without_runs(tmp_path: Path) -> None:
    for rows in ([], [row("tg8", [])], [row("tg8", [1.0, 0.0])]):
        with pytest.raises(
            MinigenError, match=r"has no tests, or a test without runs: measure it again$"
        ):
            read_results(write(tmp_path / "f", rows))
    with pytest.raises(MinigenError, match=r"^cannot read .*/g: No such file or directory$"):
        read_results(tmp_path / "g")

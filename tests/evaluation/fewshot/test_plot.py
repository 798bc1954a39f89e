"""The picture: its size, that it is the same each time, and what is said where it cannot be made."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from minigen.errors import MinigenError, UsageError
from minigen.evaluation.fewshot.plot import plot, x_of
from minigen.evaluation.fewshot.result import FileResult, ItemResult, RunResult


def result(*accuracies: float, seeds: int = 1, answer: bool = True) -> FileResult:
    """Ten items a run, of which so many are right; each further seed gets one more right."""

    def item(i: int, right: bool) -> ItemResult:
        return ItemResult(
            i, "q", "x", "x", float(right) if answer else None, choice_logprobs=(-1.0, -2.0)
        )

    runs = [
        RunResult(2**number, seed, tuple(item(i, i < 10 * accuracy + seed) for i in range(10)))
        for number, accuracy in enumerate(accuracies)
        for seed in range(seeds)
    ]
    return FileResult(Path("t.prompt.toml"), "models/tiny", tuple(runs), 1, 1, 1.0)


def size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.fixture
def png(tmp_path: Path) -> Path:
    pytest.importorskip("matplotlib")
    return tmp_path / "plot.png"


def test_the_same_results_give_the_same_bytes(png: Path) -> None:
    import matplotlib

    plot([result(0.2, 0.4, 0.6, seeds=3)], png, ["t"])
    first = png.read_bytes()
    assert size(png) == (960, 630)
    assert b"Software" not in first
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False}):  # a user's own settings
        plot([result(0.2, 0.4, 0.6, seeds=3)], png, ["t"])
        assert matplotlib.rcParams["font.size"] == 20
    assert png.read_bytes() == first
    plot([result(0.2, 0.4, 0.7, seeds=3)], png, ["t"])
    assert png.read_bytes() != first
    assert "matplotlib.pyplot" not in sys.modules  # no window, no global figure


def test_what_is_awkward_to_draw(png: Path) -> None:
    plot([result(0.5)], png, ["one point"])
    plot([result(1.0, seeds=3)], png, ["one point, several seeds"])
    names = ["_hidden", "$x", "日本", "a/very/long/path/" * 8, *"bcdefg"]
    plot([result(0.1, 0.5), *[result(0.1 * i, 0.3, seeds=2) for i in range(9)]], png, names, "f1")
    width, height = size(png)
    assert width == 960
    assert height > 630  # a longer legend makes the picture higher, not the plot lower


def test_files_without_a_scored_item_are_left_out(png: Path) -> None:
    plot([result(0.5, answer=False), result(0.5)], png, ["a", "b"])
    with pytest.raises(UsageError, match=r"^there is nothing to plot: no item has an answer$"):
        plot([result(0.5, answer=False)], png, ["a"])


def test_where_it_cannot_be_made(png: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        MinigenError, match=r"^cannot write .*nowhere/p\.png: No such file or directory$"
    ):
        plot([result(0.5)], png.parent / "nowhere" / "p.png", ["a"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = r'^a plot needs matplotlib, which is not installed: pip install "minigen\[plot\]"$'
    with pytest.raises(MinigenError, match=message):
        plot([result(0.5)], png, ["a"])


def test_places_of_shots() -> None:
    assert [x_of(n) for n in (0, 1, 3, 7)] == [0, 1, 2, 3]

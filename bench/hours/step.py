"""One look at a device: a function that says what it saw, or raises for what did not hold."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TEXT = ROOT / "README.md"  # to train on
SHIPPED = ROOT / "weights" / "stories-3m"
# `minigen` on a device that is not there.
SIMULATED = (
    "import sys; from tests.fake_platform import pretend; pretend(sys.argv.pop(1)); "
    "from minigen.cli.main import main; sys.exit(main(sys.argv[1:]))"
)


class NotHereError(Exception):
    """What cannot be looked at on this machine, and why."""


@dataclass(frozen=True)
class Place:
    """Where a step runs: `kind` is "cuda" or "mac", `folder` is its own, and empty."""

    kind: str
    simulated: bool
    folder: Path

    @property
    def backend(self) -> str:
        return "torch" if self.kind == "cuda" else "mlx"

    @property
    def device(self) -> str:
        """The device under test. A GPU of CUDA that is not there is the CPU, with a GPU's steps."""
        if self.kind == "mac":
            return "gpu"
        return "cpu" if self.simulated else "cuda"

    def size(self, real: int, simulated: int) -> int:
        return simulated if self.simulated else real

    @property
    def where(self) -> tuple[str, ...]:
        """The flags that name the device under test."""
        return "--backend", self.backend, "--device", self.device

    def minigen(self, *words: object, **environment: str) -> str:
        """What a command writes to its output; raises AssertionError where it fails."""
        return self.run([*self.program(), *map(str, words)], **environment)

    def program(self) -> list[str]:
        """The words that start `minigen` here."""
        begin = ["-c", SIMULATED, self.kind] if self.simulated else ["-m", "minigen"]
        return [sys.executable, *begin]

    def run(self, command: list[str], **environment: str) -> str:
        told = os.environ | environment
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=told)
        said = (done.stderr.strip() or done.stdout.strip()).split("\n")
        assert done.returncode == 0, f"{' '.join(command[-6:])}: {said[-1]}"
        return done.stdout

    def pytest(self, *words: str, **environment: str) -> str:
        """The last line of a run of tests, which passes."""
        plugin = ["-p", "tests.fake_platform"] if self.simulated and self.kind == "mac" else []
        command = [sys.executable, "-m", "pytest", "-q", "-x", *plugin, *words]
        said = self.run(command, **environment).strip().split("\n")
        if "passed" not in said[-1]:
            raise NotHereError(said[-2])  # why they were skipped
        return said[-1]

    def text(self, *words: object, **environment: str) -> str:
        """What the model that ships writes greedily in float32, after a fixed beginning."""
        number = self.size(400, 24)
        settings = ("--temp", 0, "-n", number, "--ignore-eos", "--dtype", "float32")
        return self.minigen("generate", "-p", "Once upon a time", *settings, *words, **environment)

    def bench(self, *words: object) -> str:
        """The lines of `minigen bench` in bfloat16, in short."""
        device = "cpu" if self.simulated else self.device  # its processes know nothing of a simulation
        where = ("--backend", self.backend, "--device", device, "--dtype", "bfloat16")
        table = self.minigen("bench", *words, "-p", 0, *where, "-o", "csv")
        rows = list(csv.DictReader(table.splitlines()))
        return "; ".join(
            f"{row['test']} {row['quant'] or row['dtype']} {float(row['median_tps']):,.0f}" for row in rows
        )

    def train(self, name: str, *words: object) -> Path:
        """A small run on the device under test; returns its folder."""
        out = self.folder / name
        self.minigen("train", TEXT, *self.recipe(), *self.where, *words, "--out", out)
        return out

    def recipe(self) -> tuple[object, ...]:
        steps = self.size(200, 6)
        width, context = self.size(64, 16), self.size(64, 16)
        sizes = ("--layers", 2, "--width", width, "--heads", 2, "--context", context, "--batch", 4)
        times = ("--steps", steps, "--warmup", 2, "--eval-every", steps // 2, "--save-every", steps // 2)
        return (*sizes, *times, "--log-every", 1, "--tokenizer", "char", "--dropout", 0.1)

    def train_halves(self, name: str, *words: object) -> Path:
        """The same run, stopped in the middle and gone on with."""
        out = self.folder / name
        command = [*self.program(), "train", str(TEXT), *map(str, (*self.recipe(), *self.where, *words))]
        log = out / "log.jsonl"
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([*command, "--out", str(out)], cwd=ROOT, **silent) as process:
            while process.poll() is None and steps_in(log) < self.size(200, 6) // 3:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
        assert process.returncode == 130, f"a run that is stopped ends with {process.returncode}"
        self.minigen("train", "--resume", out)
        return out


def steps_in(log: Path) -> int:
    """How many steps a run has written down."""
    return len(re.findall(r'"kind": ?"step"', log.read_text())) if log.exists() else 0


class Step(NamedTuple):
    """`look` returns what was seen, raises AssertionError for what does not hold, NotHereError for
    what this machine cannot show; `limit` is in seconds."""

    name: str
    look: Callable[[Place], str]
    limit: int = 60


def same(found: dict[str, object]) -> str:
    """Says that all are the same; raises AssertionError with those that are not."""
    first = next(iter(found))
    apart = [name for name, value in found.items() if value != found[first]]
    assert not apart, f"{', '.join(apart)}: not what {first} gives"
    return f"the same: {', '.join(found)}"


def load(place: Place, device: str | None = None, **settings: Any) -> Any:
    """The model that ships, in this process; on the device under test unless another is named."""
    import minigen

    if place.simulated:
        from tests.fake_platform import pretend

        pretend(place.kind)
    return minigen.load(None, place.backend, device or place.device, "float32", **settings)

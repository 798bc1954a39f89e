"""One check of a device: a function that returns what it saw, or raises an error."""

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
# `minigen` on a simulated device.
SIMULATED = (
    "import sys; from tests.fake_platform import pretend; pretend(sys.argv.pop(1)); "
    "from minigen.cli.main import main; sys.exit(main(sys.argv[1:]))"
)


class NotHereError(Exception):
    """Why something cannot be checked on this machine."""


@dataclass(frozen=True)
class Place:
    """Where a step runs: `kind` is "cuda" or "mac", `folder` an empty folder for the step."""

    kind: str
    simulated: bool
    folder: Path

    @property
    def backend(self) -> str:
        return "torch" if self.kind == "cuda" else "mlx"

    @property
    def device(self) -> str:
        """The device under test. A simulated CUDA GPU is the CPU, with the steps of a GPU."""
        if self.kind == "mac":
            return "gpu"
        if self.simulated:
            return "cpu"
        return "cuda"

    def size(self, real: int, simulated: int) -> int:
        """How much work to do."""
        return simulated if self.simulated else real

    @property
    def where(self) -> tuple[str, ...]:
        """The flags that name the device under test."""
        return "--backend", self.backend, "--device", self.device

    def minigen(self, *words: object, **environment: str) -> str:
        """The output of a command; raises AssertionError if it fails."""
        return self.run([*self.program(), *map(str, words)], **environment)

    def program(self) -> list[str]:
        """The words that start `minigen` here."""
        if self.simulated:
            return [sys.executable, "-c", SIMULATED, self.kind]
        return [sys.executable, "-m", "minigen"]

    def run(self, command: list[str], **environment: str) -> str:
        """The output of a program; raises AssertionError if it fails."""
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment
        )
        lines = (done.stderr.strip() or done.stdout.strip()).split("\n")
        assert done.returncode == 0, f"{' '.join(command[-6:])}: {lines[-1]}"
        return done.stdout

    def pytest(self, *words: str, **environment: str) -> str:
        """The last line of a run of tests that pass."""
        command = [sys.executable, "-m", "pytest", "-q", "-x"]
        if self.simulated and self.kind == "mac":
            command += ["-p", "tests.fake_platform"]
        lines = self.run([*command, *words], **environment).strip().split("\n")
        if "passed" not in lines[-1]:
            raise NotHereError(lines[-2])  # why they were skipped
        return lines[-1]

    def text(self, *words: object, **environment: str) -> str:
        """The greedy continuation of a fixed prompt by the model that ships, in float32."""
        number = self.size(400, 24)
        settings = ("--temp", 0, "-n", number, "--ignore-eos", "--dtype", "float32")
        return self.minigen("generate", "-p", "Once upon a time", *settings, *words, **environment)

    def bench(self, *words: object) -> str:
        """The results of `minigen bench` in bfloat16, in short."""
        device = self.device
        if self.simulated:  # its processes would look for the real device
            device = "cpu"
        where = ("--backend", self.backend, "--device", device, "--dtype", "bfloat16")
        table = self.minigen("bench", *words, "-p", 0, *where, "-o", "csv")
        results = []
        for row in csv.DictReader(table.splitlines()):
            precision = row["quant"] or row["dtype"]
            results.append(f"{row['test']} {precision} {float(row['median_tps']):,.0f}")
        return "; ".join(results)

    def train(self, name: str, *words: object) -> Path:
        """A small run on the device under test; returns its folder."""
        out = self.folder / name
        self.minigen("train", TEXT, *self.recipe(), *self.where, *words, "--out", out)
        return out

    def recipe(self) -> tuple[object, ...]:
        steps = self.size(200, 6)
        width, context = self.size(64, 16), self.size(64, 16)
        sizes = ("--layers", 2, "--width", width, "--heads", 2, "--context", context, "--batch", 4)
        times = (
            "--steps",
            steps,
            "--warmup",
            2,
            "--eval-every",
            steps // 2,
            "--save-every",
            steps // 2,
        )
        return (*sizes, *times, "--log-every", 1, "--tokenizer", "char", "--dropout", 0.1)

    def train_halves(self, name: str, *words: object) -> Path:
        """The same run, stopped in the middle and resumed."""
        out = self.folder / name
        command = [
            *self.program(),
            "train",
            str(TEXT),
            *map(str, (*self.recipe(), *self.where, *words)),
        ]
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
    """How many steps a run has logged."""
    if not log.exists():
        return 0
    return len(re.findall(r'"kind": ?"step"', log.read_text()))


class Step(NamedTuple):
    """A check. `look` returns what was seen; it raises AssertionError if something does not hold,
    and NotHereError if this machine cannot show it. `limit` is in seconds.
    """

    name: str
    look: Callable[[Place], str]
    limit: int = 60


def same(results: dict[str, object]) -> str:
    """Reports that all results are the same; raises AssertionError with those that are not."""
    first, *others = results
    different = [name for name in others if results[name] != results[first]]
    assert not different, f"{', '.join(different)}: not what {first} gives"
    return f"the same: {', '.join(results)}"


def weights_of(runs: dict[str, Path]) -> dict[str, object]:
    """The bytes of the weights that each training run wrote."""
    return {name: (run / "model.safetensors").read_bytes() for name, run in runs.items()}


def load(place: Place, device: str | None = None, **settings: Any) -> Any:
    """The model that ships, in this process; on the device under test unless another is named."""
    import minigen

    if place.simulated:
        from tests.fake_platform import pretend

        pretend(place.kind)
    return minigen.load(None, place.backend, device or place.device, "float32", **settings)

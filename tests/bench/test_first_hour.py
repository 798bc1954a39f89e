"""The first hour on a device: its steps go on whatever one of them does, and a simulation says that it is one."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The program with three steps of its own: one holds, one hangs with a process of its own, one is wrong.
PROGRAM = """
import subprocess, sys
from bench import first_hour
from bench.hours.step import NotHereError, Step

def holds(place):
    return f"{place.device} | {place.size(400, 24)}"

def hangs(place):
    subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])

def lacks(place):
    raise NotHereError("no such thing")

def fails(place):
    assert False, "it is\\nanother text"

steps = (Step("one", holds), Step("two", hangs, 3), Step("three", lacks), Step("four", fails))
first_hour.steps_of = lambda kind: steps
first_hour.__file__ = __file__
sys.exit(first_hour.main())
"""


def test_each_step_has_its_own_process_and_time(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}")
    command = [sys.executable, str(program), "cuda", "--simulated"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith(
        "# The first hour on an NVIDIA GPU: SIMULATED\n\n**Simulated** on "
    )
    rows = [line.split(" | ") for line in done.stdout.split("\n") if line.startswith("| ")][1:]
    assert [(row[1], row[3].removesuffix(" |")) for row in rows] == [
        ("held, simulated", "cpu / 24"),
        ("DID NOT HOLD", "not finished after 3 s"),
        ("not here", "no such thing"),
        ("DID NOT HOLD", "it is another text"),
    ]
    assert done.stdout.endswith("\n1 held, 2 did not hold, 1 could not be checked here.\n")


@pytest.mark.parametrize("kind", ["cuda", "mac"])
def test_the_steps_of_a_device(kind: str) -> None:
    steps = import_module(f"bench.hours.{kind}").STEPS
    names = [step.name for step in steps]
    assert len(set(names)) == len(names) >= 10
    assert all(5 < step.limit <= 200 for step in steps)

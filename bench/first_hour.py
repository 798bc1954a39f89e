"""The first hour on a device that minigen was never tried on, in under ten minutes.

    python bench/first_hour.py cuda|mac [--simulated] [--only TEXT] [> first-hour.md]

Each step runs in a process of its own with a limit of time; what fails does not keep the others from
running. Standard output is Markdown: at its end a table of what held. On a machine without the
device, or with --simulated, the steps are smaller and the device is only claimed: of CUDA the static
steps run on the CPU, uncaptured; of a Mac MLX claims a GPU and computes on the CPU. That shows that
the program runs as far as this machine can show it, and nothing of the device.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TOTAL = 590  # seconds
HELD, DID_NOT, NOT_HERE = "held", "DID NOT HOLD", "not here"
NAMES = {"cuda": "a GPU of NVIDIA", "mac": "a Mac with Apple silicon"}


def steps_of(kind: str) -> Any:
    return import_module(f"bench.hours.{kind}").STEPS


def is_here(kind: str) -> bool:
    """Whether this machine has the device."""
    if kind == "mac":
        return sys.platform == "darwin" and platform.machine() == "arm64"
    if find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def look(kind: str, number: int, simulated: bool) -> int:
    """Does one step in this process: the last two lines of output are the verdict and what was seen."""
    from bench.hours.step import NotHereError, Place

    if simulated:  # the machine may have other work, and no compiler
        os.environ |= {"OMP_NUM_THREADS": "1", "MLX_DISABLE_COMPILE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            verdict, seen = HELD, steps_of(kind)[number].look(Place(kind, simulated, Path(folder)))
        except NotHereError as reason:
            verdict, seen = NOT_HERE, str(reason)
        except AssertionError as error:
            verdict, seen = DID_NOT, str(error)
        except Exception as error:  # a step that is wrong itself must not look like one that held
            traceback.print_exc()
            verdict, seen = DID_NOT, f"{type(error).__name__}: {error}"
    print(verdict, " ".join(seen.split()), sep="\n")
    return 0


def watch(kind: str, number: int, simulated: bool, limit: float) -> tuple[str, str]:
    """Verdict and what was seen of a step in a process of its own, which is ended after `limit` seconds."""
    command = [sys.executable, __file__, kind, "--step", str(number), *(["--simulated"] if simulated else [])]
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "cwd": ROOT, "start_new_session": True}
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    settings["env"] = os.environ | {"TMPDIR": folder.name}  # what an ended process leaves goes with it
    with folder, subprocess.Popen(command, **settings) as process:
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return DID_NOT, f"not done after {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with what it started
    lines = said.rstrip("\n").split("\n")[-2:]  # before them what a step's libraries may have said
    if len(lines) < 2 or lines[0] not in (HELD, DID_NOT, NOT_HERE):
        return DID_NOT, f"the process ended with code {process.returncode}"
    return lines[0], lines[1]


def describe(kind: str, simulated: bool) -> str:
    """The heading, and what this ran on."""
    packages = [f"{name} {version(name)}" for name in ("torch", "mlx", "numba") if find_spec(name)]
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {', '.join(packages)}"
    if not simulated:
        return f"# The first hour on {NAMES[kind]}\n\n{machine}\n"
    return (
        f"# The first hour on {NAMES[kind]}: SIMULATED\n\n"
        f"**Simulated** on {machine}: there was no such device. Steps are smaller, and say nothing of its numbers, "
        "its memory or its speed.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=NAMES)
    parser.add_argument("--simulated", action="store_true", help="as on a machine without the device")
    parser.add_argument("--only", default="", metavar="TEXT", help="only steps with this in their name")
    parser.add_argument("--step", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step is not None:
        return look(args.kind, args.step, args.simulated)
    simulated = args.simulated or not is_here(args.kind)
    print(describe(args.kind, simulated), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the step that runs ends too
    held = "held, simulated" if simulated else HELD
    count: Counter[str] = Counter()
    end = time.monotonic() + TOTAL
    print("| step | | seconds | seen |\n|---|---|---|---|", flush=True)
    for number, step in enumerate(steps_of(args.kind)):
        if args.only not in step.name:
            continue
        began = time.monotonic()
        limit = min(step.limit, end - began)
        verdict, seen = watch(args.kind, number, simulated, limit) if limit > 1 else (DID_NOT, "no time was left")
        count[verdict] += 1
        shown, seconds = held if verdict == HELD else verdict, time.monotonic() - began
        print(f"| {step.name} | {shown} | {seconds:.0f} | {seen.replace('|', '/')} |", flush=True)
    print(f"\n{count[HELD]} held, {count[DID_NOT]} did not hold, {count[NOT_HERE]} could not be looked at here.")
    return 1 if count[DID_NOT] else 0


if __name__ == "__main__":
    sys.exit(main())

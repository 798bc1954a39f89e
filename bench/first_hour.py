"""The first hour on a device that minigen was never tried on, in under ten minutes.

    python bench/first_hour.py cuda|mac [--simulated] [--only TEXT] [> first-hour.md]

Each step runs in a process of its own with a time limit; a failure does not stop the other steps.
Standard output is Markdown that ends with a table of what held. On a machine without the device, or
with --simulated, the steps are smaller and the device is simulated: for CUDA the static steps run
on the CPU, without graphs; for a Mac MLX claims a GPU and computes on the CPU. That tests the program
as far as this machine can, and shows nothing about the device.
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
NAMES = {"cuda": "an NVIDIA GPU", "mac": "a Mac with Apple silicon"}


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
    """Do one step in this process; the last two lines of output are verdict and details."""
    from bench.hours.step import NotHereError, Place

    if simulated:  # the machine may be busy with other work, and have no compiler
        os.environ |= {"OMP_NUM_THREADS": "1", "MLX_DISABLE_COMPILE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            step = steps_of(kind)[number]
            verdict, seen = HELD, step.look(Place(kind, simulated, Path(folder)))
        except NotHereError as reason:
            verdict, seen = NOT_HERE, str(reason)
        except AssertionError as error:
            verdict, seen = DID_NOT, str(error)
        except Exception as error:  # a bug in a step must not look like a step that held
            traceback.print_exc()
            verdict, seen = DID_NOT, f"{type(error).__name__}: {error}"
    print(verdict, " ".join(seen.split()), sep="\n")
    return 0


def watch(kind: str, number: int, simulated: bool, limit: float) -> tuple[str, str]:
    """The verdict and the details of a step, in a process that is killed after `limit` seconds."""
    command = [sys.executable, __file__, kind, "--step", str(number)]
    if simulated:
        command.append("--simulated")
    settings: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "text": True,
        "cwd": ROOT,
        "start_new_session": True,
    }
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    # So that what a killed process leaves behind is removed too.
    settings["env"] = os.environ | {"TMPDIR": folder.name}
    with folder, subprocess.Popen(command, **settings) as process:
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return DID_NOT, f"not finished after {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and the processes that it started
    lines = output.rstrip("\n").split("\n")[-2:]  # a step's libraries may print lines before them
    if len(lines) < 2 or lines[0] not in (HELD, DID_NOT, NOT_HERE):
        return DID_NOT, f"the process ended with code {process.returncode}"
    return lines[0], lines[1]


def describe(kind: str, simulated: bool) -> str:
    """The heading, and what this ran on."""
    packages = []
    for name in ("torch", "mlx", "numba"):
        if find_spec(name):
            packages.append(f"{name} {version(name)}")
    system = f"{platform.system()} {platform.machine()}"
    machine = ", ".join([system, f"Python {platform.python_version()}", *packages])
    if not simulated:
        return f"# The first hour on {NAMES[kind]}\n\n{machine}\n"
    return (
        f"# The first hour on {NAMES[kind]}: SIMULATED\n\n"
        f"**Simulated** on {machine}: there was no such device. The steps are smaller, and show "
        "nothing about its numbers, memory or speed.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=NAMES)
    parser.add_argument(
        "--simulated", action="store_true", help="run as on a machine without the device"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only steps with TEXT in their name"
    )
    parser.add_argument("--step", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step is not None:
        return look(args.kind, args.step, args.simulated)
    simulated = args.simulated or not is_here(args.kind)
    print(describe(args.kind, simulated), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the running step too
    count: Counter[str] = Counter()
    end = time.monotonic() + TOTAL
    print("| step | | seconds | seen |\n|---|---|---|---|", flush=True)
    for number, step in enumerate(steps_of(args.kind)):
        if args.only not in step.name:
            continue
        start = time.monotonic()
        limit = min(step.limit, end - start)
        if limit > 1:
            verdict, seen = watch(args.kind, number, simulated, limit)
        else:
            verdict, seen = DID_NOT, "no time was left"
        seconds = time.monotonic() - start
        count[verdict] += 1
        label = verdict
        if simulated and verdict == HELD:
            label = f"{HELD}, simulated"
        print(f"| {step.name} | {label} | {seconds:.0f} | {seen.replace('|', '/')} |", flush=True)
    print(
        f"\n{count[HELD]} held, {count[DID_NOT]} did not hold, "
        f"{count[NOT_HERE]} could not be checked here."
    )
    return 1 if count[DID_NOT] else 0


if __name__ == "__main__":
    sys.exit(main())

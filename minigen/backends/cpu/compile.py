"""The program that compiles all kernels into numba's cache: see compiling.py for who runs it."""

from __future__ import annotations

import os
import signal
import sys
import traceback

import numpy as np
import torch

from minigen.backends.cpu.compiling import (
    cache_folder,
    count_compiled,
    is_compiled,
    lock_file,
    marker,
)
from minigen.backends.cpu.instructions import as_program
from minigen.backends.torch.cpu import Kernels
from minigen.backends.torch.quantized import quantize
from minigen.errors import first_line
from minigen.files import replacing, take_lock

NICENESS = 10  # whoever started this writes a text meanwhile
LIMIT = 900  # seconds, after which it gives up


def compile_all() -> None:
    """Calls each kernel that Python calls once, on next to nothing: each is compiled for one list of types."""
    kernels = Kernels()
    kernels.compiled = kernels.load()
    kernels.started = True
    x = torch.ones(1, 2, 64)
    heads = torch.ones(1, 1, 2, 64)
    angles = torch.ones(1, 1, 2, 32)
    kernels.linear(x, torch.ones(64, 64), None)
    kernels.norm("RMS_NORM", x, x[0, 0], None, 1e-5)
    kernels.activate("SILU", x)
    kernels.rotate(heads, angles, angles)
    kernels.attention(heads, heads, heads, 1.0, "causal")
    many = torch.ones(
        1, 100, 64, dtype=torch.bfloat16
    )  # so many rows are multiplied by unpacked weights
    kernels.linear(many, quantize(torch.ones(64, 64, dtype=torch.bfloat16), 8, 64), None)

    from minigen.backends.cpu.program import run

    none = np.zeros(0, np.int64)
    run(as_program([]), none, none, none, none, none, threads=1)


def main() -> int:
    """Compiles unless that has been done, or another process is at it. Returns the exit code."""
    os.nice(NICENESS)
    signal.alarm(LIMIT)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with open(lock_file(), "w") as lock:
        if take_lock(lock.fileno(), wait=False) is False:
            return 0
        if not is_compiled():
            try:
                compile_all()
            except (
                Exception
            ) as error:  # numba does not work here: the last line that is written says why
                traceback.print_exc()
                print(first_line(error), file=sys.stderr)
                return 1
            with replacing(marker()) as beside:
                beside.write_text(str(count_compiled()))
    return 0

"""The machine that a run is measured on: its description, its matrix products, its bandwidth."""

from __future__ import annotations

import logging
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import NUMBER_BYTES, Backend
from minigen.backends.cores import usable_cores
from minigen.backends.memory import physical_memory

# By whether the device is a GPU:
SIZES = {False: 1024, True: 8192}  # of the square matrices
ARRAY = {False: 2**28, True: 2**30}  # bytes to read, at least: far more than a cache holds
CACHES = 8  # the array is also at least this many times the largest known cache
WIDTH = 4096  # columns of the matrix that is multiplied with a vector
SECONDS = 0.3  # for each measurement
BUSY = 0.5  # load per core before the start, above which the figures cannot be trusted
CACHE_FILES = "/sys/devices/system/cpu/cpu0/cache"

log = logging.getLogger("minigen")


def measure_peak(ops: Backend, seconds: float = SECONDS) -> float:
    """Floating-point operations per second of a square matrix product in the dtype of `ops`.

    The best of several runs, as many as fit `seconds`.
    """
    size = SIZES[ops.accelerated]
    rng = np.random.default_rng(0)
    x = ops.asarray(rng.standard_normal((size, size), dtype=np.float32))
    weight = ops.asarray(rng.standard_normal((size, size), dtype=np.float32))
    return 2 * size**3 / fastest(lambda: ops.sync(ops.linear(x, weight)), seconds)


def measure_numpy_peak(seconds: float = SECONDS) -> float:
    """As `measure_peak`, of NumPy in float32 on the threads that its BLAS chooses.

    It shows what a CPU can do even if a framework does not reach it.
    """
    size = SIZES[False]
    x = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    return 2 * size**3 / fastest(lambda: x @ x, seconds)


def measure_bandwidth(ops: Backend, seconds: float = SECONDS) -> float:
    """Bytes per second read from memory: the best of several passes over an array that no cache
    holds.

    The backend sums the array and multiplies it with a vector, as a decode step does. On a CPU,
    NumPy reads it too, on as many threads as the framework has, because the limit of the memory
    does not depend on how well a framework uses it.
    """
    values = beyond_caches(ops.accelerated, ops.total_memory())
    x, vector = ops.asarray(values), ops.asarray(values[:1])
    size = values.size * NUMBER_BYTES[ops.dtype]
    rates = [size / fastest(lambda: ops.sync(x.sum()), seconds / 3)]
    rates.append(size / fastest(lambda: ops.sync(ops.linear(vector, x)), seconds / 3))
    if not ops.accelerated:
        rates.append(measure_numpy_bandwidth(values, ops.threads() or usable_cores(), seconds / 3))
    return max(rates)


def beyond_caches(accelerated: bool, memory: int) -> npt.NDArray[np.float32]:
    """Ones (N, WIDTH): more than a cache holds, but at most an eighth of `memory` bytes."""
    at_least = max(ARRAY[accelerated], CACHES * (cache_size() or 0))
    size = min(at_least, memory // 8)
    return np.ones((size // (4 * WIDTH), WIDTH), np.float32)


def measure_numpy_bandwidth(
    values: npt.NDArray[Any], threads: int, seconds: float = SECONDS
) -> float:
    """Bytes per second that NumPy reads from an array on this many threads."""
    parts = np.array_split(values, threads)
    with ThreadPoolExecutor(threads) as pool:
        return values.nbytes / fastest(lambda: list(pool.map(np.max, parts)), seconds)


def fastest(work: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest of several runs: as many as fit `seconds`, and at least three."""
    times: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def describe(packages: Iterable[str], *, quiet: bool = False) -> dict[str, Any]:
    """A description of this machine as JSON, with its load average before anything is measured.

    `packages` are those whose versions are listed, in addition to minigen and NumPy. Logs a warning
    if the machine is busy with other things, unless `quiet`.
    """
    cores = usable_cores()
    if not quiet and load() > BUSY * cores:
        log.warning(
            "the load average is %.2f on %d cores before the start: the machine is busy",
            load(),
            cores,
        )
    return {
        "cpu": cpu_name(),
        "cores": cores,
        "memory_bytes": physical_memory(),
        "gpu": None,
        "cache_bytes": cache_size(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("minigen", "numpy", *sorted(set(packages)))},
        },
        "load_start": load(),
        "load_end": None,
    }


def cpu_name() -> str:
    """The model of the processor, or its architecture if the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    if match is not None:
        return match[1].strip()
    return _sysctl("machdep.cpu.brand_string") or platform.machine()


def cache_size() -> int | None:
    """Bytes of the largest cache of this machine's first core; None if the system does not tell."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = []
    for path in Path(CACHE_FILES).glob("index*/size"):  # Linux
        text = path.read_text().strip()
        if re.fullmatch(r"\d+[KMG]", text):
            sizes.append(int(text[:-1]) * units[text[-1]])
    for name in ("hw.l3cachesize", "hw.l2cachesize"):
        text = _sysctl(name)
        if text.isdigit():
            sizes.append(int(text))
    return max(sizes, default=None)


def _sysctl(name: str) -> str:
    """A value that macOS reports about itself; "" on other systems."""
    on_mac = sys.platform == "darwin"
    if not on_mac:
        return ""
    command = ["sysctl", "-n", name]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def load() -> float:
    """The load average of the last minute: how many processes ran or waited to run."""
    return os.getloadavg()[0]

"""The machine that a run is measured on: what it is called, and how fast it multiplies matrices and reads memory."""

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

SIZES = {False: 1024, True: 8192}  # of the square matrices; by whether it is a GPU
ARRAY = {False: 2**28, True: 2**30}  # bytes that are read, at least: far more than a cache holds
CACHES = 8  # and at least so many times the largest cache that is known
WIDTH = 4096  # columns of the matrix that is read by a product with a vector
SECONDS = 0.3
BUSY = 0.5  # of the cores: with more load than this before the start, the figures are not to be trusted
CACHE_FILES = "/sys/devices/system/cpu/cpu0/cache"

log = logging.getLogger("minigen")


def measure_peak(ops: Backend, seconds: float = SECONDS) -> float:
    """Floating-point operations a second of a square matrix product in the dtype of `ops`: the best of several."""
    size = SIZES[ops.accelerated]
    rng = np.random.default_rng(0)
    x, weight = (ops.asarray(rng.standard_normal((size, size), dtype=np.float32)) for _ in range(2))
    return 2 * size**3 / fastest(lambda: ops.sync(ops.linear(x, weight)), seconds)


def measure_numpy_peak(seconds: float = SECONDS) -> float:
    """The same of NumPy in float32, on the threads that its BLAS takes: what a CPU gives though a framework may not."""
    x = np.random.default_rng(0).standard_normal((SIZES[False],) * 2, dtype=np.float32)
    return 2 * SIZES[False] ** 3 / fastest(lambda: x @ x, seconds)


def measure_bandwidth(ops: Backend, seconds: float = SECONDS) -> float:
    """Bytes a second read from memory, the best of several passes over an array that no cache holds.

    The backend sums it and multiplies it with a vector, as a decode step does. On a CPU NumPy reads one too, on as many
    threads as the framework has: what the memory gives does not depend on how well a framework asks.
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
    """(N, WIDTH) ones, more than a cache holds and no more than an eighth of so many bytes of memory."""
    wanted = min(max(ARRAY[accelerated], CACHES * (cache_size() or 0)), memory // 8)
    return np.ones((wanted // (4 * WIDTH), WIDTH), np.float32)


def measure_numpy_bandwidth(
    values: npt.NDArray[Any], threads: int, seconds: float = SECONDS
) -> float:
    """The same of NumPy, which reads the array on so many threads."""
    parts = np.array_split(values, threads)
    with ThreadPoolExecutor(threads) as pool:
        return values.nbytes / fastest(lambda: list(pool.map(np.max, parts)), seconds)


def fastest(work: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest of several runs: at least three, and as many as fit the time."""
    times: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def describe(packages: Iterable[str], *, quiet: bool = False) -> dict[str, Any]:
    """What is said of a machine beside its figures, with its load average before they are taken.

    Warns where that shows a machine busy with other things, unless `quiet`.
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
    try:
        found = re.search(
            r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        )
    except OSError:
        found = None
    return found[1].strip() if found else _sysctl("machdep.cpu.brand_string") or platform.machine()


def cache_size() -> int | None:
    """Bytes of the largest cache of this machine's first core, or None where the system does not say."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = [path.read_text().strip() for path in Path(CACHE_FILES).glob("index*/size")]
    found = [int(text[:-1]) * units[text[-1]] for text in sizes if re.fullmatch(r"\d+[KMG]", text)]
    found += [
        int(text)
        for name in ("hw.l3cachesize", "hw.l2cachesize")
        if (text := _sysctl(name)).isdigit()
    ]
    return max(found, default=None)


def _sysctl(name: str) -> str:
    """What macOS says of itself; nothing elsewhere."""
    command = ["sysctl", "-n", name]
    return (
        ""
        if sys.platform != "darwin"
        else subprocess.run(command, capture_output=True, text=True).stdout.strip()
    )


def load() -> float:
    """The load average of the last minute: how many processes ran or wanted to."""
    return os.getloadavg()[0]

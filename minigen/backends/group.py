"""Processes that train together, started by torchrun or mlx.launch: their ranks and their sums."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from minigen.backends.base import Array
from minigen.backends.faults import out_of_memory
from minigen.errors import MinigenError, UsageError, first_line

LAUNCHERS = {"torch": "torchrun", "mlx": "mlx.launch"}
# Seconds that a process waits for the others.
GRADIENTS = 30 * 60.0  # for gradients: a process that takes longer hangs
NUMBERS = 24 * 60 * 60.0  # for numbers: the first process may read all the data before it sends any


class Group(Protocol):
    """Every process calls `sum` and `sum_numbers` in the same order and gets the same results.

    They raise MinigenError if another process has ended, or does not answer in time.
    """

    rank: int  # from 0; process 0 writes files and reports for all
    size: int
    backend: str  # the framework of the processes; "" if there is only one

    def place(self, device: str | None) -> str | None:
        """The device that this process should use if the user asked for `device`.

        Raises UsageError for a device that all processes would share, and BackendError if there is
        none for this process.
        """
        ...

    def sum(self, x: Array) -> Array:
        """A float32 array on the device, summed over all processes; torch overwrites `x`."""
        ...

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over all processes in float64, in the order of their ranks.

        Also a barrier: returns when every process has called it.
        """
        ...


class Alone:
    """One process: every sum is the value itself."""

    rank, size, backend = 0, 1, ""

    def place(self, device: str | None) -> str | None:
        return device

    def sum(self, x: Array) -> Array:
        return x

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        return list(numbers)


ALONE = Alone()


def barrier(group: Group) -> None:
    """Waits until every process has called this."""
    group.sum_numbers([0.0])


def launched() -> str:
    """The backend whose launcher started this process as one of several; "" if none did."""
    if "MLX_RANK" in os.environ:
        hosts = os.environ.get("MLX_HOSTFILE")
        if hosts and not Path(hosts).read_text().strip():  # mlx.launch -n 1 makes an empty one
            return ""
        return "mlx"
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    if several and "RANK" in os.environ and "MASTER_ADDR" in os.environ:
        return "torch"
    return ""


def check_backend(group: Group, name: str) -> str:
    """The backend that `name` stands for in a group.

    Raises UsageError if the launcher of another backend started the processes.
    """
    if group.size == 1:
        return name
    if name not in ("auto", group.backend):
        raise UsageError(
            f"backend is {name}, and {LAUNCHERS[group.backend]} started these {group.size} "
            f"processes: start them with {LAUNCHERS.get(name, 'another launcher')}, "
            f"or choose {group.backend}"
        )
    return group.backend


def what_broke(error: Exception) -> str:
    """What failed between processes, without the framework's source location and its advice."""
    line = re.sub(r"^NCCL error in: \S+:\d+, ", "NCCL: ", first_line(error))
    line = line.partition(" (run with NCCL_DEBUG")[0]
    line = re.sub(r"^\[\S+:\d+\] ", "", line)
    return line.split(". ")[0]


def lost(group: Group, error: Exception) -> str:
    """The message of a process whose sum failed."""
    process = f"process {group.rank} of {group.size}"
    return f"{process} lost the connection to another one ({what_broke(error)})"


@contextmanager
def waiting_for_others(group: Group) -> Iterator[None]:
    """Held while a process waits for the others.

    Raises MinigenError if the connection to one is lost; an out-of-memory error passes unchanged.
    """
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise MinigenError(lost(group, error)) from error

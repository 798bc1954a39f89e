"""Processes that train together, as torchrun or mlx.launch starts them: who they are, and what they add up."""

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
GRADIENTS = (
    30 * 60.0
)  # seconds that a process waits for the others' gradients: one that takes longer hangs
NUMBERS = (
    24 * 60 * 60.0
)  # and for their numbers: the first process may read all the data before it sends one


class Group(Protocol):
    """All methods but `place` are called by every process, in the same order, and give the same everywhere.

    They raise MinigenError where another process has ended, or is waited for too long.
    """

    rank: int  # from 0; the first one writes and speaks for all
    size: int
    backend: str  # whose processes they are; any, where there is only one

    def place(self, device: str | None) -> str | None:
        """The device of this process, where `device` is asked for.

        Raises UsageError for one that all would share, BackendError where there is none for this process.
        """
        ...

    def sum(self, x: Array) -> Array:
        """A float32 array of the device, summed over all processes; torch does it in place."""
        ...

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over all processes, in float64 and in their order. Who gets them, all others have come."""
        ...


class Alone:
    """One process: everything is its own sum."""

    rank, size, backend = 0, 1, ""

    def place(self, device: str | None) -> str | None:
        return device

    def sum(self, x: Array) -> Array:
        return x

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        return list(numbers)


ALONE = Alone()


def barrier(group: Group) -> None:
    """Waits until all have come."""
    group.sum_numbers([0.0])


def launched() -> str:
    """The backend whose launcher started this process as one of several; empty where there is none."""
    if "MLX_RANK" in os.environ:
        hosts = os.environ.get("MLX_HOSTFILE")  # mlx.launch -n 1 makes an empty one
        return "" if hosts and not Path(hosts).read_text().strip() else "mlx"
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return "torch" if several and "RANK" in os.environ and "MASTER_ADDR" in os.environ else ""


def check_backend(group: Group, name: str) -> str:
    """The backend that `name` means in a group. Raises UsageError for one whose launcher it was not."""
    if group.size == 1:
        return name
    if name not in ("auto", group.backend):
        raise UsageError(
            f"backend is {name}, and {LAUNCHERS[group.backend]} started these {group.size} processes: start them with "
            f"{LAUNCHERS.get(name, 'another launcher')}, or choose {group.backend}"
        )
    return group.backend


def what_broke(error: Exception) -> str:
    """What went wrong between processes, without the place in the framework's source and its advice."""
    line = first_line(error)
    line = re.sub(r"^NCCL error in: \S+:\d+, ", "NCCL: ", line).partition(" (run with NCCL_DEBUG")[
        0
    ]
    return re.sub(r"^\[\S+:\d+\] ", "", line).split(". ")[0]


def lost(group: Group, error: Exception) -> str:
    """What a process says whose sum failed."""
    return f"process {group.rank} of {group.size} has lost another one ({what_broke(error)})"


@contextmanager
def waiting_for_others(group: Group) -> Iterator[None]:
    """While a process waits for the others. Raises MinigenError where one is lost; out of memory stays what it is."""
    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise MinigenError(lost(group, error)) from error

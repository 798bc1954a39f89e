"""Processes that torchrun started, by torch.distributed: gloo between CPUs and for numbers, NCCL between GPUs."""

from __future__ import annotations

import atexit
import os
import platform
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from minigen.backends.base import Array
from minigen.backends.group import GRADIENTS, NUMBERS, waiting_for_others
from minigen.errors import BackendError, UsageError

# Without it, NCCL ends the whole process from a thread of its own where another process is lost.
BLOCKING_WAIT = "TORCH_NCCL_BLOCKING_WAIT"
PAUSE = 2e-4  # seconds between two looks at whether a sum is done


class TorchGroup:
    backend = "torch"

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available() and dist.is_nccl_available()
        os.environ.setdefault(BLOCKING_WAIT, "1")
        engine = "cpu:gloo,cuda:nccl" if self.cuda else "gloo"
        dist.init_process_group(engine, timeout=timedelta(seconds=GRADIENTS))
        atexit.register(dist.destroy_process_group)  # else its threads are there while Python ends
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.control = dist.new_group(backend="gloo", timeout=timedelta(seconds=NUMBERS))
        seen: list[Any] = [None] * self.size
        dist.all_gather_object(seen, visible_gpus() if self.cuda else [], group=self.control)
        self.gpu = shared_out(seen)[self.rank]

    def place(self, device: str | None) -> str | None:
        if device == "cpu" or (device is None and not self.cuda):
            return "cpu"
        if device not in (None, "cuda"):
            raise UsageError(
                f"device is {device}, which {self.size} processes cannot share: choose cpu, or cuda for a GPU each"
            )
        if self.gpu is None:
            raise BackendError(
                f"process {self.rank} of {self.size} has no GPU of its own: it sees {torch.cuda.device_count()}, which "
                "others have; start as many processes, or choose --device cpu"
            )
        torch.cuda.set_device(self.gpu)
        return f"cuda:{self.gpu}"

    def sum(self, x: Array) -> Array:
        with waiting_for_others(self):
            if x.is_cuda:
                self.sum_on_gpus(x)
            else:
                dist.all_reduce(x)
        return x

    def sum_on_gpus(self, x: Array) -> None:
        """Raises RuntimeError where another process has ended or does not answer.

        The processes first meet by gloo, which says at once that one has ended: NCCL would wait for it. Its own faults
        are told by the wait for a sum, and by nothing that uses the sum.
        """
        dist.all_reduce(torch.zeros(1))
        work = dist.all_reduce(x, async_op=True)
        deadline = time.monotonic() + GRADIENTS
        while not work.is_completed() and time.monotonic() < deadline:
            time.sleep(PAUSE)  # its own wait looks every 10 ms
        work.wait(timedelta(seconds=1))

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        own = torch.tensor(numbers, dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.size)]
        with waiting_for_others(self):
            dist.all_gather(rows, own, group=self.control)
        return [sum(column) for column in zip(*(row.tolist() for row in rows), strict=True)]


def visible_gpus() -> list[str]:
    """The GPUs that this process sees, by names that are the same in every process of any machine."""
    found = []
    for index in range(torch.cuda.device_count()):
        name = getattr(torch.cuda.get_device_properties(index), "uuid", None)
        found.append(str(name or f"{platform.node()} {index}"))
    return found


def shared_out(seen: Sequence[Sequence[str]]) -> list[int | None]:
    """For each process, by the names of the GPUs that it sees: the first that no process before it takes, or none.

    That is its number among the processes of a machine where they all see all, and 0 where each is shown its own.
    """
    taken: set[str] = set()
    found: list[int | None] = []
    for names in seen:
        free = [index for index, name in enumerate(names) if name not in taken]
        found.append(free[0] if free else None)
        taken.update(names[index] for index in free[:1])
    return found

"""Processes that torchrun started: torch.distributed, with gloo for CPUs and NCCL for GPUs."""

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

# Without it, NCCL kills the whole process from its own thread when another process is lost.
BLOCKING_WAIT = "TORCH_NCCL_BLOCKING_WAIT"
PAUSE = 2e-4  # seconds between two checks whether a sum is done


class TorchGroup:
    """`Group` by torch.distributed.

    Raises RuntimeError or ValueError if the processes cannot reach each other.
    """

    backend = "torch"

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available() and dist.is_nccl_available()
        os.environ.setdefault(BLOCKING_WAIT, "1")
        engine = "cpu:gloo,cuda:nccl" if self.cuda else "gloo"
        dist.init_process_group(engine, timeout=timedelta(seconds=GRADIENTS))
        atexit.register(dist.destroy_process_group)  # or its threads outlive the interpreter
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.control = dist.new_group(backend="gloo", timeout=timedelta(seconds=NUMBERS))
        own_gpus = visible_gpus() if self.cuda else []
        seen: list[Any] = [None] * self.size
        dist.all_gather_object(seen, own_gpus, group=self.control)
        self.gpu = shared_out(seen)[self.rank]

    def place(self, device: str | None) -> str | None:
        if device == "cpu" or (device is None and not self.cuda):
            return "cpu"
        if device not in (None, "cuda"):
            raise UsageError(
                f"device is {device}, which {self.size} processes cannot share: "
                "choose cpu, or cuda for a GPU each"
            )
        if self.gpu is None:
            raise BackendError(
                f"process {self.rank} of {self.size} has no GPU of its own: "
                f"it sees {torch.cuda.device_count()}, which others have; "
                "start as many processes, or choose --device cpu"
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
        """Sums `x` in place. Raises RuntimeError if another process has ended or does not answer.

        The processes synchronize by gloo first, which reports at once that one has ended; NCCL
        would wait for it. NCCL's own errors are raised only by waiting for the sum, not by using
        it.
        """
        dist.all_reduce(torch.zeros(1))
        work = dist.all_reduce(x, async_op=True)
        deadline = time.monotonic() + GRADIENTS
        while not work.is_completed() and time.monotonic() < deadline:
            time.sleep(PAUSE)  # `work.wait` checks only every 10 ms
        work.wait(timedelta(seconds=1))

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        own = torch.tensor(numbers, dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.size)]
        with waiting_for_others(self):
            dist.all_gather(rows, own, group=self.control)
        by_process = [row.tolist() for row in rows]
        return [sum(column) for column in zip(*by_process, strict=True)]


def visible_gpus() -> list[str]:
    """The GPUs that this process sees, by names that are the same in every process."""
    names = []
    for index in range(torch.cuda.device_count()):
        name = getattr(torch.cuda.get_device_properties(index), "uuid", None)
        names.append(str(name or f"{platform.node()} {index}"))
    return names


def shared_out(seen: Sequence[Sequence[str]]) -> list[int | None]:
    """Assigns each process the first GPU it sees that no earlier process has; None if none is left.

    `seen` has the names of the GPUs that each process sees. The result is an index into them: the
    rank within a machine if every process sees all GPUs, or 0 if each sees only its own.
    """
    taken: set[str] = set()
    chosen: list[int | None] = []
    for names in seen:
        own = None
        for index, name in enumerate(names):
            if name not in taken:
                own = index
                taken.add(name)
                break
        chosen.append(own)
    return chosen

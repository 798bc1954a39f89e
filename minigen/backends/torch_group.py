"""Processes that torchrun started, by torch.distributed: gloo between CPUs and for numbers, NCCL between GPUs."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from minigen.backends.base import Array
from minigen.backends.faults import out_of_memory
from minigen.backends.group import GRADIENTS, NUMBERS, lost
from minigen.errors import BackendError, MinigenError, UsageError


class TorchGroup:
    backend = "torch"

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available() and dist.is_nccl_available()
        self.local = int(os.environ.get("LOCAL_RANK", "0"))  # of this machine's processes
        engine = "cpu:gloo,cuda:nccl" if self.cuda else "gloo"
        dist.init_process_group(engine, timeout=timedelta(seconds=GRADIENTS))
        atexit.register(dist.destroy_process_group)  # else its threads are there while Python ends
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.control = dist.new_group(backend="gloo", timeout=timedelta(seconds=NUMBERS))

    def place(self, device: str | None) -> str | None:
        if device == "cpu" or (device is None and not self.cuda):
            return "cpu"
        if device not in (None, "cuda"):
            raise UsageError(
                f"device is {device}, which {self.size} processes cannot share: choose cpu, or cuda for a GPU each"
            )
        count = torch.cuda.device_count()
        if self.local >= count:
            raise BackendError(
                f"process {self.rank} of {self.size} has no GPU of its own: this machine has {count}; start as many "
                "processes, or choose --device cpu"
            )
        torch.cuda.set_device(self.local)
        return f"cuda:{self.local}"

    def sum(self, x: Array) -> Array:
        with self.others():
            dist.all_reduce(x)
        return x

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        own = torch.tensor(numbers, dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.size)]
        with self.others():
            dist.all_gather(rows, own, group=self.control)
        return [sum(column) for column in zip(*(row.tolist() for row in rows), strict=True)]

    @contextmanager
    def others(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise MinigenError(lost(self, error)) from error

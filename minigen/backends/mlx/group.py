"""Processes that mlx.launch started, by mlx.distributed: over sockets by default."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from minigen.backends.base import Array
from minigen.backends.group import GRADIENTS, NUMBERS, lost, waiting_for_others

TICK = 1.0  # seconds between two looks at the clock


class MLXGroup:
    backend = "mlx"

    def __init__(self) -> None:
        self.group = mx.distributed.init()
        self.rank, self.size = self.group.rank(), self.group.size()
        self.deadline = float("inf")
        threading.Thread(target=self.watch, daemon=True).start()

    def place(self, device: str | None) -> str | None:
        return device

    def sum(self, x: Array) -> Array:
        with self.others(GRADIENTS):
            total = mx.distributed.all_sum(x, group=self.group)
            mx.eval(total)
        return total

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        # Gathered as whole numbers of 32 bits, which every device of MLX has: not all have float64.
        own = mx.array(np.array(numbers, np.float64).view(np.int32))
        with self.others(NUMBERS):
            rows = mx.distributed.all_gather(own, group=self.group)
            mx.eval(rows)
        found = np.array(rows).view(np.float64).reshape(self.size, -1)
        return [sum(column) for column in found.T.tolist()]

    @contextmanager
    def others(self, seconds: float) -> Iterator[None]:
        self.deadline = time.monotonic() + seconds
        try:
            with waiting_for_others(self):
                yield
        finally:
            self.deadline = float("inf")

    def watch(self) -> None:
        """Ends the process if it waits too long: MLX has no timeout and blocks signals meanwhile."""
        while time.monotonic() < self.deadline:
            time.sleep(TICK)
        print(
            f"minigen: {lost(self, TimeoutError('it does not answer'))}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

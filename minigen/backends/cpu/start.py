"""When numba's kernels start: for which models, after how much work, and never in the middle of a text that would go
on otherwise."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import torch

from minigen.backends.cores import physical_cores
from minigen.backends.cpu.compiling import Compiler
from minigen.backends.cpu.crew import ALONE, Crew
from minigen.backends.switches import read_switch
from minigen.errors import first_line

LARGE = (
    2**21
)  # bytes of a matrix that is worth the time that numba takes to start: smaller models stay in the cache
WORK = 10**11  # operations that torch takes half a second for
COMPILING = 30  # seconds, on a slow machine
VARIABLE = "MINIGEN_KERNELS"
SAID = ("0", "1", "steps")

log = logging.getLogger("minigen")


def wanted() -> str:
    """What the environment says, one of SAID. Raises UsageError for anything else.

    On a Mac, prompts are left to torch: its products go to Accelerate, which has matrix units that
    no compiler uses. Which is faster is not measured (bench/mac.md).
    """
    default = "steps" if sys.platform == "darwin" else "1"
    advice = "1, to steps to leave prompts to torch (the default on a Mac), or to 0 to do without numba's kernels"
    return read_switch(VARIABLE, SAID, default, advice)


class KernelStart:
    """numba's kernels, started for models with a large matrix alone.

    numba takes half a second to start, so the first prompt does not wait for it: it starts with the step after, or
    when torch has done as much work as makes up for it. Kernels that no process has compiled on this machine yet are
    compiled by another process meanwhile.

    A text that began while they were not compiled ends on torch's operations: when the other process is done must not
    decide how a text goes on.
    """

    def __init__(self, threads: int | None = None) -> None:
        """`threads` is how many the user asked for, None for one on each core."""
        self.threads = threads
        said = wanted()
        self.possible = said != "0" and find_spec("numba") is not None
        self.prompts = said == "1"  # whether kernels read prompts too
        self.started = False
        self.work = 0  # operations with large matrices so far
        self.texts: set[object] = set()  # that are being written
        self.torch_texts: set[object] = set()  # of them, those that end on torch's operations

    @contextmanager
    def text(self) -> Iterator[None]:
        """While a text is written."""
        text = object()
        self.texts.add(text)
        try:
            yield
        finally:
            self.texts.discard(text)
            self.torch_texts.discard(text)

    def start(self) -> None:
        """Starts the kernels now. What is not compiled is compiled when it is first called."""
        self.started = self.possible and self.compiled is not None
        self.possible = self.started  # what failed is not tried again

    def prepare(self) -> None:
        """Waits until the kernels are compiled, if a model with large matrices has run; one line says so."""
        if not self.possible or self.started or self.work == 0:
            return
        try:
            if not self.compiler.poll():
                log.warning("compiling kernels for this machine, once: about %d seconds", COMPILING)
                self.compiler.wait()
        except (OSError, RuntimeError) as error:
            self.give_up(error)

    def start_if_compiled(self) -> None:
        """Starts the kernels, unless that would change how a text goes on; has them compiled where they are not."""
        if self.torch_texts and self.torch_texts == self.texts:
            return  # there is nothing to decide before one of them ends
        try:
            ready = self.compiler.poll()
            if not ready and self.compiler.start():
                log.warning(
                    "kernels are compiled for this machine in the background, once, which takes about %d seconds: "
                    "what is written until then is written without them, at half the speed",
                    COMPILING,
                )
        except (OSError, RuntimeError) as error:
            self.give_up(error)
            return
        if ready and not self.torch_texts:
            self.start()
        else:
            self.torch_texts |= self.texts

    def give_up(self, error: Exception) -> None:
        reason = first_line(error)
        log.warning(
            "numba does not work here (%s): decoding goes by torch alone, at half the speed", reason
        )
        self.possible = False

    @cached_property
    def compiler(self) -> Compiler:
        return Compiler()

    @cached_property
    def compiled(self) -> Any:
        """The package of the kernels; None, with a warning, where numba is installed and does not work here."""
        try:
            return self.load()
        except (
            Exception
        ) as error:  # no folder to keep what it compiles in, another NumPy than it wants
            self.give_up(error)
            return None

    def load(self) -> Any:
        import numba

        from minigen.backends import cpu
        from minigen.backends.cpu import attention, linear, small  # noqa: F401  (found in `cpu` below)

        given = torch.get_num_threads()
        most = min(self.threads or min(given, physical_cores()), numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(most)  # starts its threads, or fails where their library is missing
        torch.set_num_threads(
            given
        )  # where both use one OpenMP library, numba's start has set another
        guard = ALONE if numba.threading_layer() == "workqueue" else None
        self.crew = Crew(most, numba.set_num_threads, guard=guard)
        return cpu

    def count(self, operations: int) -> None:
        """So much work with a large matrix is to be done: the kernels may start now."""
        if not self.possible or self.started:
            return
        self.work += operations
        if self.work >= WORK or not self.compiler.ready:
            self.start_if_compiled()

    def begin_step(self, state: Any) -> None:
        """A pass of a text begins: after its prompt, a model with large matrices has its kernels started."""
        if self.work and self.possible and not self.started and state.length > 0:
            self.start_if_compiled()

"""How many threads the kernels of a CPU use: as many as they may, and fewer while other programs keep the cores busy.

A pass is shared among the threads, and each operation waits for the last of them. On a machine with other work, that
last thread is often not running at all, and one thread alone is faster than two. Each number that a kernel computes
is computed by one thread in one order, so how many threads there are never changes a result.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from statistics import median

SAMPLES = 5  # passes that are looked at together: one that was held up decides nothing
SLOW = 2.0  # times as long as the best one: the pass was held up
HELD_UP = (
    0.5  # of a pass during which the calling thread was running; less, and others had the core
)
BETTER = 0.8  # of the time, which another number of threads must take at most to be kept
FIRST_WAIT, LONGEST_WAIT = (
    0.5,
    16.0,
)  # seconds until another number is tried again; doubled when that was no better
GROWTH = 1.001  # of the best time for each pass: passes take longer as a text grows
KEYS = 256  # kinds of passes that are remembered

log = logging.getLogger("minigen")
ALONE = threading.Lock()  # for a library that ends the process where two threads of Python call it
told = threading.local()  # the number that the library was told of last, by each thread of Python


@dataclass
class Samples:
    """Passes with one number of threads: their time over the best of their kind, and the share that was computing."""

    slowness: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)

    def add(self, slowness: float, share: float) -> None:
        self.slowness = [*self.slowness[1 - SAMPLES :], slowness]
        self.share = [*self.share[1 - SAMPLES :], share]

    @property
    def whole(self) -> bool:
        return len(self.slowness) == SAMPLES

    @property
    def held_up(self) -> bool:
        return median(self.slowness) > SLOW or median(self.share) < HELD_UP


class Crew:
    """The threads of the kernels of one model: `size` of at most `most`, as the passes so far suggest."""

    def __init__(
        self,
        most: int,
        set_threads: Callable[[int], object] = lambda threads: None,
        clock: Callable[[], float] = time.perf_counter,
        guard: AbstractContextManager[object] | None = None,
    ) -> None:
        """`set_threads` tells the library of the kernels, for the thread that calls it, how many to use.

        `guard` is held while a kernel runs, without one they may run at the same time.
        """
        self.most, self.set_threads, self.clock = most, set_threads, clock
        self.guard = guard or nullcontext()
        self.kept = most  # the number that is used between trials
        self.tried: int | None = None  # another number that is being tried now
        self.refused: int | None = None  # the one that was tried last, and was no better
        self.now, self.trial = Samples(), Samples()
        self.best: dict[
            Hashable, float
        ] = {}  # seconds of the fastest pass of each kind with all threads
        self.wait, self.next_trial = FIRST_WAIT, 0.0
        self.said = False

    @property
    def size(self) -> int:
        return self.kept if self.tried is None else self.tried

    def run(self, key: Hashable, function: Callable[[int], None]) -> None:
        """Calls `function` with a number of threads, and learns from the time that it takes.

        Calls with the same key do about the same work.
        """
        size = self.size
        if getattr(told, "size", None) != size:
            self.set_threads(size)
            told.size = size
        if self.most == 1:
            self.run_alone(function)
            return
        with self.guard:
            began, computing = self.clock(), time.thread_time()
            function(size)
            seconds = self.clock() - began
            self.learn(key, seconds, time.thread_time() - computing)

    def run_alone(self, function: Callable[[int], None]) -> None:
        """Calls `function` for one thread: there is too little to do for several."""
        with self.guard:
            function(1)

    def learn(self, key: Hashable, seconds: float, computing: float) -> None:
        """A pass took `seconds`, of which the calling thread was running for `computing`."""
        best = min(seconds, self.best.get(key, seconds) * GROWTH)
        if self.size == self.most or key not in self.best:
            self.remember(key, best)
        samples = self.now if self.tried is None else self.trial
        samples.add(seconds / self.best[key], computing / max(seconds, 1e-9))
        if samples.whole:
            self.decide()

    def remember(self, key: Hashable, best: float) -> None:
        if key not in self.best and len(self.best) >= KEYS:
            self.best.pop(next(iter(self.best)))  # the oldest kind
        self.best[key] = best

    def decide(self) -> None:
        """Ends a trial that has all its passes, or begins one where it is time."""
        if self.tried is not None:
            self.end_trial(self.tried)
        elif self.clock() >= self.next_trial:
            self.begin_trial()

    def begin_trial(self) -> None:
        """Tries fewer threads where passes are held up, more where there are more; in turn where both may help."""
        sizes = []
        if self.kept > 1 and self.now.held_up:
            sizes.append(self.kept // 2)
        if self.kept < self.most:
            sizes.append(min(2 * self.kept, self.most))
        others = [size for size in sizes if size != self.refused]
        if sizes:
            self.tried, self.trial = (others or sizes)[0], Samples()

    def end_trial(self, size: int) -> None:
        better = median(self.trial.slowness) < BETTER * median(self.now.slowness)
        if better:
            self.kept, self.now = size, self.trial
            self.refused, self.wait = None, FIRST_WAIT
            self.say()
        else:
            self.now = Samples()  # those from before the trial are old by now
            self.refused, self.wait = size, min(2 * self.wait, LONGEST_WAIT)
        self.tried, self.next_trial = None, self.clock() + self.wait

    def say(self) -> None:
        if self.kept < self.most and not self.said:
            self.said = True
            log.warning(
                "the machine is busy: going on with %d of %d threads, more are tried again later "
                "(--threads N sets their number)",
                self.kept,
                self.most,
            )

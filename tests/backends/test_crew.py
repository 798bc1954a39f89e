"""How many threads the kernels use on a machine that others use too, played through on a made-up machine."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from minigen.backends.cpu.crew import FIRST_WAIT, LONGEST_WAIT, SAMPLES, SLOW, Crew

WORK = 0.01  # seconds of one thread alone, in a pass


class Machine:
    """`cores` cores, on which `others` busy programs run beside the crew.

    A pass with more threads than there are free cores waits for threads that do not run, and takes longer than one
    thread alone, as was seen on real machines.
    """

    def __init__(self, cores: int, others: int = 0) -> None:
        self.cores, self.others, self.now = cores, others, 0.0
        self.crew = Crew(cores, clock=lambda: self.now)
        self.sizes: list[int] = []

    def seconds(self, size: int) -> float:
        free = max(self.cores - self.others, 1)
        alone = WORK * max(1.0, (self.others + 1) / self.cores)
        return WORK / size if size <= free else alone * (1 + size - free)

    def passes(self, count: int) -> None:
        for _ in range(count):
            size = self.crew.size
            seconds = self.seconds(size)
            self.now += seconds
            self.sizes.append(size)
            self.crew.learn("pass", seconds, WORK / size * 0.95)


def test_a_quiet_machine_keeps_all_threads() -> None:
    machine = Machine(cores=4)
    machine.passes(1000)
    assert set(machine.sizes) == {4}


@pytest.mark.parametrize("others", [1, 2, 4])
def test_a_busy_machine(others: int, caplog: pytest.LogCaptureFixture) -> None:
    """Two cores that others use from the first pass on, so that there is no good pass to compare with: one thread, but
    for the passes in which two are tried again."""
    machine = Machine(cores=2, others=others)
    machine.passes(2000)
    assert machine.sizes[:SAMPLES] == [2] * SAMPLES
    assert machine.sizes.count(1) > 0.95 * len(machine.sizes)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]  # said once
    assert caplog.messages[0].startswith("the machine is busy: going on with 1 of 2 threads")
    spent = machine.now / (2000 * machine.seconds(1))
    assert spent < 1.1  # of what one thread alone would take


def test_others_come_and_go() -> None:
    machine = Machine(cores=2)
    machine.passes(100)
    machine.others = 2
    machine.passes(3 * SAMPLES)
    assert machine.crew.size == 1
    machine.passes(500)
    machine.others = 0
    until = machine.now + LONGEST_WAIT + 1
    while machine.now < until:
        machine.passes(1)
    machine.passes(100)
    assert set(machine.sizes[-100:]) == {2}


def test_some_of_many_cores_are_busy() -> None:
    """Half of the threads, and not one: what is free is used."""
    machine = Machine(cores=8, others=3)
    machine.passes(3000)
    assert machine.crew.kept == 4
    assert max(machine.sizes[-1000:]) <= 8


def test_one_slow_pass_decides_nothing() -> None:
    crew = Crew(2, clock=lambda: 0.0)
    for i in range(100):
        crew.learn("pass", 10 * WORK if i % SAMPLES == 0 else WORK, WORK)
        assert crew.size == 2


def test_passes_that_grow_are_not_held_up() -> None:
    """A text grows, and its passes with it; passes of another kind have a time of their own."""
    crew = Crew(2, clock=lambda: 0.0)
    for i in range(2000):
        crew.learn("growing", WORK * (1 + i / 2000), WORK * (1 + i / 2000))
        crew.learn("short", WORK / 100, WORK / 100)
        assert crew.size == 2


def test_a_trial_that_was_no_better_waits_longer_each_time() -> None:
    now = 0.0
    crew = Crew(2, clock=lambda: now)
    begun: list[float] = []
    while now < 100:
        slow = 2 * SLOW * WORK if crew.now.slowness else WORK
        seconds = slow if crew.tried is None else 100 * WORK
        before = crew.tried
        crew.learn("pass", seconds, seconds)
        now += seconds
        if before is None and crew.tried is not None:
            begun.append(now)
        crew.best["pass"] = WORK
    waits = [b - a for a, b in pairwise(begun)]
    assert waits[0] > FIRST_WAIT
    assert all(later > earlier for earlier, later in pairwise(waits[:4]))
    assert max(waits) < LONGEST_WAIT + 10


def test_one_thread_is_left_alone() -> None:
    given: list[int] = []
    crew = Crew(1)
    crew.run("pass", given.append)
    assert given == [1]
    assert crew.best == {}


def test_the_library_is_told_when_the_number_changes() -> None:
    told: list[int] = []
    crew = Crew(3, told.append)
    for _ in range(3):
        crew.run("pass", lambda threads: None)
    crew.kept = 1
    crew.run("pass", lambda threads: None)
    assert told in ([3, 1], [1])  # nothing, if the tests before left it at 3

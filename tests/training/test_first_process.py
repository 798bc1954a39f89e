"""What the first process does before the others, without any process of its own."""

from __future__ import annotations

from typing import Any

import pytest

from minigen.errors import SharedError
from minigen.training.run import first_process_first


class Told:
    """A group of which this is one process: notes what it sends, and gets what the others sent."""

    def __init__(self, rank: int, others: float = 0.0) -> None:
        self.rank, self.others = rank, others
        self.sent: list[Any] = []

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        self.sent.append(numbers)
        return [number + self.others for number in numbers]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_block_runs_in_every_process(rank: int) -> None:
    group: Any = Told(rank)
    with first_process_first(group):
        before = list(group.sent)
    assert before == (
        [] if rank == 0 else [[0.0]]
    )  # the others wait before it, the first tells after it
    assert group.sent == [[0.0]]


def test_where_it_fails_in_the_first_the_others_hear_of_it() -> None:
    group: Any = Told(0)
    with pytest.raises(ValueError, match="no room"), first_process_first(group):
        raise ValueError("no room")
    assert group.sent == [[1.0]]


def test_the_others_do_not_run_what_failed_in_the_first() -> None:
    ran, group = False, Told(1, others=1.0)
    with pytest.raises(SharedError, match="the first process failed"), first_process_first(group):  # type: ignore[arg-type]
        ran = True
    assert not ran

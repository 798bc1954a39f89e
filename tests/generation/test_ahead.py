"""The next step asked for before the last one's tokens are read: the same rows as in the plain order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import minigen
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.reader import Reader, Runner
from minigen.generation.rows import Row, Timing

GREEDY = {"temperature": 0}
PROMPTS = [[1, 2, 3], [9] * 11, [4], [1, 2, 3]]
Tiny = Callable[[str], Path]


@pytest.fixture(params=["gpt2", "llama", "lstm", "lfm2"])
def runner(request: pytest.FixtureRequest, tiny: Tiny, backend: str, device: str) -> Runner:
    return minigen.load(tiny(request.param), backend=backend, device=device, dtype="float32").runner


def both(runner: Any, run: Callable[[], Any]) -> Iterator[Any]:
    """What `run` gives in the plain order and with steps ahead."""
    before = runner.ops.asynchronous
    for asynchronous in (False, True):
        runner.ops.asynchronous = asynchronous
        yield run()
    runner.ops.asynchronous = before


class Watched:
    """A Reader that writes down what is asked for, and when it is waited for."""

    ahead = True

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.events: list[str] = []
        self.states: list[Any] = []

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> Any:
        logits, state = self.runner.prefill(prompts, capacity)
        self.states.append(state)
        return logits, state

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Any:
        self.events.append("step")
        self.states.append(state)
        assert state.capacity is None or state.length < state.capacity
        return self.runner.read(ids, state, at)


def rows_of(
    reader: Reader,
    prompts: Sequence[list[int]],
    stop_ids: Sequence[int] = (),
    end: Any = None,
    **settings: Any,
) -> tuple[list[Any], list[list[int]], Timing]:
    """The rows, who got a token at each step, and the counts; `end(row)` may set its finish."""
    rows, steps, timing = [Row(list(prompt), i) for i, prompt in enumerate(prompts)], [], Timing()
    for live in generate(reader, rows, Options.of(**{**GREEDY, **settings}), stop_ids, timing):
        steps.append([row.sequence for row in live])
        for row in live:
            if end is not None:
                end(row)
    return [(row.ids, row.finish, row.tokens) for row in rows], steps, timing


def test_the_same_rows(runner: Runner) -> None:
    """Stop ids, limits, a caller who ends rows, rows that leave the batch, the end of the context."""
    (free,), _, _ = rows_of(runner, PROMPTS[:1], max_tokens=20)
    stops = [free[0][6]]

    def end(row: Row) -> None:
        if len(row.ids) == 3 + 2 * row.sequence:
            row.finish = "stop"

    edge = [[1] * 60, [2], [3], [4], [5]]
    calls: list[Callable[[], Any]] = [
        lambda: rows_of(runner, PROMPTS, max_tokens=12),
        lambda: rows_of(runner, PROMPTS[:1], max_tokens=1),
        lambda: rows_of(runner, PROMPTS, stops, max_tokens=20),
        lambda: rows_of(runner, PROMPTS, end=end, max_tokens=20),
        lambda: rows_of(runner, PROMPTS[:1], end=end, max_tokens=20),
        lambda: rows_of(
            runner, edge, **({"max_tokens": 70} if runner.architecture.context is None else {})
        ),
        lambda: rows_of(runner, PROMPTS, max_tokens=9, temperature=1.0, seed=3),
    ]
    for call in calls:
        plain, ahead = both(runner, call)
        assert plain[:2] == ahead[:2]
        assert plain[2].decode_tokens == ahead[2].decode_tokens


def test_a_step_is_asked_for_before_the_tokens_are_read(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than is needed where the end comes as a surprise, and none past the limit; the state ends as ever."""
    (free,), _, _ = rows_of(runner, PROMPTS[:1], max_tokens=20)
    token = next(i for i in free[0] if i != free[0][0])
    first = free[0].index(token)
    fetch = runner.ops.fetch
    found = []

    def watch(stop_ids: Sequence[int], **settings: Any) -> Watched:
        watched = Watched(runner)

        def spy(*arrays: Any) -> Any:
            wait = fetch(*arrays)

            def waited() -> Any:
                watched.events.append("read")
                return wait()

            return waited

        with monkeypatch.context() as patch:
            patch.setattr(runner.ops, "fetch", spy)
            rows_of(watched, PROMPTS[:1], stop_ids, **settings)
        return watched

    for stop_ids in ((), (token,)):
        plain, ahead = both(runner, lambda stop_ids=stop_ids: watch(stop_ids, max_tokens=first + 3))
        steps = first if stop_ids else first + 2
        assert plain.events == ["read", *["step", "read"] * steps]
        # The last token that the limit allows is known to be the last; a stop id is not.
        assert ahead.events == [
            *["step", "read"] * steps,
            *(["step", "read"] if stop_ids else ["read"]),
        ]
        found.append((plain.states[-1].length, ahead.states[-1].length))
    if runner.architecture.context is not None:  # a recurrent state goes back to a copy it has
        assert all(a == b for a, b in found)


def test_who_cannot_go_ahead(tiny: Tiny, backend: str, device: str) -> None:
    """Log-probabilities, penalties, guesses, shared texts: the host has the token before it asks for the next."""
    model = minigen.load(tiny("llama"), backend=backend, device=device, dtype="float32")
    ops: Any = model.runner.ops
    asynchronous = ops.asynchronous
    for settings in (
        GREEDY | {"logprobs": 2},
        {"seed": 1, "repetition_penalty": 1.1},
        GREEDY | {"speculate": "lookup"},
        {"beams": 2},
    ):
        plain, ahead = both(
            model.runner,
            lambda settings=settings: model.complete(["hello"], max_tokens=9, **settings),
        )
        assert [(c.ids, c.text, c.finish) for c in plain] == [
            (c.ids, c.text, c.finish) for c in ahead
        ]
    assert ops.asynchronous == asynchronous


def test_nan_is_an_error_in_either_order(
    make_model: Callable[..., Path], backend: str, device: str
) -> None:
    from minigen.errors import MinigenError

    runner = minigen.load(
        make_model("llama"), backend=backend, device=device, dtype="float32"
    ).runner
    weight = runner.params["norm"]["weight"]
    runner.params["norm"]["weight"] = weight * float("nan")

    def run() -> str:
        with pytest.raises(MinigenError) as caught:
            rows_of(runner, PROMPTS, max_tokens=4)
        return str(caught.value)

    plain, ahead = both(runner, run)
    assert plain == ahead
    assert "the model produced NaN as a logit" in plain

"""Speculative decoding gives the tokens that there would be without, whatever is guessed; and the counts are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.backends.base import Array
from minigen.errors import UsageError
from minigen.generation.drafting import DraftLength, DraftModel, PromptLookup
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.reader import Runner
from minigen.generation.rows import Row, Timing
from minigen.generation.shared_text import SharedText
from minigen.generation.speculation import SpeculativeReader
from minigen.model import Model
from minigen.prompt_cache import cached_run, save_prompt
from minigen.sampling import sample

WITH_KERNELS = True  # see conftest.py

Make = Callable[..., Path]
Tiny = Callable[[str], Path]
PROMPT = "abcabcab"
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": GREEDY,
    "greedy with penalties": GREEDY | {"repetition_penalty": 1.4, "frequency_penalty": 0.3},
    "sampled": {"temperature": 1.0, "seed": 3},
    "cuts": {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "seed": 4},
    "history": {"temperature": 0.7, "seed": 5, "presence_penalty": 0.8, "no_repeat_ngram_size": 2},
    "bias": {"temperature": 0.6, "seed": 6, "logit_bias": {98: 3, 99: -5}},
    "logprobs": {"temperature": 0.5, "seed": 7, "logprobs": 2},
}


@pytest.fixture(params=["gpt2", "llama", "lfm2"])
def model(request: pytest.FixtureRequest, tiny: Tiny, backend: str, device: str) -> Model:
    return minigen.load(tiny(request.param), backend=backend, device=device, dtype="float32")


@pytest.fixture
def llama(tiny: Tiny, backend: str, device: str) -> Model:
    return minigen.load(tiny("llama"), backend=backend, device=device, dtype="float32")


class Counting:
    """A Reader that counts the tokens of its passes after the prompt's."""

    ahead = True

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.widths: list[int] = []

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> Any:
        return self.runner.prefill(prompts, capacity)

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Array:
        self.widths.append(len(ids[0]))
        return self.runner.read(ids, state, at)


class Scripted:
    """Knows how the text goes on, and is wrong at each place with some probability."""

    def __init__(self, truth: Sequence[int], wrong: float, seed: int = 0) -> None:
        self.truth, self.wrong, self.rng = truth, wrong, np.random.default_rng(seed)
        self.outcomes: list[tuple[int, int]] = []

    def begin(self, row: Row) -> None:
        self.row = row

    def draft(self, room: int) -> list[int]:
        assert room >= 1
        done = len(self.row.ids)
        right = self.truth[done : done + min(room, int(self.rng.integers(0, 7)))]
        return [(token + int(self.rng.random() < self.wrong)) % 256 for token in right]

    def learn(self, guessed: int, kept: int) -> None:
        self.outcomes.append((guessed, kept))


def plain(
    runner: Runner, prompt: Sequence[int], stop_ids: Sequence[int] = (), **settings: Any
) -> Row:
    row = Row(list(prompt))
    for _ in generate(runner, [row], Options.of(**settings), stop_ids):
        pass
    return row


def scripted(
    runner: Runner,
    prompt: Sequence[int],
    drafter: Any,
    stop_ids: Sequence[int] = (),
    **settings: Any,
) -> tuple[Row, Timing, list[int]]:
    """The row with the guesses of a drafter, its timing, and the tokens of each pass after the prompt's."""
    row, timing, counting = Row(list(prompt)), Timing(), Counting(runner)
    reader = SpeculativeReader(counting, row, drafter, stop_ids, timing)
    for live in generate(reader, [row], Options.of(**settings), stop_ids, timing):
        assert live == [row]
    return row, timing, counting.widths


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_same_tokens_whoever_guesses(
    model: Model, make_model: Make, backend: str, device: str, settings: dict[str, Any]
) -> None:
    (wanted,) = model.complete([PROMPT], max_tokens=24, **settings)
    other = minigen.load(
        make_model("llama", seed=9), backend=backend, device=device, dtype="float32"
    )
    ways: list[dict[str, Any]] = [
        {"speculate": "lookup"},
        {"speculate": "lookup", "draft_tokens": 1},
        {"draft": model},
        {"draft": other, "draft_tokens": 3},
    ]
    for way in ways:
        (found,) = model.complete([PROMPT], max_tokens=24, **settings, **way)
        assert (found.ids, found.text, found.finish) == (wanted.ids, wanted.text, wanted.finish)
        for a, b in zip(found.logprobs, wanted.logprobs, strict=True):
            assert (a.id, [i for i, _ in a.top]) == (b.id, [i for i, _ in b.top])
            assert abs(a.logprob - b.logprob) < 1e-4


@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.6, 1.0])
def test_the_same_tokens_with_right_and_wrong_guesses(llama: Model, wrong: float) -> None:
    for seed in range(2):
        settings = SETTINGS["history"] | {"seed": seed, "max_tokens": 50}
        truth = plain(llama.runner, [1, 2, 3], **settings)
        drafter = Scripted(truth.ids, wrong, seed)
        row, timing, widths = scripted(llama.runner, [1, 2, 3], drafter, **settings)
        assert (row.ids, row.finish) == (truth.ids, truth.finish)
        assert timing.decode_tokens == 49
        assert timing.accepted == 49 - len(widths)
        assert timing.drafted == sum(widths) - len(widths)
        learnt = [sum(column) for column in zip(*drafter.outcomes, strict=True)]
        assert timing.drafted - learnt[0] <= 6  # of the last pass nothing is learnt any more
        assert (timing.accepted == timing.drafted) == (wrong == 0)
        assert (timing.accepted == 0) == (wrong == 1)


def test_a_draft_model_that_is_the_model_is_always_right(model: Model) -> None:
    for name in ("greedy", "cuts", "history"):
        run = model.run([PROMPT], Options.of(max_tokens=40, **SETTINGS[name]), draft=model)
        for _ in run:
            pass
        timing = run.timing
        assert timing.accepted == timing.drafted > 0
        passes = timing.decode_tokens - timing.accepted
        assert passes <= 6  # 3 + 5 + 9 + 11 + 11 tokens


def test_a_text_of_one_token_over_and_over_is_looked_up(llama: Model) -> None:
    run = llama.run(
        [PROMPT], Options.of(max_tokens=40, logit_bias={7: 1e6}, speculate="lookup", **GREEDY)
    )
    for _ in run:
        pass
    assert run.rows[0].ids == [7] * 40
    assert run.timing.accepted == run.timing.drafted
    assert run.timing.decode_tokens - run.timing.accepted <= 8


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_to_the_end_of_the_context(model: Model, wrong: float) -> None:
    for length in range(55, 64):
        prompt = list(range(length))
        truth = plain(model.runner, prompt, **GREEDY)
        assert len(prompt + truth.ids) == 64
        row, _, widths = scripted(model.runner, prompt, Scripted(truth.ids, wrong), **GREEDY)
        assert (row.ids, row.finish) == (truth.ids, "length")
        assert sum(widths) >= len(truth.ids) - 1


def test_a_stop_id_among_the_guesses(llama: Model) -> None:
    free = plain(llama.runner, [1, 2], max_tokens=40, temperature=1.0, seed=2).ids
    for place in range(1, 20):
        stop = free[place]
        truth = plain(llama.runner, [1, 2], [stop], max_tokens=40, temperature=1.0, seed=2)
        row, timing, widths = scripted(
            llama.runner,
            [1, 2],
            Scripted(free, 0.0),
            [stop],
            max_tokens=40,
            temperature=1.0,
            seed=2,
        )
        assert (
            (row.ids, row.finish) == (truth.ids, "stop") == (free[: free.index(stop) + 1], "stop")
        )
        assert (
            timing.drafted == timing.accepted == len(row.ids) - 1 - len(widths)
        )  # a stop id is not worth a guess


def test_stops_limits_and_callers_in_the_middle_of_guesses(llama: Model) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "seed": 8}
    free = llama.complete([PROMPT], max_tokens=30, **settings)[0]
    ends = [{"max_tokens": n} for n in range(1, 12)] + [
        {"stop": [free.text[n : n + 2]]} for n in range(1, 12)
    ]
    for end in ends:
        wanted = llama.complete([PROMPT], **({"max_tokens": 30} | settings | end))
        assert (
            llama.complete([PROMPT], draft=llama, **({"max_tokens": 30} | settings | end)) == wanted
        )
    for count in range(1, 12):
        run = llama.run([PROMPT], Options.of(max_tokens=30, **settings), draft=llama)
        for live in run.steps:
            if len(live[0].ids) == count:
                live[0].finish = "stop"
        assert run.rows[0].ids == free.ids[:count]


def test_tokens_come_one_by_one(llama: Model) -> None:
    settings: dict[str, Any] = {"max_tokens": 30, "temperature": 1.0, "seed": 3}
    assert list(llama.stream(PROMPT, draft=llama, **settings)) == list(
        llama.stream(PROMPT, **settings)
    )
    run = llama.run([PROMPT], Options.of(**settings), draft=llama)
    assert [len(live[0].ids) for live in run.steps] == list(range(1, 31))


def test_ids(llama: Model) -> None:
    wanted = llama.generate_ids([[1, 2]], max_tokens=20, **GREEDY)
    assert llama.generate_ids([[1, 2]], max_tokens=20, draft=llama, **GREEDY) == wanted
    assert llama.generate_ids([[1, 2]], max_tokens=20, speculate="lookup", **GREEDY) == wanted
    assert llama.generate_ids([], speculate="lookup") == []


def test_a_draft_model_with_a_shorter_context_ends_with_it(
    make_model: Make, backend: str, device: str, llama: Model
) -> None:
    short = minigen.load(
        make_model("llama", max_position_embeddings=20), backend=backend, device=device
    )
    wanted = llama.complete([PROMPT], max_tokens=50, **GREEDY)
    run = llama.run([PROMPT], Options.of(max_tokens=50, **GREEDY), draft=short)
    for _ in run:
        pass
    assert run.completions() == wanted
    # The same weights: all are right. Those of up to 20 tokens are read, and one more is guessed after them.
    assert run.timing.accepted == run.timing.drafted
    assert 8 <= run.timing.drafted <= 12
    long = "abc" * 8
    assert llama.complete([long], max_tokens=9, draft=short, **GREEDY) == llama.complete(
        [long], max_tokens=9, **GREEDY
    )


def test_a_recurrent_draft_model_goes_back_right(
    tiny: Tiny, backend: str, device: str, llama: Model
) -> None:
    lstm = minigen.load(tiny("lstm"), backend=backend, device=device, dtype="float32")
    row = Row([5, 6, 7, 8])
    shared = SharedText(lstm.runner)
    drafter = DraftModel(shared, Options.of(seed=1, temperature=1.0, draft_tokens=4))
    drafter.begin(row)
    for token in (9, 10, 11, 12):  # never what it guesses
        row.add(token)
        drafter.length = DraftLength(4)
        guesses = drafter.draft(4)
        logits = lstm.logits([row.tokens])[0, -1]
        assert guesses[0] == sample(logits, row.tokens, 4, drafter.options.sampling)
    settings: dict[str, Any] = {"max_tokens": 40, "temperature": 1.0, "seed": 1}
    assert llama.generate(PROMPT, draft=lstm, **settings) == llama.generate(PROMPT, **settings)


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_past_the_window_of_attention_sinks(llama: Model, wrong: float) -> None:
    runner = replace(llama.runner, architecture=llama.architecture.with_sinks(4))
    for settings in (GREEDY, SETTINGS["cuts"]):
        truth = plain(runner, list(range(50)), max_tokens=80, **settings)
        row, timing, _ = scripted(
            runner, list(range(50)), Scripted(truth.ids, wrong), max_tokens=80, **settings
        )
        assert row.ids == truth.ids
        assert timing.accepted > 20


def test_on_a_cached_prompt(llama: Model, tmp_path: Path) -> None:
    save_prompt(llama, list(PROMPT.encode()), tmp_path / "p.cache")
    settings = Options.of(max_tokens=30, temperature=1.0, seed=1)
    wanted = llama.generate(PROMPT + "xy", max_tokens=30, temperature=1.0, seed=1)
    for options, draft in ((replace(settings, speculate="lookup"), None), (settings, llama)):
        found = cached_run(llama, tmp_path / "p.cache", [PROMPT + "xy"], options, draft)
        for _ in found.run:
            pass
        assert found.run.completions()[0].text == wanted
    assert found.run.timing.accepted == found.run.timing.drafted > 0


def test_what_is_not_for_guesses(
    llama: Model, tiny: Tiny, make_model: Make, backend: str, device: str
) -> None:
    lstm = minigen.load(tiny("lstm"), backend=backend, device=device, dtype="float32")
    small = minigen.load(
        make_model("llama", vocab_size=40), backend=backend, device=device, dtype="float32"
    )
    lookup: dict[str, Any] = {"speculate": "lookup"}
    refused: list[tuple[Callable[[], Any], str]] = [
        (
            lambda: llama.generate("a", speculate="fast"),
            "speculate is 'fast': it must be 'lookup' or None",
        ),
        (
            lambda: llama.generate("a", draft_tokens=0),
            "draft_tokens is 0: it must be a whole number from 1 to 64",
        ),
        (
            lambda: llama.generate(["a", "b"], **lookup),
            "speculation follows one text, not 2: ask for one sample of one",
        ),
        (
            lambda: llama.complete(["a"], num_samples=3, draft=llama),
            "speculation follows one text, not 3",
        ),
        (
            lambda: llama.generate("a", beams=2, **lookup),
            "beam search follows several texts, and speculation only one: drop",
        ),
        (
            lambda: llama.generate("a", draft=llama, **lookup),
            "draft and speculate=lookup both say who guesses: drop one",
        ),
        (
            lambda: llama.generate("a", draft=small),
            "the draft model has 40 token ids and the model 256: take one that",
        ),
        (
            lambda: lstm.generate("a", **lookup),
            "a recurrent model reads a token at a time, so guesses save nothing",
        ),
    ]
    for call, message in refused:
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def same_on(model: Model) -> None:
    kept, prompts = 0, ("Once upon a time", "Q: cat\nA: cats\nQ: dog\nA: dogs\nQ: bird\nA:")
    drawn = {
        "temperature": 0.9,
        "top_k": 40,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.1,
        "seed": 1,
    }
    for prompt in prompts:
        for settings in (GREEDY, {"temperature": 0.8, "top_p": 0.95, "seed": 2}, drawn):
            (wanted,) = model.complete([prompt], max_tokens=32, **settings)
            run = model.run([prompt], Options.of(max_tokens=32, speculate="lookup", **settings))
            for _ in run:
                pass
            assert run.completions() == [wanted]
            kept += run.timing.accepted
    assert kept > 0


def test_the_model_that_ships(backend: str, device: str) -> None:
    """bench/speculation.py compares more of it."""
    same_on(minigen.load(None, backend, device, "float32"))


def test_a_story_model(shared: Path, backend: str, device: str) -> None:
    same_on(minigen.load(shared / "models" / "stories260K", backend, device, "float32"))


# -- who guesses, and how much --
def looked_up(tokens: list[int], room: int = 9) -> list[int]:
    lookup, row = PromptLookup(6), Row(tokens)
    for length in lookup.lengths.values():
        length.number = 6
    lookup.begin(row)
    return lookup.draft(room)


def test_prompt_lookup() -> None:
    assert looked_up([1]) == []
    assert looked_up([1, 2, 3]) == []
    assert looked_up([1, 2, 3, 9, 8, 7, 5, 1, 2, 3]) == [9, 8, 7, 5, 1, 2]
    assert looked_up([1, 2, 3, 9, 8, 7, 5, 1, 2, 3], room=2) == [9, 8]
    assert (
        looked_up([1, 2, 3, 9, 4, 3, 5, 2, 3, 6, 1, 2, 3])[0] == 9
    )  # the longest match, not the newest
    assert looked_up([4, 3, 7, 3, 8, 3])[0] == 8  # the newest of equal ones
    assert looked_up([5, 1, 2, 1, 2]) == [1, 2, 1, 2, 1, 2]  # what repeats goes on repeating
    lookup, row = PromptLookup(6), Row([1, 2, 3, 1])
    lookup.begin(row)
    assert lookup.draft(9) == [2, 3]
    for token in (2, 4, 1, 2):
        row.add(token)
    assert lookup.draft(9) == [4, 1]  # what was added is known


def test_length_follows_what_is_kept() -> None:
    length = DraftLength(10)
    numbers = []
    for _ in range(5):
        numbers.append(length.next())
        length.learn(numbers[-1], numbers[-1])
    assert numbers == [2, 4, 8, 10, 10]
    length.learn(10, 3)
    assert length.next() == 3
    assert DraftLength(1).next() == 1


def test_length_gives_up_on_what_is_never_kept() -> None:
    length, guesses = DraftLength(10), []
    for _ in range(400):
        guesses.append(length.next())
        if guesses[-1]:
            length.learn(guesses[-1], 0)
    passes = sum(number > 0 for number in guesses)
    assert passes * (DraftLength.COST + DraftLength.COST_PER_TOKEN) < 2 + 400 * DraftLength.FORGIVEN
    assert guesses[-100:].count(1) >= 3  # it goes on trying

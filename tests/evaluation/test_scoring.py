"""Texts that share their beginnings, scored and continued together, against each of them alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigen
from minigen.errors import ContextError, UsageError
from minigen.evaluation.scoring import Scorer, Text
from minigen.generation.branches import Branches
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.reader import Runner
from minigen.generation.rows import Row
from minigen.generation.shared_text import BranchReader, SharedText, common_length
from minigen.model import Model

WITH_KERNELS = True  # see conftest.py

MODELS = {
    "gpt2": {"vocab_size": 9},
    "llama": {"vocab_size": 9},
    "mistral": {"vocab_size": 9, "model_type": "mistral", "sliding_window": 4},
    "lstm": {"vocab_size": 9},
}
PREFIX = [3, 1, 4, 1, 5, 8, 2, 6]


@pytest.fixture(params=MODELS)
def model(
    request: pytest.FixtureRequest, make_model: Callable[..., Path], backend: str, device: str
) -> Model:
    name = request.param
    folder = make_model("llama" if name == "mistral" else name, **MODELS[name])
    return minigen.load(folder, backend=backend, device=device, dtype="float32")


def alone(model: Model, text: Text) -> np.ndarray:
    logits = model.logits([text.ids])[0].astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return np.array([logprobs[i - 1, text.ids[i]] for i in range(text.start, len(text.ids))])


def same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert [len(x) for x in found] == [len(x) for x in wanted]
    for x, y in zip(found, wanted, strict=True):
        assert np.abs(x - y).max(initial=0) < 1e-5


def test_branches_see_their_own_text_alone(model: Model) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 9, 24).tolist()
    parents = [int(rng.integers(-1, i)) if i else -1 for i in range(24)]
    _, state = model.runner.prefill([PREFIX], len(PREFIX))
    grown = Branches(model.runner, state)
    ops = model.runner.ops
    found = [
        ops.numpy(grown.append(tokens[a:b], parents[a:b], range(b - a)))
        for a, b in ((0, 10), (10, 11), (11, 24))
    ]
    for node, logits in enumerate(np.concatenate(found)):
        path, at = [], node
        while at >= 0:
            path.append(tokens[at])
            at = parents[at]
        assert np.abs(model.logits([PREFIX + path[::-1]])[0, -1] - logits).max() < 1e-5
    grown.close()
    after = ops.numpy(model.runner.decode([7], state))
    assert np.abs(after[0, 0] - model.logits([[*PREFIX, 7]])[0, -1]).max() < 1e-5


@pytest.mark.parametrize("block", [1, 5, 512])
def test_scores_are_those_of_each_text_alone(model: Model, block: int) -> None:
    items = [[7], [7, 2, 5], [0, 0, 0, 0]]
    choices = [[1], [1, 2], [1, 2, 3], [6, 6]]
    texts = [
        Text(PREFIX + item + choice, len(PREFIX + item)) for item in items for choice in choices
    ]
    texts += [
        Text(PREFIX[:3]),
        Text([2, 7, 1], 2),
        Text(PREFIX + items[0], len(PREFIX)),
        Text([5], 1),
    ]
    wanted = [alone(model, text) for text in texts]
    scorer = Scorer(SharedText(model.runner), block)
    told: list[int] = []
    same(scorer.score(texts, told.append), wanted)
    same(scorer.score(texts[:4]), wanted[:4])
    shared = scorer.shared
    assert sum(told) <= shared.tokens_read
    assert shared.tokens_asked == sum(len(t.ids) - 1 for t in texts) + sum(
        len(t.ids) - 1 for t in texts[:4]
    )
    assert shared.tokens_saved == shared.tokens_asked - shared.tokens_read > 0


def test_no_token_is_read_twice(make_model: Callable[..., Path], backend: str, device: str) -> None:
    model = minigen.load(
        make_model("llama", vocab_size=9), backend=backend, device=device, dtype="float32"
    )
    texts = [Text([*PREFIX, q, 0, c, 1], len(PREFIX) + 2) for q in range(4) for c in (1, 2, 3)]
    for block in (2, 4, 16, 512):
        scorer = Scorer(SharedText(model.runner), block)
        scorer.score(texts)
        assert (
            scorer.shared.tokens_read == len(PREFIX) + 4 * 2 + 4 * 3
        )  # the last of each choice predicts nothing
    more = [Text([*PREFIX, 8, c], len(PREFIX) + 1) for c in (1, 2)]
    before = scorer.shared.tokens_read
    scorer.score(more)
    assert scorer.shared.tokens_read == before + 1  # the 8 alone


@pytest.mark.parametrize("name", ["llama", "lstm", "lfm2"])
def test_any_texts(tiny: Callable[[str], Path], device: str, backend: str, name: str) -> None:
    model = minigen.load(tiny(name), backend=backend, device=device, dtype="float32")

    @settings(deadline=None, derandomize=True, max_examples=20)
    @given(
        st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=8),
        st.sampled_from([1, 3, 512]),
    )
    def check(texts: list[list[int]], block: int) -> None:
        wanted = [alone(model, Text(ids)) for ids in texts]
        scorer = Scorer(SharedText(model.runner), block)
        same(scorer.score([Text(ids) for ids in texts]), wanted)
        same(scorer.score([Text(ids) for ids in reversed(texts)]), wanted[::-1])

    check()


@pytest.mark.parametrize(
    "drawing", [{"temperature": 0}, {"temperature": 1.0, "seed": 3, "repetition_penalty": 1.2}]
)
@pytest.mark.parametrize("block", [3, 512])
def test_generating_on_a_shared_text_changes_nothing(
    model: Model, drawing: dict[str, float], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A batch may need several passes, its leaves in any order.
    monkeypatch.setattr("minigen.generation.shared_text.BLOCK", block)
    prompts = [PREFIX + [i] * k for i, k in ((1, 1), (2, 4), (3, 2), (1, 3), (1, 1))] + [PREFIX]
    wanted = model.generate_ids(prompts, max_tokens=12, ignore_eos=True, **drawing)
    shared = SharedText(model.runner)
    for group in (prompts[:3], prompts[3:]):
        rows = [Row(list(prompt)) for prompt in group]
        for live in generate(
            BranchReader(shared), rows, Options.of(max_tokens=12, ignore_eos=True, **drawing)
        ):
            if len(rows[0].ids) == 5:
                rows[0].finish = rows[0].finish or "stop"  # a row may leave at any step
            assert live
        assert rows[0].ids == wanted[prompts.index(group[0])][:5]
        assert [row.ids for row in rows[1:]] == [
            wanted[prompts.index(prompt)] for prompt in group[1:]
        ]
    assert shared.tokens_read < shared.tokens_asked


def test_what_does_not_fit(model: Model) -> None:
    scorer = Scorer(SharedText(model.runner))
    with pytest.raises(UsageError, match="token id 9 is outside the model's vocabulary of 9"):
        scorer.score([Text([1, 9])])
    for text in (Text([1], 2), Text([1, 2], 0)):
        with pytest.raises(
            UsageError,
            match=f"a text of {len(text.ids)} tokens cannot be scored from token {text.start}",
        ):
            scorer.score([text])
    if model.architecture.context is not None:
        with pytest.raises(
            ContextError, match="a text of 66 tokens exceeds the model's context of 64"
        ):
            scorer.score([Text([1] * 66)])
        scorer.score([Text([1] * 65)])  # the last token is not read


def test_a_pass_that_fails_leaves_nothing_wrong_behind(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minigen.generation.shared_text.BLOCK", 2)
    shared, wanted = SharedText(model.runner), Text(PREFIX, 6)
    shared.seek(PREFIX)
    read, calls = type(model.runner).read, []

    def failing(self: Runner, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return read(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(type(model.runner), "read", failing)
        with pytest.raises(KeyboardInterrupt):
            shared.seek([PREFIX[0], 7, 7, 7, 7, 7])
    same(Scorer(shared).score([wanted]), [alone(model, wanted)])


def test_common_length() -> None:
    assert [common_length(a, b) for a, b in (([], [1]), ([1, 2], [1, 3]), ([1, 2], [1, 2, 3]))] == [
        0,
        1,
        2,
    ]

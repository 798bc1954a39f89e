"""The library as a user calls it: batches, samples, stopping, limits, and what is refused before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.errors import CheckpointError, ContextError, MinigenError, TokenizerError, UsageError
from minigen.generation.options import Options
from minigen.model import Model

WITH_KERNELS = True  # see conftest.py

GREEDY = {"temperature": 0, "ignore_eos": True}
Tiny = Callable[[str], Path]


@pytest.fixture(params=["gpt2", "llama", "lstm", "lfm2"])
def model(request: pytest.FixtureRequest, tiny: Tiny, backend: str, device: str) -> Model:
    return minigen.load(tiny(request.param), backend=backend, device=device, dtype="float32")


@pytest.fixture
def llama(tiny: Tiny, backend: str, device: str) -> Model:
    return minigen.load(tiny("llama"), backend=backend, device=device, dtype="float32")


def test_greedy_is_the_argmax_of_the_logits(model: Model) -> None:
    ids = [3, 1, 4, 1, 5]
    (new,) = model.generate_ids([ids], max_tokens=12, **GREEDY)
    for token in new:
        assert token == int(model.logits([ids])[0, -1].argmax())
        ids.append(token)


@pytest.mark.parametrize(
    "settings", [GREEDY, {"temperature": 1.0, "top_k": 20, "seed": 7, "ignore_eos": True}]
)
def test_a_row_is_the_same_alone_and_in_a_batch(model: Model, settings: dict[str, Any]) -> None:
    rows = [[1, 2, 3], [9] * 11, [4], [1, 2, 3]]
    alone = [model.generate_ids([row], max_tokens=10, **settings)[0] for row in rows]
    assert model.generate_ids(rows, max_tokens=10, **settings) == alone
    assert (
        len({tuple(row) for row in alone}) == 3
    )  # equal prompts give equal rows, different ones do not


def test_samples_of_a_prompt(llama: Model) -> None:
    run = llama.complete(["ab", "cdefg"], num_samples=3, max_tokens=8, temperature=1.0, seed=5)
    assert [c.prompt for c in run] == ["ab"] * 3 + ["cdefg"] * 3
    assert len({tuple(c.ids) for c in run[:3]}) == 3
    alone = llama.complete(["cdefg"], num_samples=2, max_tokens=8, temperature=1.0, seed=5)
    assert [c.ids for c in alone] == [c.ids for c in run[3:5]]
    assert llama.generate("cdefg", max_tokens=8, temperature=1.0, seed=5) == run[3].text


def test_stream_is_generate_in_pieces(llama: Model) -> None:
    settings = {"max_tokens": 30, "temperature": 1.0, "seed": 3}
    pieces = list(llama.stream("hello", **settings))
    assert len(pieces) > 1
    assert "".join(pieces) == llama.generate("hello", **settings)


def test_stop_ids_and_eos(llama: Model) -> None:
    (free,) = llama.generate_ids([[1, 2]], max_tokens=20, **GREEDY)
    llama.stop_ids = frozenset({free[5]})
    end = free.index(free[5]) + 1
    assert llama.generate_ids([[1, 2]], max_tokens=20, temperature=0) == [free[:end]]
    assert llama.generate_ids([[1, 2]], max_tokens=20, **GREEDY) == [free]
    other = [7, 7, 7]
    (alone,) = llama.generate_ids([other], max_tokens=20, temperature=0)
    assert llama.generate_ids([[1, 2], other], max_tokens=20, temperature=0) == [free[:end], alone]


def test_stop_strings(tiny: Tiny, tmp_path: Path, backend: str, device: str) -> None:
    model = printable(tiny, tmp_path, backend, device)
    free = model.complete(["abc"], max_tokens=30, temperature=1.0, seed=1)[0]
    assert free.finish == "length"
    stop = free.text[10:13]  # three tokens: one character each
    cut = model.complete(["abc"], max_tokens=30, temperature=1.0, seed=1, stop=[stop, "never"])[0]
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.finish == "stop"
    assert len(cut.ids) == free.text.index(stop) + 3


def printable(tiny: Tiny, folder: Path, backend: str, device: str) -> Model:
    """A tiny model over letters, so that every token is a character."""
    shutil.copytree(tiny("llama"), folder / "letters")
    config = json.loads((folder / "letters" / "config.json").read_text()) | {"tokenizer": "char"}
    (folder / "letters" / "config.json").write_text(json.dumps(config))
    (folder / "letters" / "vocab.json").write_text(json.dumps([chr(97 + i) for i in range(256)]))
    return minigen.load(folder / "letters", backend=backend, device=device, dtype="float32")


def test_logprobs_are_the_models_own(llama: Model) -> None:
    (run,) = llama.complete(["hey"], max_tokens=4, logprobs=2, temperature=0.1, seed=0)
    prompt = llama.needed_tokenizer.encode("hey")
    logits = llama.logits([prompt + run.ids])[0, len(prompt) - 1 : -1].astype(np.float64)
    wanted = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for row, token, seen in zip(wanted, run.ids, run.logprobs, strict=True):
        assert seen.id == token
        assert abs(seen.logprob - row[token]) < 1e-4
        assert [i for i, _ in seen.top] == list(np.argsort(-row)[:2])


def test_limits(model: Model) -> None:
    context = model.architecture.context
    assert len(model.generate_ids([[1]], max_tokens=3, **GREEDY)[0]) == 3
    if context is None:
        assert len(model.generate_ids([[1]], **GREEDY)[0]) == 256
        return
    assert len(model.generate_ids([[1] * 60], **GREEDY)[0]) == context - 60
    assert len(model.generate_ids([[1] * 60], max_tokens=4, **GREEDY)[0]) == 4
    assert [len(new) for new in model.generate_ids([[1] * 60, [2]], **GREEDY)] == [4, 63]
    uneven = [
        [1] * 60,
        [2],
        [3],
        [4],
        [5],
    ]  # the first ends at the edge of the context, long before the others
    assert model.generate_ids(uneven, **GREEDY) == [
        model.generate_ids([row], **GREEDY)[0] for row in uneven
    ]
    with pytest.raises(
        ContextError,
        match="a prompt of 60 tokens and 5 new ones exceed the model's context of 64: ask",
    ):
        model.generate_ids([[2], [1] * 60], max_tokens=5)
    with pytest.raises(
        ContextError, match="the prompt has 64 tokens and the model's context is 64: shorten it"
    ):
        model.generate_ids([[1] * 64])
    with pytest.raises(ContextError, match="65 tokens exceed the model's context of 64"):
        model.logits([[1] * 65])
    assert model.logits([[1] * 64]).shape == (1, 64, 256)


BAD_CALLS = [
    ({"temperature": -1}, "temperature is -1: it must be a number >= 0"),
    ({"top_p": 2}, "top_p is 2: it must be a number > 0 and <= 1"),
    ({"max_tokens": 0}, "max_tokens is 0: it must be a whole number >= 1"),
    ({"max_tokens": 2.5}, "max_tokens is 2.5: it must be a whole number >= 1"),
    ({"num_samples": 0}, "num_samples is 0: it must be a whole number from 1 to 4096"),
    ({"logprobs": -1}, "logprobs is -1: it must be a whole number >= 0"),
    ({"beams": 0}, "beams is 0: it must be a whole number from 1 to 256"),
    ({"logit_bias": {300: 1}}, "logit_bias names token 300: this model's ids end at 255"),
    ({"ignore_eos": "no"}, "ignore_eos is 'no': it must be True or False"),
    ({"stop": 5}, "stop is 5: it must be a list of strings"),
    ({"beams": 2, "top_k": 3}, "beam search draws nothing: drop top_k, or beams"),
    ({"beams": 2, "num_samples": 3}, "beam search gives one continuation without logprobs"),
    ({"length_penalty": "x"}, "length_penalty is 'x': it must be a number from 0 to 10"),
    ({"top_q": 1}, "top_q is not a setting: did you mean top_p?"),
    ({"xyz": 1}, "xyz is not a setting: there are max_tokens, stop,"),
    ({"seed": 2**64}, f"seed is {2**64}: it must be a whole number >= 0 and < 2**64"),
    ({"stop": "x"}, "stop is 'x': it must be a list of strings"),
    ({"stop": [""]}, "stop has the entry '': it must be a string of at least one character"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_CALLS)
def test_bad_settings_are_named(llama: Model, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        llama.complete(["x"], **settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[]], "the prompt is empty: give at least one token"),
        ([[256]], "token id 256 is outside the model's vocabulary of 256"),
        ([[3, -1]], "token id -1 is outside the model's vocabulary of 256"),
        ([[1.5]], "token ids must be whole numbers, one list a row"),
        ([[[1, 2], [3]]], "token ids must be whole numbers, one list a row"),
        (["ab"], "token ids must be whole numbers, one list a row"),
        ([[[1]]], "token ids must be whole numbers, one list a row"),
    ],
)
def test_bad_ids_are_named(llama: Model, rows: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        llama.generate_ids(rows)


def test_bad_texts(llama: Model) -> None:
    empty = r"^the prompt is empty, and .* has no token that begins or separates texts: give some"
    with pytest.raises(UsageError, match=empty):
        llama.generate(["a", ""])
    with pytest.raises(UsageError, match=r"^prompts must be a list of strings$"):
        llama.generate([b"a"])  # type: ignore[list-item]
    with pytest.raises(
        UsageError, match="generate gives one text per prompt: call complete for num_samples"
    ):
        llama.generate("a", num_samples=2)
    with pytest.raises(UsageError, match="ids must have the shape"):
        llama.logits([1, 2])
    with pytest.raises(UsageError, match=r"^prompts must be a list of strings$"):
        llama.generate(None)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="these rows are of unequal lengths"):
        llama.logits([[1, 2], [3]])
    assert len(llama.generate((text for text in ("ab", "cd")), max_tokens=2)) == 2  # type: ignore[call-overload]
    assert llama.generate([]) == []
    assert llama.generate_ids([]) == []


def test_a_folder_without_tokenizer_still_takes_ids(
    tiny: Tiny, tmp_path: Path, backend: str, device: str
) -> None:
    shutil.copytree(tiny("gpt2"), tmp_path / "bare")
    config = json.loads((tmp_path / "bare" / "config.json").read_text())
    del config["tokenizer"]
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config))
    model = minigen.load(tmp_path / "bare", backend=backend, device=device)
    assert model.tokenizer is None
    assert len(model.generate_ids([[1, 2]], max_tokens=3)[0]) in (1, 2, 3)
    with pytest.raises(
        TokenizerError,
        match=r"bare has no tokenizer \(tokenizer.json, vocab.json, ...\), so it takes no",
    ):
        model.generate("text")


def test_eos_ids_from_every_file(tiny: Tiny, tmp_path: Path, backend: str, device: str) -> None:
    shutil.copytree(tiny("gpt2"), tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text()) | {"eos_token_id": 7}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "generation_config.json").write_text('{"eos_token_id": [8, 9]}')
    assert minigen.load(tmp_path / "m", backend=backend, device=device).stop_ids == {7, 8, 9}
    (tmp_path / "m" / "generation_config.json").write_text('{"eos_token_id": "end"}')
    with pytest.raises(
        CheckpointError, match=r"eos_token_id is 'end': it must be an id or a list of ids"
    ):
        _ = minigen.load(tmp_path / "m", backend=backend, device=device).stop_ids


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits(tiny: Tiny, backend: str, device: str, dtype: str) -> None:
    full = minigen.load(tiny("llama"), backend=backend, device=device, dtype="float32")
    half = minigen.load(tiny("llama"), backend=backend, device=device, dtype=dtype)
    ids = [[1, 2, 3, 4, 5]]
    wanted, got = full.logits(ids), half.logits(ids)
    assert got.dtype == np.float32
    assert 0 < np.abs(wanted - got).max() < 0.05 * np.abs(wanted).max()
    assert len(half.generate_ids(ids, max_tokens=4, **GREEDY)[0]) == 4


def test_a_model_that_produces_nan_says_so(llama: Model) -> None:
    ops = llama.runner.ops
    llama.runner.params["norm"]["weight"] = ops.asarray(np.full(32, np.nan))
    with pytest.raises(
        MinigenError,
        match="the model produced NaN as a logit: check its weights, or run it in float32",
    ):
        llama.generate_ids([[1]], **GREEDY)


def test_nan_in_a_later_step_says_so(llama: Model) -> None:
    ops = llama.runner.ops
    (first, *_), = llama.generate_ids([[1, 2]], max_tokens=2, **GREEDY)  # fmt: skip
    weights = ops.numpy(llama.runner.params["embedding"]["weight"]).copy()
    params = {**llama.runner.params, "head": {"weight": ops.asarray(weights)}}
    weights[first] = (
        np.nan
    )  # in the embedding alone: the first token is still chosen, and poisons the next
    params["embedding"] = {"weight": ops.asarray(weights)}
    runner = replace(
        llama.runner, architecture=replace(llama.architecture, tied=False), params=params
    )
    model = Model(runner, llama.folder, llama.config)
    with pytest.raises(MinigenError, match="the model produced NaN as a logit"):
        model.generate_ids([[1, 2]], max_tokens=4, **GREEDY)


def test_ids_need_no_tokenizer_that_works(
    tiny: Tiny, tmp_path: Path, backend: str, device: str
) -> None:
    shutil.copytree(tiny("gpt2"), tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text()) | {
        "tokenizer": None,
        "eos_token_id": 3,
    }
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "tokenizer.json").write_text("[]")
    model = minigen.load(tmp_path / "m", backend=backend, device=device)
    assert model.stop_ids == {3}
    assert model.generate_ids([[1, 2]], max_tokens=2)
    with pytest.raises(TokenizerError):
        model.generate("x")


def test_options_have_a_seed_that_can_be_used_again() -> None:
    assert Options.of().sampling.seed is not None
    assert Options.of(seed=4).sampling.seed == 4
    assert Options.of(temperature=0).sampling.is_greedy

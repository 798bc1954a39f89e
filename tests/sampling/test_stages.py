"""What the stages compute: a plain definition, transformers and stored reference cases must all agree."""

import json
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.sampling import Sampling, process

ORACLES = Path(__file__).resolve().parents[2] / ".." / "shared" / "oracles" / "sampling"


def naive(
    logits: np.ndarray, tokens: list[int], prompt_length: int, setting: dict[str, Any]
) -> np.ndarray:
    """The same by the definitions alone: whole arrays, Python loops, a full sort."""
    x = logits.astype(np.float64).tolist()
    every = range(len(x))
    generated = tokens[prompt_length:]
    for i in set(tokens):
        x[i] = (
            x[i] * setting["repetition_penalty"]
            if x[i] < 0
            else x[i] / setting["repetition_penalty"]
        )
    for i in set(generated):
        x[i] -= setting["presence_penalty"] + generated.count(i) * setting["frequency_penalty"]
    n = setting["no_repeat_ngram_size"]
    for start in range(len(tokens) - n + 1) if n else ():
        if tokens[start : start + n - 1] == tokens[len(tokens) - n + 1 :]:
            x[tokens[start + n - 1]] = -np.inf
    for i, bias in setting["logit_bias"].items():
        x[i] += bias
    highest = max(x)
    x = [(v - highest) / setting["temperature"] for v in x]

    def probabilities() -> list[float]:
        weights = np.exp(np.array(x) - max(x))
        return (weights / weights[np.isfinite(x)].sum()).tolist()

    def keep(kept: list[bool]) -> None:
        x[:] = [v if k else -np.inf for v, k in zip(x, kept, strict=True)]

    def before(order: list[int], p: list[float]) -> dict[int, float]:
        mass = np.cumsum([0.0] + [p[i] for i in order])
        return dict(zip(order, mass.tolist(), strict=False))

    if setting["top_k"]:
        kth = sorted(x, reverse=True)[: setting["top_k"]][-1]
        keep([v >= kth for v in x])
    if setting["top_p"] < 1:
        mass = before(sorted(every, key=lambda i: (-x[i], i)), probabilities())
        keep([mass[i] < setting["top_p"] for i in every])
    p = probabilities()
    threshold = setting["min_p"] * max(p)
    keep([v >= threshold for v in p])
    if setting["typical_p"] < 1:
        p = probabilities()
        entropy = -sum(v * log(v) for v in p if v)
        distance = [abs(-log(v) - entropy) if v else np.inf for v in p]
        mass = before(sorted(every, key=lambda i: distance[i]), p)
        furthest = max(d for i, d in enumerate(distance) if mass[i] < setting["typical_p"])
        keep([d <= furthest + 1e-12 for d in distance])
    p, best = probabilities(), max(x)
    keep([v >= setting["epsilon_cutoff"] or logit == best for v, logit in zip(p, x, strict=True)])
    p, best = probabilities(), max(x)
    eta = setting["eta_cutoff"]
    eta = min(eta, eta**0.5 * exp(sum(v * log(v) for v in p if v)))
    keep([v >= eta or logit == best for v, logit in zip(p, x, strict=True)])
    return np.array(probabilities())


def off_or(low: float, high: float, off: float) -> st.SearchStrategy[float]:
    return st.one_of(st.just(off), st.floats(low, high))


some_settings = st.fixed_dictionaries(
    {
        "temperature": off_or(0.2, 3.0, 1.0),
        "repetition_penalty": off_or(0.5, 2.0, 1.0),
        "presence_penalty": off_or(-1.0, 2.0, 0.0),
        "frequency_penalty": off_or(-1.0, 2.0, 0.0),
        "no_repeat_ngram_size": st.integers(0, 4),
        "logit_bias": st.dictionaries(st.integers(0, 4), st.floats(-5, 5), max_size=2),
        "top_k": st.one_of(st.just(0), st.integers(1, 60), st.integers(1, 6000)),
        "top_p": off_or(0.01, 0.999, 1.0),
        "min_p": off_or(0.001, 0.9, 0.0),
        "typical_p": off_or(0.01, 0.99, 1.0),
        "epsilon_cutoff": off_or(1e-4, 0.5, 0.0),
        "eta_cutoff": off_or(1e-4, 0.5, 0.0),
    }
)


def some_row(seed: int, size: int, history: int) -> tuple[np.ndarray, list[int]]:
    """Logits with more or fewer ties and -inf, and tokens of only five ids, so that they repeat."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, rng.choice([0.1, 1.0, 3.0, 8.0]), size).round(
        int(rng.choice([0, 1, 15]))
    )
    logits[rng.random(size) < rng.choice([0.0, 0.5])] = -np.inf
    logits[rng.integers(5, size)] = rng.normal()
    return logits, rng.integers(0, 5, history).tolist()


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.integers(0, 2**32), st.sampled_from([6, 50, 700, 6000]), st.integers(0, 12), some_settings
)
def test_the_plain_definition_gives_the_same(
    seed: int, size: int, history: int, setting: dict[str, Any]
) -> None:
    logits, tokens = some_row(seed, size, history)
    given_logits = logits.copy()
    probs = process(logits, tokens, history // 2, Sampling.of(**setting))
    expected = naive(logits, tokens, history // 2, setting)
    np.testing.assert_array_equal(probs > 0, expected > 0)
    np.testing.assert_allclose(probs, expected, rtol=1e-10)
    np.testing.assert_array_equal(logits, given_logits)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([6, 50, 6000]), some_settings)
def test_a_single_cut_on_many_ties_gives_the_same(
    seed: int, size: int, setting: dict[str, Any]
) -> None:
    logits, _ = some_row(seed, size, 0)
    for name in ("top_k", "top_p", "typical_p", "min_p", "epsilon_cutoff", "eta_cutoff"):
        alone = {**Sampling().flat(), name: setting[name]}
        expected = naive(logits, [], 0, alone)
        np.testing.assert_allclose(
            process(logits, [], 0, Sampling.of(**alone)), expected, rtol=1e-10
        )


def reference_cases() -> list[dict[str, Any]]:
    path = ORACLES / "reference.json"
    return json.loads(path.read_text())["cases"] if path.exists() else []


@pytest.mark.skipif(not reference_cases(), reason="shared/oracles/sampling is not here")
def test_every_reference_case() -> None:
    from safetensors.numpy import load_file

    arrays = load_file(ORACLES / "reference.safetensors")
    cases = reference_cases()
    assert len(cases) == 31
    for case in cases:
        sampling = Sampling.of(**case["params"])
        for row, (logits, ids) in enumerate(
            zip(arrays["logits"], arrays["input_ids"], strict=True)
        ):
            probs, expected = (
                process(logits, ids.tolist(), 0, sampling),
                arrays[f"probs.{case['index']}"][row],
            )
            if (
                row == 3 and sampling.cuts.top_p < 1
            ):  # ties at the edge: which of them stay is the sort's choice
                probs, expected = np.sort(probs), np.sort(expected)
            np.testing.assert_allclose(
                probs, expected, atol=1e-6, rtol=0, err_msg=f"{case['params']} {row}"
            )
            assert (probs > 0).sum() == case["kept_per_row"][row]


def test_transformers_gives_the_same() -> None:
    torch = pytest.importorskip("torch")
    hf = pytest.importorskip("transformers.generation.logits_process")
    makers = {  # in the order in which transformers' own generate() runs them
        "repetition_penalty": hf.RepetitionPenaltyLogitsProcessor,
        "no_repeat_ngram_size": hf.NoRepeatNGramLogitsProcessor,
        "temperature": hf.TemperatureLogitsWarper,
        "top_k": hf.TopKLogitsWarper,
        "top_p": hf.TopPLogitsWarper,
        "min_p": hf.MinPLogitsWarper,
        "typical_p": hf.TypicalLogitsWarper,
        "epsilon_cutoff": hf.EpsilonLogitsWarper,
        "eta_cutoff": hf.EtaLogitsWarper,
    }
    rng = np.random.default_rng(5)
    for size in [50, 700, 6000] * 10:
        logits, tokens = (
            rng.normal(0, rng.choice([1.0, 3.0]), size),
            rng.integers(0, 5, 12).tolist(),
        )
        setting = {
            "repetition_penalty": float(rng.uniform(0.8, 1.5)),
            "no_repeat_ngram_size": int(rng.integers(1, 4)),
            "temperature": float(rng.uniform(0.5, 2)),
            "top_k": int(rng.integers(1, size)),
            "top_p": float(rng.uniform(0.3, 1)),
            "min_p": float(rng.uniform(0, 0.1)),
            "typical_p": float(rng.uniform(0.3, 0.99)),
            "epsilon_cutoff": float(rng.uniform(0.0001, 0.01)),
            "eta_cutoff": float(rng.uniform(0.0001, 0.01)),
        }
        used = {name: setting[name] for name in makers if rng.random() < 0.5}
        ids, scores = torch.tensor([tokens]), torch.tensor(logits)[None]
        for name, value in used.items():
            scores = makers[name](value)(ids, scores)
        expected = scores.softmax(-1)[0].numpy()
        probs = process(logits, tokens, 0, Sampling.of(**used))
        np.testing.assert_allclose(probs, expected, atol=1e-12, rtol=1e-9, err_msg=str(used))

"""A test is the work that `generate` does: the same ids, by the same calls, on both backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.backends import machine
from minigen.backends.base import Quantized
from minigen.benchmark.plan import Case, model_of, shape_of
from minigen.benchmark.session import SEED, Session, Subject
from minigen.generation.reader import Runner
from minigen.tree import flatten


def session_of(
    fields: dict[str, Any], backend: str, device: str, dtype: str | None = None
) -> Session:
    session = Session(Subject(**fields, backend=backend, device=device, dtype=dtype))
    session.begin()
    session.load()
    return session


@pytest.mark.parametrize("name", ["gpt2", "lstm"])
@pytest.mark.parametrize(
    "case", [Case("tg", 6), Case("tg", 4, depth=9, batch=3), Case("pp", 8, 5, 2), Case("pp", 8)]
)
def test_the_ids_are_those_of_generate(
    tiny: Callable[[str], Path], backend: str, device: str, name: str, case: Case
) -> None:
    session = session_of(model_of(str(tiny(name))), backend, device)
    timed = session.run(case)
    ids = np.random.default_rng(SEED).integers(0, 256, (case.batch, case.before + case.tokens))
    decoding = case.kind == "tg"
    prompts = ids[:, : case.before] if decoding else ids
    model = minigen.load(tiny(name), backend=backend, device=device)
    wanted = model.generate_ids(
        prompts.tolist(),
        max_tokens=case.tokens + 1 if decoding else 1,
        temperature=0,
        ignore_eos=True,
    )
    assert [row.ids for row in session.rows] == wanted
    assert len(timed.steps_s) == (case.tokens if decoding else 0)
    assert timed.seconds > 0
    assert timed.seconds == sum(timed.steps_s) or not decoding
    assert (timed.first_token_s is None) == decoding


def test_what_is_run(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, backend: str, device: str
) -> None:
    """The shapes of the passes, whoever is asked for them."""
    session = session_of(model_of(str(tiny("llama"))), backend, device)
    seen: list[tuple[int, ...]] = []
    read = Runner.read

    def spy(self: Runner, ids: Any, state: Any, at: Any = (-1,)) -> Any:
        seen.append(np.shape(ids))
        return read(self, ids, state, at)

    monkeypatch.setattr(Runner, "read", spy)
    for case in (Case("pp", 8), Case("pp", 8, 5, 2), Case("tg", 3), Case("tg", 2, 4, 3)):
        session.run(case)
    assert seen == [(1, 8), (2, 5), (2, 8), (1, 1), *[(1, 1)] * 3, (3, 4), *[(3, 1)] * 2]


def test_random_weights(backend: str, device: str) -> None:
    fields = shape_of("stories-3m")
    fields["config"] = fields["config"] | {
        "num_hidden_layers": 1,
        "hidden_size": 32,
        "vocab_size": 100,
    }
    session = session_of(fields, backend, device, "bfloat16")
    assert session.begin()["dtype"] == "bfloat16"
    assert session.load() is None
    assert len(session.run(Case("tg", 2)).steps_s) == 2
    assert session.memory() > 0
    other = Session(replace(session.subject, dtype="float32"))
    other.begin()
    other.load()
    first, second = (s.ops.numpy(s.runner.params["embedding"]["weight"]) for s in (session, other))
    assert np.abs(first - second).max() < 1e-3  # the same numbers in another dtype


def test_quantized(make_model: Callable[..., Path], backend: str, device: str) -> None:
    fields = shape_of("stories-3m")
    fields["config"] = fields["config"] | {
        "num_hidden_layers": 1,
        "hidden_size": 64,
        "vocab_size": 100,
    }
    for found in (
        fields,
        model_of(str(make_model("llama", hidden_size=64, intermediate_size=128))),
    ):
        session = Session(Subject(**found, backend=backend, device=device, quant="mixed"))
        session.begin()
        session.load()
        params = flatten(session.runner.params)
        held = {path: (x.bits, x.group) for path, x in params.items() if isinstance(x, Quantized)}
        assert held == {path: (x.bits, x.group) for path, x in session.subject.packings().items()}
        assert len(held) == 1 + 4 * len(session.runner.params["blocks"])
        assert len(session.run(Case("tg", 2)).steps_s) == 2


def test_limits_are_measured(backend: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SIZES", dict.fromkeys((False, True), 32))
    monkeypatch.setattr(machine, "ARRAY", dict.fromkeys((False, True), 2**20))
    monkeypatch.setattr(machine, "SECONDS", 0.01)
    monkeypatch.setattr(machine, "cache_size", lambda: None)
    session = Session(Subject(**shape_of("gpt2"), backend=backend, device=device))
    about = session.begin()
    assert set(about) == {"device", "dtype", "threads", "gpu", "total_memory"}
    assert about["gpu"] is None or device != "cpu"
    assert all(1e3 < x < 1e16 for x in session.limits())


def test_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, size in enumerate(("48K", "1024K", "32M", "")):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(f"{size}\n")
    monkeypatch.setattr(machine, "CACHE_FILES", tmp_path)
    monkeypatch.setattr(machine, "_sysctl", lambda name: "")
    about = machine.describe(["numpy"])
    assert about["cache_bytes"] == 32 * 2**20
    assert about["versions"]["minigen"] == minigen.__version__
    assert about["cores"] >= 1
    assert about["cpu"]
    monkeypatch.setattr(machine, "CACHE_FILES", tmp_path / "nothing")
    assert machine.cache_size() is None

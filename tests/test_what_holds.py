"""`minigen help internals`, "What holds where": in float32 a text is the same whichever way it comes about.

Nothing is claimed here of 16 bits, where rows of a batch, guesses and shared texts round otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import minigen
from minigen.generation.dispatch import steps
from minigen.generation.options import Options
from minigen.generation.reader import Reader, Runner
from minigen.generation.rows import Row
from minigen.generation.shared_text import BranchReader, SharedText
from minigen.model import Model
from minigen.prompt_cache import CachedReader

SETTINGS = ({"temperature": 0}, {"temperature": 1.0, "seed": 7, "top_p": 0.9})
HEAD = [5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]
PROMPTS = [HEAD + [(7 * i * i + 11 * n) % 256 for i in range(n)] for n in (1, 19, 6, 2)]


@pytest.fixture(params=[None, "8", "4"], ids=["plain", "8-bit", "4-bit"])
def quant(request: pytest.FixtureRequest) -> str | None:
    found: str | None = request.param
    return found


@pytest.fixture
def folder(make_model: Callable[..., Path]) -> Path:
    return make_model("llama", hidden_size=64, intermediate_size=128)


@pytest.fixture
def model(folder: Path, backend: str, device: str, quant: str | None) -> Model:
    return minigen.load(folder, backend=backend, device=device, dtype="float32", quant=quant)


def texts(
    reader: Reader, prompts: Sequence[Sequence[int]], draft: Runner | None = None, **settings: Any
) -> list[list[int]]:
    rows = [Row(list(prompt)) for prompt in prompts]
    options = Options.of(max_tokens=10, ignore_eos=True, **settings)
    for _ in steps(reader, rows, options, draft=None if draft is None else SharedText(draft)):
        pass
    return [row.ids for row in rows]


def apart(runner: Runner, **settings: Any) -> list[list[int]]:
    """The text of each prompt, alone."""
    return [texts(runner, [prompt], **settings)[0] for prompt in PROMPTS]


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "seed"])
def test_however_a_text_comes_about(
    model: Model,
    make_model: Callable[..., Path],
    backend: str,
    device: str,
    settings: dict[str, Any],
) -> None:
    alone = apart(model.runner, **settings)
    assert texts(model.runner, PROMPTS, **settings) == alone
    other = minigen.load(
        make_model("llama", seed=9), backend=backend, device=device, dtype="float32"
    ).runner
    for draft in (model.runner, other):  # guesses that are right, and guesses that are wrong
        assert [texts(model.runner, [prompt], draft, **settings)[0] for prompt in PROMPTS] == alone
    shared = SharedText(model.runner)
    assert texts(BranchReader(shared), PROMPTS, **settings) == alone
    for prompt, wanted in zip(PROMPTS, alone, strict=True):
        shared.seek(prompt[:7])  # read in two pieces, after going back
        assert texts(CachedReader(shared), [prompt], **settings) == [wanted]


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "seed"])
def test_on_either_backend(folder: Path, quant: str | None, settings: dict[str, Any]) -> None:
    if not (find_spec("torch") and find_spec("mlx")):
        pytest.skip("torch and mlx are not both installed")
    found = [
        apart(
            minigen.load(folder, backend=name, device="cpu", dtype="float32", quant=quant).runner,
            **settings,
        )
        for name in ("torch", "mlx")
    ]
    assert found[0] == found[1]

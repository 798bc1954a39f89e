"""The names of tests, what they take of a context, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from minigen.benchmark.plan import Case, make_cases, model_of, shape_of
from minigen.benchmark.session import Subject, check_context
from minigen.errors import ContextError, MinigenError, UsageError


def test_names_and_order() -> None:
    cases = make_cases([512, 64], [128], [0, 256], [1, 8])
    assert [case.name for case in cases] == [
        "pp512", "pp64", "tg128", "pp512 @ d256", "pp64 @ d256", "tg128 @ d256",
        "pp512 b8", "pp64 b8", "tg128 b8", "pp512 @ d256 b8", "pp64 @ d256 b8", "tg128 @ d256 b8",
    ]  # fmt: skip
    assert [case.name for case in make_cases([0], [5, 5], [0, 0], [1])] == ["tg5"]
    with pytest.raises(
        UsageError, match=r"^there is nothing to measure: give a length > 0 to -p or -n$"
    ):
        make_cases([0], [0], [0, 512], [1])


def test_passes() -> None:
    assert list(Case("pp", 5, depth=3).passes()) == [(3, 5)]
    assert list(Case("tg", 3, depth=4).passes()) == [(4, 1), (5, 1), (6, 1)]
    assert list(Case("tg", 2).passes()) == [(1, 1), (2, 1)]  # one token to begin with


def test_what_goes_beyond_the_context(tiny: Callable[[str], Path]) -> None:
    folder = tiny("gpt2")  # a context of 64
    gpt2, lstm = (
        Subject(**model_of(str(tiny(name))), backend="torch") for name in ("gpt2", "lstm")
    )
    check_context(
        [gpt2], [Case("pp", 64), Case("tg", 63), Case("tg", 60, depth=4), Case("pp", 60, depth=4)]
    )
    check_context([lstm], [Case("pp", 10**6, depth=10**6)])
    for case, wanted in (
        (Case("pp", 65), 65),
        (Case("tg", 64), 65),
        (Case("tg", 60, depth=5, batch=2), 65),
    ):
        message = f"{case.name} needs {wanted} tokens, but the context of {folder} is 64: lower -p, -n or -d"
        with pytest.raises(ContextError, match=f"^{re.escape(message)}$"):
            check_context([lstm, gpt2], [Case("pp", 1), case])


def test_models_and_shapes(tiny: Callable[[str], Path]) -> None:
    found = model_of(f"{tiny('llama')}/")
    assert (found["model"], found["folder"], found["stored"]) == (
        str(tiny("llama")),
        tiny("llama"),
        "float32",
    )
    assert model_of(None)["model"] == "stories-3m"
    assert model_of(None)["stored"] == "bfloat16"
    shape = Subject(**shape_of("llama-1b"), backend="mlx")
    assert (shape.model, shape.folder, shape.stored) == ("llama-1b shape", None, "bfloat16")
    assert shape.architecture().context == 131072
    with pytest.raises(UsageError, match=r"^unknown shape 'gpt3': choose gpt2, gpt2-xl, .*$"):
        shape_of("gpt3")
    with pytest.raises(MinigenError, match=r"^no such folder: \./nothing$"):
        model_of("./nothing")

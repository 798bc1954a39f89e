"""Who reads for the loop: each reader holds what it reads with, and none inherits from another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.backends import get_backend
from minigen.chat.kept import KeptReader
from minigen.generation.choosing import Choice
from minigen.generation.drawing import Uniforms
from minigen.generation.options import Options
from minigen.generation.reader import Reader, Runner, decode
from minigen.generation.rows import Row
from minigen.generation.shared_text import Block, BranchReader, SharedText, blocks
from minigen.generation.speculation import SpeculativeReader
from minigen.prompt_cache import CachedReader, cached_run, save_prompt

READERS = (Runner, BranchReader, CachedReader, KeptReader, SpeculativeReader)
Tiny = Callable[[str], Path]


@pytest.mark.parametrize("kind", READERS)
def test_no_reader_inherits(kind: type) -> None:
    assert kind.__mro__ == (kind, object)
    assert not kind.__subclasses__()


@pytest.mark.parametrize("make", [lambda x: x.runner, BranchReader, CachedReader, KeptReader])
def test_every_reader_reads_the_same(
    make: Callable[[SharedText], Reader], tiny: Tiny, backend: str, device: str
) -> None:
    model = minigen.load(tiny("llama"), backend=backend, device=device, dtype="float32")
    reader, ops = make(SharedText(model.runner)), model.runner.ops
    logits, state = reader.prefill([[5, 6, 7]], 9)
    got = [ops.numpy(logits)[0, -1].copy()]
    for token in (8, 9):
        got.append(ops.numpy(decode(reader, [token], state))[0, -1].copy())
    wanted = model.logits([[5, 6, 7, 8, 9]])[0, 2:]
    assert np.abs(np.stack(got) - wanted).max() < 1e-5
    assert reader.runner is model.runner


def test_blocks_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minigen.generation.shared_text.BLOCK", 4)
    assert list(blocks(3, 3, [])) == []
    found = list(blocks(1, 10, [2, 4, 9]))
    assert found == [Block(1, 5, [1, 3]), Block(5, 9, []), Block(9, 10, [0])]
    assert [block.at for block in found] == [[1, 3], [3], [0]]


@pytest.mark.parametrize(
    ("settings", "reads"), [({}, 2), ({"num_samples": 3}, 2), ({"beams": 2}, 3)]
)
def test_cached_tokens_are_not_counted_as_read(
    settings: dict[str, Any], reads: int, tiny: Tiny, backend: str, device: str, tmp_path: Path
) -> None:
    """Equal prompts are read once, but by beam search, which reads one after the other."""
    model = minigen.load(tiny("llama"), backend=backend, device=device, dtype="float32")
    save_prompt(model, list(b"abcabc"), tmp_path / "p.cache")
    options = Options.of(max_tokens=2, **settings)
    found = cached_run(model, tmp_path / "p.cache", ["abcabc d", "abcabc e", "abcabc d"], options)
    run = found.run
    assert run.timing.prompt_tokens == 0
    for _ in run:
        pass
    # The last of the six is read again, for the logits after it.
    assert (run.timing.cached_tokens, run.timing.prompt_tokens) == (5, 3 * reads)
    assert found.shared.tokens_read > 0  # the text that was saved has been gone on with


@pytest.mark.parametrize("settings", [{"top_p": 1}, {"top_k": 3}])
def test_the_best_logit_is_asked_for_once(
    settings: dict[str, Any], backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops: Any = get_backend(backend, device, "float32")
    best, calls = ops.best, []

    def counted(x: Any) -> Any:
        calls.append(x)
        return best(x)

    monkeypatch.setattr(ops, "best", counted)
    options, rows = Options.of(seed=1, temperature=1, **settings), [Row([1], 0, 9)]
    uniform = Uniforms(ops, rows, options.sampling).at(0)
    Choice(ops, ops.asarray(np.zeros((1, 1, 700), np.float32)), options, uniform)
    assert len(calls) == 1

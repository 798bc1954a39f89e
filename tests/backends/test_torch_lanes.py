"""CUDA graphs of several texts at once, and captures that fail, on a torch.cuda that is played on a CPU."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.model import load

torch = pytest.importorskip("torch", reason="torch is not installed")
Make = Callable[..., Path]
PROMPT = [3, 1, 4]


@pytest.fixture
def models(make_model: Make, fake_cuda: Any) -> tuple[Any, Any]:
    """A runner whose steps are graphs, and one that computes op after op."""
    folder = make_model("llama")
    return with_graphs(folder), plain(folder)


def with_graphs(folder: Path) -> Any:
    from minigen.backends.torch.graphs import StaticSteps

    runner = plain(folder)
    runner.ops.static = StaticSteps(runner.ops)
    runner.ops.static.capturing = True
    return runner


def plain(folder: Path) -> Any:
    runner: Any = load(folder, "torch", "cpu", "float32").runner
    runner.ops.kernels = None
    return runner


class Text:
    """A state that reads one token after the other, and what was found."""

    def __init__(self, runner: Any, room: int = 40) -> None:
        self.runner = runner
        _, self.state = runner.prefill([PROMPT], room)
        self.tokens, self.logits = list[int](), list[Any]()

    def read(self, *tokens: int) -> Text:
        for token in tokens:
            self.tokens.append(token)
            self.logits.append(
                self.runner.ops.numpy(self.runner.decode([token], self.state)).copy()
            )
        return self

    def is_as_by(self, runner: Any) -> bool:
        other = Text(runner).read(*self.tokens)
        return np.allclose(np.concatenate(self.logits), np.concatenate(other.logits), atol=1e-5)


def test_graphs_say_what_a_pass_says(models: Any, fake_cuda: Any) -> None:
    runner, other = models
    assert Text(runner).read(*range(20)).is_as_by(other)
    assert fake_cuda.handed_out == 2  # one for the graph that keeps the memory


def test_a_text_outlives_others(models: Any) -> None:
    """More of them than there are streams, one after the other."""
    runner, other = models
    chat = Text(runner).read(1, 2, 3)
    for _ in range(40):
        Text(runner).read(4, 5, 6)
        chat.read(7)
        chat.state.rewind(6)
    assert chat.tokens.count(7) == 40
    assert chat.logits[-1].shape == chat.logits[3].shape
    assert np.allclose(chat.logits[-1], chat.logits[3], atol=1e-5)
    assert Text(runner).read(1, 2, 3).is_as_by(other)


def test_two_texts_in_turn(models: Any, fake_cuda: Any) -> None:
    runner, other = models
    texts = [Text(runner), Text(runner)]
    for token in range(8):
        for text in texts:
            text.read(token)
    assert all(text.is_as_by(other) for text in texts)
    lanes = {known.lane.stream.cuda_stream for known in runner.ops.static.states.values()}
    assert len(lanes) == 2
    del texts, text
    assert fake_cuda.graphs == 1  # they go with their texts


def test_two_models(make_model: Make, fake_cuda: Any) -> None:
    """The streams are those of the process."""
    folder = make_model("llama")
    first, second = with_graphs(folder), with_graphs(folder)
    text = Text(first).read(1, 2, 3)
    for _ in range(40):
        Text(second).read(4, 5, 6)
    assert text.read(4, 5).is_as_by(plain(folder))


def test_more_texts_than_streams(models: Any, fake_cuda: Any) -> None:
    runner, other = models
    texts = [Text(runner).read(1, 2, 3) for _ in range(40)]
    assert fake_cuda.handed_out >= 32
    del texts[::2]  # those that share a stream with others are among them
    for text in texts:
        text.read(4, 5)
    assert all(text.is_as_by(other) for text in texts[:3])
    del texts, text
    assert fake_cuda.graphs == 1


def test_all_graphs_go_where_the_buffers_moved(
    models: Any, fake_cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minigen.backends.torch import graphs as torch_graphs

    monkeypatch.setattr(torch_graphs, "KEYS", 8)
    runner, other = models
    text = Text(runner, 20).read(*range(9))
    assert fake_cuda.graphs == 3  # that of the memory, and those over 8 and 16 keys
    text.state.reserve(runner.ops, 40)
    text.read(10)
    assert fake_cuda.graphs == 2
    text.read(*range(8))
    assert text.is_as_by(other)


# -- captures that fail -----------------------------------------------------------------------------------------------
def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_the_warning_names_the_cause(
    models: Any, fake_cuda: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """And not that a capture cannot be ended after it."""
    runner, other = models
    fake_cuda.failure = RuntimeError("operation not permitted when stream is capturing")
    assert Text(runner).read(1, 2, 3, 4).is_as_by(other)
    fake_cuda.failure = None
    Text(runner).read(1, 2, 3)
    assert warnings_of(caplog) == [
        "CUDA graphs do not work here (operation not permitted when stream is capturing): decoding goes one operation "
        "after the other"
    ]


def test_out_of_memory_is_of_one_text(
    models: Any, fake_cuda: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runner, other = models
    Text(runner).read(1, 2, 3)  # the memory of all graphs is there
    fake_cuda.failure = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 MiB.\nmore"
    )
    text = Text(runner).read(1, 2, 3, 4)
    fake_cuda.failure = None
    assert text.read(5, 6).is_as_by(other)
    gc.collect()  # the error that is raised here knows the graph that raised it
    assert fake_cuda.graphs == 1
    later = Text(runner).read(1, 2, 3)
    assert fake_cuda.graphs == 2
    assert later.is_as_by(other)
    assert warnings_of(caplog) == [
        "no memory for a CUDA graph (CUDA out of memory. Tried to allocate 2.00 MiB.): this text goes on one operation "
        "after the other"
    ]


def test_out_of_memory_without_a_graph_is_an_error(
    models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit either way is told as ever."""
    runner, _ = models
    text = Text(runner).read(1)

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(type(runner.architecture), "compute", full)
    with pytest.raises(torch.OutOfMemoryError):
        text.read(2)

"""Every kind of slot, alone and mixed in one stack: what a model says never depends on how its state came to be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.backends import Backend
from minigen.checkpoints.state_file import load_state, save_state
from minigen.errors import UsageError
from minigen.generation.branches import Branches
from minigen.generation.reader import Runner
from minigen.layers.attention import Attention
from minigen.layers.block import Block, ConvolutionBlock, PreNormBlock
from minigen.layers.cells import CELLS, RecurrentBlock
from minigen.layers.feed_forward import GatedFeedForward
from minigen.layers.norm import RMSNorm
from minigen.layers.param import as_arrays, initialise, linear_shapes
from minigen.layers.positions import Rotary
from minigen.layers.short_convolution import FEW, ShortConvolution
from minigen.layers.slot import LayerSlots, LentSlot, Slot
from minigen.layers.step import Step
from minigen.models.buffers import SLACK
from minigen.models.causal import CausalLM
from minigen.models.state import State
from minigen.tree import flatten, unflatten

WITH_KERNELS = True  # see conftest.py

VOCAB, WIDTH, HEAD, WINDOW = 31, 16, 8, 5
Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RotatingAttention(Attention):
    """Keeps the newest keys and values alone."""

    def slots(self) -> dict[str, Slot]:
        assert self.window is not None
        slot = Slot((self.kv_heads, self.head_dim), self.window)
        return {"k": slot, "v": slot}


@dataclass(frozen=True)
class BorrowingAttention(Attention):
    """Has queries alone, and looks at the keys and values of the first layer."""

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        return {
            "q": linear_shapes(width, self.sizes[0], False),
            "out": linear_shapes(self.sizes[0], width, False),
        }

    def slots(self) -> dict[str, LentSlot]:  # type: ignore[override]
        return {name: LentSlot(0, name) for name in ("k", "v")}

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, slots: LayerSlots | None) -> Any:
        B, T, _ = x.shape
        q = ops.permute(
            ops.linear(x, **p["q"]).reshape(B, T, self.heads, self.head_dim), (0, 2, 1, 3)
        )
        k, v = (step.borrow(slot) for slot in self.slots().values())

        def turn(x: Any, step: Step) -> Any:
            return self.rotary.apply(ops, x, step) if self.rotary else x

        y = step.attend(ops, q, k, v, turn, self.window, 1 / math.sqrt(self.head_dim))
        return ops.linear(ops.permute(y, (0, 2, 1, 3)).reshape(B, T, -1), **p["out"])


Array = Any
NORM, FEED = RMSNorm(1e-5), GatedFeedForward(24, "silu")


def attending(kind: type[Attention], window: int | None = None) -> Block:
    return PreNormBlock(kind(4, 2, HEAD, rotary=Rotary(HEAD), window=window), FEED, NORM)


PLAIN, ROTATING = attending(Attention), attending(RotatingAttention, WINDOW)
CONVOLVING = ConvolutionBlock(ShortConvolution(WIDTH, 3), FEED, NORM)
RECURRENT = RecurrentBlock(CELLS["lstm"], WIDTH, WIDTH)
STACKS: dict[str, tuple[Block, ...]] = {
    "all keys": (PLAIN, PLAIN),
    "the newest keys": (ROTATING, ROTATING),
    "all and the newest": (ROTATING, PLAIN, ROTATING),
    "keys of an earlier layer": (PLAIN, attending(BorrowingAttention)),
    "newest keys of an earlier layer": (ROTATING, attending(BorrowingAttention, WINDOW)),
    "convolutions": (CONVOLVING, CONVOLVING),
    "convolutions and keys": (CONVOLVING, PLAIN, CONVOLVING),
    "a recurrence, the newest keys, a convolution": (RECURRENT, ROTATING, CONVOLVING),
}
EXACT = {"all keys", "keys of an earlier layer"}  # go back to any length


@pytest.fixture(params=STACKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runner(name: str, ops: Backend) -> Runner:
    """A random model, in which every parameter counts."""
    model = CausalLM(VOCAB, WIDTH, 300, STACKS[name], NORM, tied=False)
    rng = np.random.default_rng(1)
    drawn = {
        path: x + 0.3 * rng.standard_normal(x.shape)
        for path, x in flatten(initialise(model.shapes())).items()
    }
    return Runner(ops, model, as_arrays(ops, unflatten(drawn)))


def tokens(*shape: int, seed: int = 0) -> Numbers:
    return np.random.default_rng([seed, *shape]).integers(0, VOCAB, shape)


def read(runner: Runner, ids: Numbers, state: Any = None) -> Numbers:
    ids = np.atleast_2d(ids)
    found = runner.architecture.forward(runner.ops, runner.params, runner.ops.asarray(ids), state)
    return runner.ops.numpy(found).copy()


def same(got: Numbers, want: Numbers) -> None:
    assert got.shape == want.shape
    assert want.std() > 0.1
    assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()


@pytest.mark.parametrize(
    "chunks", [(1,) * 30, (7, 1, 2, 9, 1, 10), (FEW + 4, 1, FEW - 7), (12, 18)], ids=str
)
def test_in_pieces(runner: Runner, chunks: tuple[int, ...]) -> None:
    ids = tokens(2, 30)[:, : sum(chunks)]
    want, state = read(runner, ids), runner.architecture.new_state(runner.ops, 2, 30)
    for end, T in zip(np.cumsum(chunks), chunks, strict=True):
        same(read(runner, ids[:, end - T : end], state), want[:, end - T : end])


@pytest.mark.parametrize("first", [9, FEW + 6])
def test_padded_rows(runner: Runner, first: int) -> None:
    lengths = (first, 1, first - 4)
    rows = [tokens(length + 8, seed=length) for length in lengths]
    starts = np.array([first - length for length in lengths])
    ids = np.array([[3] * start + list(row) for start, row in zip(starts, rows, strict=True)])
    state = runner.architecture.new_state(runner.ops, 3, first + 8, starts)
    parts = [read(runner, ids[:, :first], state)]
    parts += [read(runner, ids[:, t : t + 1], state) for t in range(first, first + 8)]
    got = np.concatenate(parts, axis=1)
    for row, start, logits in zip(rows, starts, got, strict=True):
        same(logits[start:][None], read(runner, row))


def test_padded_rows_read_by_columns(runner: Runner) -> None:
    """Passes that a backend may record: while one row is still padding, and after that."""
    starts, length = np.array([0, 6]), 16
    rows = [tokens(length - start, seed=start) for start in starts]
    ids = np.array([[3] * start + list(row) for start, row in zip(starts, rows, strict=True)])
    state = runner.architecture.new_state(runner.ops, 2, length, starts)
    columns = [runner.decode(column, state) for column in ids.T.tolist()]
    got = np.concatenate([runner.ops.numpy(logits).copy() for logits in columns], axis=1)
    for row, start, logits in zip(rows, starts, got, strict=True):
        same(logits[start:][None], read(runner, row))


def test_back_to_every_length(runner: Runner, name: str) -> None:
    ids, others = tokens(1, 120), tokens(1, 9, seed=1)
    for length in range(0, 121, 10):
        state = runner.architecture.new_state(runner.ops, 1, 160)
        for first in range(0, 116, 58):
            read(runner, ids[:, first : first + 58], state)
        for place in range(116, 120):
            read(runner, ids[:, place : place + 1], state)
        reached = state.reachable(length)
        assert reached <= length
        assert reached == length or name not in EXACT
        state.rewind(reached)
        assert state.length == reached
        want = read(runner, np.concatenate([ids[:, :length], others], axis=1))
        if reached < length:
            same(read(runner, ids[:, reached:length], state), want[:, reached:length])
        same(read(runner, others, state), want[:, length:])


def test_a_ring_goes_back_by_its_slack(ops: Backend) -> None:
    model = CausalLM(VOCAB, WIDTH, 300, (ROTATING,), NORM)
    runner = Runner(ops, model, as_arrays(ops, initialise(model.shapes(), 2)))
    state = model.new_state(ops, 1, 1)
    assert state.capacity is None
    read(runner, tokens(1, 200), state)
    assert [state.reachable(length) for length in (199, 200 - SLACK, 199 - SLACK)] == [
        199,
        200 - SLACK,
        0,
    ]
    state.rewind(200 - SLACK)
    read(runner, tokens(1, 10), state)
    assert (
        state.reachable(150 - SLACK) == 0
    )  # what was there is gone though the text is shorter now


def test_forks_go_their_own_ways(runner: Runner) -> None:
    ids, more, turn = tokens(3, 12), tokens(3, 8, seed=1), tokens(4, 8, seed=2)
    state = runner.architecture.new_state(runner.ops, 3, 40)
    read(runner, ids, state)
    order = [2, 0, 0, 1]
    other = state.fork(runner.ops, order)
    for at in range(0, 8, 2):
        want = read(runner, np.concatenate([ids[order], turn[:, : at + 2]], axis=1))[:, -2:]
        same(read(runner, turn[:, at : at + 2], other), want)
        want = read(runner, np.concatenate([ids, more[:, : at + 2]], axis=1))[:, -2:]
        same(read(runner, more[:, at : at + 2], state), want)
    state.rewind(12)
    same(
        read(runner, turn[:3], state), read(runner, np.concatenate([ids, turn[:3]], axis=1))[:, 12:]
    )


def test_branches_are_one_by_one(runner: Runner) -> None:
    """A tree of nodes that comes in three passes, deeper than the window."""
    parents = [-1, 0, 0, -1, 3, 1, 5, 6, 7, 4, 8, 10, 2, 11, 9]
    ids = tokens(1, 14)
    drawn = tokens(len(parents), seed=5)
    state = runner.architecture.new_state(runner.ops, 1, 14)
    read(runner, ids, state)
    for _ in range(2):  # after `close` the state is as it was
        grown, found = Branches(runner, state), []
        for first, last in ((0, 4), (4, 9), (9, 15)):
            got = grown.append(drawn[first:last], parents[first:last], range(last - first))
            found.append(runner.ops.numpy(got).copy())
        grown.close()
        for node, logits in enumerate(np.concatenate(found)):
            line, at = [], node
            while at >= 0:
                line.append(int(drawn[at]))
                at = parents[at]
            same(logits[None], read(runner, np.array([*ids[0], *line[::-1]]))[0, -1:])
    same(
        read(runner, tokens(1, 3), state),
        read(runner, np.concatenate([ids, tokens(1, 3)], axis=1))[:, 14:],
    )


def test_on_disk(runner: Runner, tmp_path: Path) -> None:
    ids = tokens(2, 21)
    state = runner.architecture.new_state(runner.ops, 2, 40)
    read(runner, ids[:, :14], state)
    save_state(runner.ops, state, tmp_path / "state")
    loaded, _ = load_state(runner.ops, runner.architecture, tmp_path / "state")
    loaded.reserve(runner.ops, 40)
    same(read(runner, ids[:, 14:], loaded), read(runner, ids)[:, 14:])
    assert loaded.reachable(20) in (14, 20)


def test_recorded_passes(runner: Runner) -> None:
    """As a backend that records them reads them, with room that grows meanwhile."""
    ids = tokens(1, 40)
    state = runner.architecture.new_state(runner.ops, 1, 24)
    runner.read(ids[:, :9], state)
    for place in range(9, 40):
        if place == 22:
            state.reserve(runner.ops, 60)
        got = runner.ops.numpy(runner.read(ids[:, place : place + 1], state)).copy()
        same(got, read(runner, ids[:, : place + 1])[:, -1:])


def test_fewer_bits(ops: Backend) -> None:
    """Keys and values, and nothing else, are held in fewer bits."""
    model = CausalLM(VOCAB, WIDTH, 300, (CONVOLVING, PLAIN, ROTATING), NORM).with_kv_bits(8)
    kinds = {
        name: slot.bits
        for slots in model.slots
        for name, slot in slots.items()
        if isinstance(slot, Slot)
    }
    assert kinds == {"ago1": None, "ago2": None, "k": 8, "v": 8}
    state = model.new_state(ops, 1, 10)
    assert (state.kind, state.bits, state.capacity) == ("kv8+recurrent", 8, 10)
    with pytest.raises(UsageError, match="has no keys and values"):
        replace(model, blocks=(CONVOLVING,)).with_kv_bits(8)


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_what_one_slot_had_may_be_put_into_another(ops: Backend, order: tuple[str, str]) -> None:
    """In whatever order: two slots change places."""
    slots = {"a": Slot((3,)), "b": Slot((3,))}
    state = State.empty(ops, [slots], 2, 1)
    for name, number in (("a", 1.0), ("b", 2.0)):
        state.layer(0).put(name, ops.asarray(np.full((2, 3), number)))
    state.commit(ops)
    got = {name: state.layer(0).get(ops, name) for name in slots}
    for name in order:
        state.layer(0).put(name, got["b" if name == "a" else "a"])
    state.commit(ops)
    assert [float(ops.numpy(state.contents[0, name]).mean()) for name in ("a", "b")] == [2.0, 1.0]

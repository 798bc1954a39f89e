"""What a model remembers: reading in pieces, padded rows, rewind and fork never change what it says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.backends import Backend, get_backend
from minigen.errors import ContextError
from minigen.families import HubConfig, find_family
from minigen.layers.cells import CELLS, RecurrentBlock, cell_shapes
from minigen.layers.param import as_arrays, initialise
from minigen.layers.step import Step
from minigen.models.architecture import Architecture
from minigen.tree import flatten, unflatten

WITH_KERNELS = True  # see conftest.py

Numbers = np.ndarray[Any, Any]
VOCAB, WINDOW = 29, 5
LLAMA = {"vocab_size": VOCAB, "hidden_size": 20, "intermediate_size": 14, "num_hidden_layers": 2, "head_dim": 6,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
CELL = {"vocab_size": VOCAB, "embedding_size": 7, "hidden_size": 11, "num_layers": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCAB,
        "n_embd": 12,
        "n_head": 3,
        "n_layer": 2,
        "n_positions": 64,
    },
    "llama": {"model_type": "llama", **LLAMA},
    "mistral": {"model_type": "mistral", **LLAMA, "sliding_window": WINDOW},
    "mistral-1": {"model_type": "mistral", **LLAMA, "sliding_window": 1},
    **{cell: {"model_type": f"{cell}_lm", **CELL} for cell in CELLS},
}
DECODERS = ("gpt2", "llama", "mistral", "mistral-1")
RAGGED = (1, 9, 4)  # lengths of prompts: the padding of the first exceeds the window


@dataclass(frozen=True)
class Subject:
    """A random model, in which every parameter counts."""

    ops: Backend
    architecture: Architecture
    params: Any

    def read(self, ids: Any, state: Any = None, at: Any = None) -> Numbers:
        """Logits of tokens (B, T) that follow those of the state."""
        return self.ops.numpy(
            self.architecture.forward(
                self.ops, self.params, self.ops.asarray(np.asarray(ids)), state, at
            )
        )

    def new_state(self, batch: int, length: int = 64, starts: Any = None) -> Any:
        return self.architecture.new_state(self.ops, batch, length, starts)


def subject(name: str, ops: Backend) -> Subject:
    config = CONFIGS[name]
    architecture = find_family(config).build(HubConfig(config))
    rng = np.random.default_rng(1)
    drawn = {
        path: x + 0.4 * rng.standard_normal(x.shape)
        for path, x in flatten(initialise(architecture.shapes())).items()
    }
    return Subject(ops, architecture, as_arrays(ops, unflatten(drawn)))


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str, ops: Backend) -> Subject:
    return subject(name, ops)


decoders = pytest.mark.parametrize("name", DECODERS, indirect=True)
recurrent = pytest.mark.parametrize("name", CELLS, indirect=True)


def tokens(*shape: int, seed: int = 0) -> Numbers:
    return np.random.default_rng([seed, *shape]).integers(0, VOCAB, shape)


def same(got: Numbers, want: Numbers) -> None:
    assert got.shape == want.shape
    assert want.std() > 0.3, "too flat to show an error"
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


# -- reading ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "chunks",
    [(23,), (1,) * 23, (7, 1, 2, 9, 1, 3), (2, 3, 1, 4, 4, 1, 8), (1, 1, 20, 1), (5, 5, 5, 5, 3)],
    ids=str,
)
def test_chunks(model: Subject, chunks: tuple[int, ...]) -> None:
    ids = tokens(2, 23)
    want, state = model.read(ids), model.new_state(2, 23)
    for end, T in zip(np.cumsum(chunks), chunks, strict=True):
        same(model.read(ids[:, end - T : end], state), want[:, end - T : end])
        assert state.length == end
    same(model.read(ids, model.new_state(2, 30), at=(-1,)), want[:, -1:])


@pytest.mark.parametrize("chunks", [(9,), (1,) * 9, (3, 4, 2), (2, 6, 1)], ids=str)
def test_ragged_rows(model: Subject, chunks: tuple[int, ...]) -> None:
    """Rows padded on the left say what each says alone, at every step of a continued decode and after a fork."""
    rows = [tokens(n + 14, seed=n) for n in RAGGED]
    alone = [model.read(row[None])[0] for row in rows]
    starts = np.array([max(RAGGED) - n for n in RAGGED])
    ids = np.array([[3] * start + list(row) for start, row in zip(starts, rows, strict=True)])
    state, order, end = model.new_state(3, 23, starts), [0, 1, 2], 0
    for T in (*chunks, 1, 1, 3, 1, 6, 1, 1):
        if end == max(RAGGED) + 5:
            order = [2, 0, 0]
            state = state.fork(model.ops, order)
        got = model.read(ids[order, end : end + T], state)
        end += T
        for i, row in enumerate(order):
            real = min(T, end - int(starts[row]))
            if real > 0:
                same(got[i, T - real :], alone[row][end - starts[row] - real : end - starts[row]])
    assert end == ids.shape[1]


@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize(("length", "T"), [(0, 1), (0, 9), (3, 4), (8, 1), (11, 2), (20, 6)])
@pytest.mark.parametrize("starts", [None, [0, 7, 3], [10, 0, 0]])
def test_mask(
    ops: Backend, length: int, T: int, starts: list[int] | None, window: int | None
) -> None:
    """A token sees what is real, not later and within the window; padding sees something, lest it be NaN."""
    step = Step(length, T, None if starts is None else np.array(starts))
    mask, S, total = step.mask(ops, window), step.keys_needed(window), length + T
    if mask is None or isinstance(mask, str):
        assert T == 1 or mask == "causal"
        seen = np.tri(T, S, S - T, dtype=bool)[None]
    else:
        seen = ops.numpy(mask)[:, 0]
    key, query = np.arange(total), np.arange(length, total)[:, None]
    for row, start in enumerate(starts or [0]):
        want = (key <= query) & (key >= start) & (key > query - (window or total))
        real = query[:, 0] >= start
        assert not want[real, : total - S].any()  # nothing is left out that a token can see
        assert np.array_equal(seen[row % len(seen)][real], want[real, total - S :])
        assert seen[row % len(seen)].any(-1).all()


# -- rewind -----------------------------------------------------------------------------------------------------------
@decoders
@pytest.mark.parametrize("length", [0, 1, 4, 10, 17])
def test_rewind(model: Subject, length: int) -> None:
    ids, others = tokens(2, 17), tokens(2, 12, seed=1)
    state = model.new_state(2)
    for chunk in (ids[:, :8], ids[:, 8:9], ids[:, 9:]):
        model.read(chunk, state)
    assert state.reachable(length) == length
    state.rewind(length)
    assert state.length == length
    want = model.read(np.concatenate([ids[:, :length], others], axis=1))[:, length:]
    same(model.read(others[:, :7], state), want[:, :7])
    for t in range(7, 12):
        same(model.read(others[:, t : t + 1], state), want[:, t : t + 1])


@recurrent
@pytest.mark.parametrize(
    ("length", "reached"),
    [(0, 0), (7, 0), (8, 8), (9, 8), (71, 8), (72, 72), (80, 72), (83, 83), (84, 83), (90, 90)],
)
def test_recurrent_rewind(model: Subject, length: int, reached: int) -> None:
    """It goes back to a copy: kept at 0, after several tokens at once (8, 83) and every 64 steps (72)."""
    ids, others = tokens(2, 90), tokens(2, 5, seed=1)
    state = model.new_state(2)
    for T in (8, *[1] * 72, 3, *[1] * 7):
        model.read(ids[:, state.length : state.length + T], state)
    assert state.reachable(length) == reached
    state.rewind(reached)
    assert state.length == reached
    want = model.read(np.concatenate([ids[:, :length], others], axis=1))[:, reached:]
    if reached < length:
        same(model.read(ids[:, reached:length], state), want[:, : length - reached])
    same(model.read(others, state), want[:, length - reached :])
    kept = min(reached, 83)  # a copy can be gone back to again
    assert state.reachable(reached) == kept
    state.rewind(kept)
    same(
        model.read(others, state),
        model.read(np.concatenate([ids[:, :kept], others], axis=1))[:, kept:],
    )


def test_rewind_of_ragged_rows(model: Subject) -> None:
    """Back into the prompt, where one row is still padding."""
    starts = np.array([6, 0])
    ids, others = tokens(2, 12), tokens(2, 7, seed=1)
    state = model.new_state(2, 64, starts)
    model.read(ids[:, :3], state)
    model.read(ids[:, 3:], state)
    state.rewind(3)
    got = model.read(others, state)
    same(got[:1, 3:], model.read(others[:1, 3:]))
    same(got[1:], model.read(np.concatenate([ids[1:, :3], others[1:]], axis=1))[:, 3:])


@pytest.mark.parametrize("length", [-1, 6])
def test_rewind_to_a_length_it_never_had(model: Subject, length: int) -> None:
    state = model.new_state(1)
    model.read(tokens(1, 5), state)
    with pytest.raises(ValueError, match=rf"cannot rewind to {length} tokens: the state has 5"):
        state.rewind(length)
    assert state.length == 5


@recurrent
def test_copies_are_few(model: Subject) -> None:
    """And fewer the further back they are."""
    state = model.new_state(1)
    for token in tokens(1000):
        model.read([[token]], state)
    assert [copy.length for copy in state.snapshots] == [0, 256, 512, 640, 768, 832, 896, 960]
    assert [state.reachable(length) for length in (1000, 999, 831, 255)] == [1000, 960, 768, 0]
    with pytest.raises(ValueError, match="cannot rewind to 999 tokens: 960 are reachable"):
        state.rewind(999)
    state.rewind(640)
    assert (state.length, len(state.snapshots)) == (640, 4)
    state.rewind(0)
    same(model.read(tokens(1, 9), state), model.read(tokens(1, 9)))


@recurrent
def test_a_state_that_was_loaded_goes_back_to_its_length_and_to_nothing(model: Subject) -> None:
    state, loaded = model.new_state(1), model.new_state(1)
    model.read(tokens(1, 40), state)
    loaded.restore(state.arrays(), 40)
    model.read(tokens(1, 9), loaded)
    assert (loaded.reachable(48), loaded.reachable(40), loaded.reachable(39)) == (40, 40, 0)
    loaded.rewind(0)
    same(model.read(tokens(1, 9), loaded), model.read(tokens(1, 9)))


@recurrent
def test_a_mark_can_be_gone_back_to(model: Subject) -> None:
    state = model.new_state(1)
    model.read(tokens(1, 5), state)
    model.read(tokens(1, 1), state)
    assert state.reachable(6) == 6
    state.mark()
    model.read(tokens(1, 3), state)
    state.rewind(6)
    want = model.read(np.concatenate([tokens(1, 5), tokens(1, 1), tokens(1, 4)], axis=1))[:, 6:]
    same(model.read(tokens(1, 4), state), want)


@recurrent
def test_a_pass_that_fails_changes_nothing(model: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    state = model.new_state(1)
    model.read(tokens(1, 5), state)

    def fail(*args: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(type(state), "commit", fail)
        with pytest.raises(RuntimeError):
            model.read(tokens(1, 3), state)
    same(
        model.read(tokens(1, 4), state),
        model.read(np.concatenate([tokens(1, 5), tokens(1, 4)], axis=1))[:, 5:],
    )


# -- fork -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rows", "order"),
    [(1, [0, 1, 2]), (2, [0, 0, 1, 1, 2, 2]), ([2, 0], [2, 0]), ([1, 1, 0, 2], [1, 1, 0, 2])],
)
def test_fork(model: Subject, rows: Any, order: list[int]) -> None:
    """The fork and the first go on apart, one after the other's every step, and rewind apart."""
    ids = tokens(3, 9)
    state = model.new_state(3)
    model.read(ids, state)
    other = state.fork(model.ops, rows)
    assert (other.batch, other.length, state.batch) == (len(order), 9, 3)
    more, turn = tokens(3, 8, seed=1), tokens(len(order), 8, seed=2)
    want = model.read(np.concatenate([ids, more], axis=1))[:, 9:]
    wanted = model.read(np.concatenate([ids[order], turn], axis=1))[:, 9:]
    at = 0
    for T in (1, 3, 1, 1, 2):
        same(model.read(turn[:, at : at + T], other), wanted[:, at : at + T])
        same(model.read(more[:, at : at + T], state), want[:, at : at + T])
        at += T
    other.rewind(9)
    assert state.length == 17
    same(model.read(turn, other), wanted)
    state.rewind(9)
    same(model.read(more, state), want)


# -- room -------------------------------------------------------------------------------------------------------------
@decoders
def test_room(model: Subject) -> None:
    ids = tokens(2, 20)
    want, state = model.read(ids), model.new_state(2, 7)
    same(model.read(ids[:, :6], state), want[:, :6])
    assert state.capacity == 7
    with pytest.raises(
        ContextError, match="2 more tokens do not fit after 6: the state has room for 7"
    ):
        model.read(ids[:, 6:8], state)
    with pytest.raises(ContextError):
        state.check_room(2)
    state.check_room(1)
    assert state.length == 6
    state.reserve(model.ops, 5)
    assert state.capacity == 7
    state.reserve(model.ops, 20)
    assert state.capacity == 20
    same(model.read(ids[:, 6:], state), want[:, 6:])
    with pytest.raises(ContextError):
        model.read(ids[:, :1], state)


@recurrent
def test_a_recurrent_state_has_room(model: Subject) -> None:
    ids = tokens(1, 12)
    state = model.new_state(1, 3)
    state.reserve(model.ops, 2)
    assert state.capacity is None
    same(model.read(ids, state), model.read(ids))


def test_arrays(model: Subject) -> None:
    """What is worth saving is as long as what was read, and named by layer."""
    state = model.new_state(2, 30)
    model.read(tokens(2, 9), state)
    shapes = {key: tuple(x.shape) for key, x in state.arrays().items()}
    if state.kind == "kv":
        G, D = (
            model.architecture.blocks[0].attention.kv_heads,
            model.architecture.blocks[0].attention.head_dim,
        )
        assert shapes == {f"{layer}.{part}": (2, G, 9, D) for layer in (0, 1) for part in "kv"}
    else:
        memory = model.architecture.blocks[0].cell.memory
        assert shapes == {f"{layer}.{slot}": (2, 11) for layer in (0, 1) for slot in memory}


# -- cells ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("inputs", "hidden", "T"), [(7, 5, 1), (3, 11, 6)])
def test_cells_are_those_of_torch(
    ops: Backend, cell: str, inputs: int, hidden: int, T: int
) -> None:
    torch = pytest.importorskip("torch")
    drawn = {
        key: 2 * x
        for key, x in initialise(cell_shapes(CELLS[cell], inputs, hidden), seed=T).items()
    }
    reference = getattr(torch.nn, cell.upper())(inputs, hidden, batch_first=True)
    reference.load_state_dict({f"{key}_l0": torch.tensor(x) for key, x in drawn.items()})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, T, inputs)).astype(np.float32)
    start = [rng.standard_normal((3, hidden)).astype(np.float32) for _ in CELLS[cell].memory]
    with torch.no_grad():
        first = [torch.tensor(s)[None] for s in start]
        want, after = reference(torch.tensor(x), tuple(first) if len(first) > 1 else first[0])
    block, before = RecurrentBlock(CELLS[cell], inputs, hidden), tuple(map(ops.asarray, start))
    got, state = block.run(ops, as_arrays(ops, drawn), ops.asarray(x), Step(0, T), before)
    assert np.abs(ops.numpy(got) - want.numpy()).max() <= 1e-5
    for mine, other in zip(state, after if isinstance(after, tuple) else [after], strict=True):
        assert np.abs(ops.numpy(mine) - other[0].numpy()).max() <= 1e-5


# -- any order of all of it -------------------------------------------------------------------------------------------
DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 8)),
        st.tuples(st.just("rewind"), st.floats(0, 1)),
        st.tuples(st.just("fork"), st.lists(st.floats(0, 0.999), min_size=1, max_size=3)),
    ),
    min_size=2,
    max_size=9,
)


def check_deeds(model: Subject, starts: list[int] | None, deeds: list[tuple[str, Any]]) -> None:
    """`rows` has what each row of the state has read, padding and all: it must say what a new reader of that says."""
    rng = np.random.default_rng(0)
    rows = np.zeros((2, 0), int)
    padding = np.array([0, 0] if starts is None else starts)
    state = model.new_state(2, 80, None if starts is None else padding)
    for deed, how in [*deeds, ("append", 2)]:
        if deed == "append":
            rows = np.concatenate([rows, rng.integers(0, VOCAB, (len(rows), how))], axis=1)
        elif deed == "rewind":
            length = math.floor(how * rows.shape[1])
            assert state.reachable(length) <= length
            state.rewind(state.reachable(length))
            rows = rows[:, :length]
        else:
            chosen = [math.floor(part * len(rows)) for part in how]
            state, rows, padding = state.fork(model.ops, chosen), rows[chosen], padding[chosen]
        T = rows.shape[1] - state.length
        if T == 0:
            continue
        got = model.read(rows[:, state.length :], state)
        assert state.length == rows.shape[1]
        for row, start, logits in zip(rows, padding, got, strict=True):
            if start < len(row):
                want = model.read(row[None, start:])[0]
                real = min(T, len(want))
                assert np.abs(logits[T - real :] - want[-real:]).max() <= 2e-5 * max(
                    1, np.abs(want).max()
                )


@pytest.mark.parametrize("name", ["gpt2", "mistral", "lstm"])
def test_any_sequence_of_deeds(backend: str, device: str, name: str) -> None:
    model = subject(name, get_backend(backend, device, "float32"))

    @settings(deadline=None, derandomize=True, max_examples=40, database=None)
    @given(starts=st.none() | st.lists(st.integers(0, 9), min_size=2, max_size=2), deeds=DEEDS)
    def check(starts: list[int] | None, deeds: list[tuple[str, Any]]) -> None:
        check_deeds(model, starts, deeds)

    check()

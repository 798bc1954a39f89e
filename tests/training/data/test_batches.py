"""Batches as a function of (seed, step, micro), and the validation side once in order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.errors import UsageError
from minigen.training.data import Batches, DataError, Tokens, choose_mode, validation
from minigen.training.data.shards import DOCUMENT, About, Shard

quick = settings(deadline=None, derandomize=True, max_examples=100)
LENGTHS = st.lists(st.integers(1, 12), min_size=2, max_size=12)
END = 9999


def make(
    lengths: Sequence[int],
    chosen: Sequence[int] | None = None,
    masked: bool = False,
    end: bool = False,
) -> Tokens:
    """Documents of the ids 1, 2, 3, ..., with every third one masked; a byte a token."""
    count = sum(lengths)
    ids = np.arange(1, count + 1, dtype=np.uint16)
    mask = (ids % 3 > 0).astype(np.uint8) if masked else None
    index = np.zeros(len(lengths), DOCUMENT)
    index["tokens"] = index["bytes"] = lengths
    index["start"] = np.cumsum(lengths) - lengths
    index["first"] = 1
    about = About(
        1, "k", "<u2", count, len(lengths), count, END if end else None, masked, ["f.txt"]
    )
    places = np.arange(len(lengths)) if chosen is None else np.array(chosen)
    return Tokens(Shard(about, ids, mask, index), places)


def all_ids(tokens: Tokens) -> npt.NDArray[np.int64]:
    return np.concatenate([tokens.read(int(d["start"]), int(d["tokens"]))[0] for d in tokens.index])


@quick
@given(
    lengths=LENGTHS,
    batch=st.integers(1, 5),
    context=st.integers(1, 20),
    seed=st.integers(0, 2**64 - 1),
)
def test_each_token_once_an_epoch(lengths: list[int], batch: int, context: int, seed: int) -> None:
    tokens = make(lengths, range(0, len(lengths), 2))
    own = sorted(all_ids(tokens).tolist())
    total = len(own)
    context = min(context, total - 1)
    if not context:
        return
    batches = Batches(tokens, batch, context, seed, mode="documents")
    assert batches.tokens.tokens == total
    for epochs in (1, context):  # `context` epochs are `total` rows, exactly
        rows = -(-epochs * total // context)
        found = [batches.batch(step) for step in range(-(-rows // batch))]
        ids = np.concatenate([b.ids for b in found])[:rows].reshape(-1).tolist()
        # The last row goes on into the next epoch, whose tokens there are each other's neighbours, so none twice.
        counts = np.unique(ids, return_counts=True)
        assert counts[0].tolist() == own
        assert set(counts[1].tolist()) <= {epochs, epochs + 1}
        assert len(ids) == rows * context
    assert set(counts[1].tolist()) == {context}
    for b in found:
        assert (b.ids[:, 1:] == b.targets[:, :-1]).all()
        inside = b.targets == b.ids + 1
        # A token is followed by its own document's next one, unless it ends a document.
        ends = np.isin(b.ids, (tokens.index["start"] + tokens.index["tokens"]))
        assert (inside | ends).all()


@quick
@given(
    lengths=LENGTHS,
    batch=st.integers(1, 4),
    micros=st.integers(1, 3),
    mode=st.sampled_from(["documents", "windows"]),
)
def test_micros_are_parts_of_one_batch(
    lengths: list[int], batch: int, micros: int, mode: str
) -> None:
    tokens = make(lengths, masked=True)
    context = max(1, min(5, tokens.tokens - 1))
    parts = Batches(tokens, batch, context, 7, mode=mode, micros=micros)  # type: ignore[arg-type]
    whole = Batches(tokens, batch * micros, context, 7, mode=mode)  # type: ignore[arg-type]
    for step in (40, 0, 3, 10**12):
        one = whole.batch(step)
        for name in ("ids", "targets", "weights"):
            pieces = [getattr(parts.batch(step, micro), name) for micro in range(micros)]
            assert np.array_equal(np.concatenate(pieces), getattr(one, name))
    assert parts.tokens_per_step == whole.tokens_per_step == batch * micros * context
    assert parts.epoch_of(6) == 6 * batch * micros * context / tokens.tokens


@pytest.mark.parametrize("mode", ["documents", "windows"])
def test_a_function_of_seed_and_step(mode: str) -> None:
    tokens = make([5, 9, 30, 2, 7, 11] * 20, masked=True)
    one, two, other = (Batches(tokens, 4, 16, seed, mode=mode) for seed in (3, 3, 4))  # type: ignore[arg-type]
    first = [one.batch(step) for step in range(80)]
    for step in (79, 0, 41, 3, 80 // 2):
        again = two.batch(step)
        assert again.ids.dtype == again.targets.dtype == np.int64
        assert again.weights.dtype == np.float32
        assert np.array_equal(again.ids, first[step].ids)
        assert np.array_equal(again.weights, (again.targets % 3 > 0).astype(np.float32))
        assert not np.array_equal(other.batch(step).ids, first[step].ids)
    assert len({b.ids.tobytes() for b in first}) == 80
    # The same on every machine, with every version of NumPy.
    digest = hashlib.sha256(
        np.concatenate([b.ids for b in first]).astype("<i8").tobytes()
    ).hexdigest()
    assert digest[:16] == {"documents": "bb71569f44a328b5", "windows": "21af4b80a0d85bd3"}[mode]


def test_windows_are_everywhere() -> None:
    tokens = make([50, 50], [1])
    ids = np.concatenate(
        [Batches(tokens, 64, 10, 0, mode="windows").batch(step).ids for step in range(20)]
    )
    assert sorted(set(ids[:, 0].tolist())) == list(
        range(51, 91)
    )  # all that leave a target for the last token
    assert (np.diff(ids) == 1).all()


@quick
@given(
    lengths=LENGTHS,
    batch=st.integers(1, 5),
    context=st.integers(1, 20),
    mode=st.sampled_from(["documents", "windows"]),
    end=st.booleans(),
    masked=st.booleans(),
)
def test_validation_predicts_each_token_once(
    lengths: list[int], batch: int, context: int, mode: str, end: bool, masked: bool
) -> None:
    tokens = make(lengths, range(1, len(lengths), 2), masked, end)
    own = all_ids(tokens).tolist()
    if mode == "windows":
        expected = own[1:]
    else:
        firsts = set((tokens.index["start"] + 1).tolist())
        expected = [i for i in own if end or i not in firsts]
    expected = [i for i in expected if not masked or i % 3]
    if not expected:
        with pytest.raises(DataError, match=r"f\.txt: \d+ tokens for validation are too few"):
            validation(tokens, batch, context, mode)  # type: ignore[arg-type]
        return
    found = validation(tokens, batch, context, mode)  # type: ignore[arg-type]
    rows = list(found)
    assert len(rows) == len(found)
    assert all(b.ids.shape == b.targets.shape == b.weights.shape == (batch, context) for b in rows)
    assert np.concatenate([b.targets[b.weights > 0] for b in rows]).tolist() == expected
    assert found.targets == len(expected)
    if not masked:
        assert found.bytes == len(expected)
    for b in rows:
        asked = b.weights > 0
        assert (((b.targets == b.ids + 1) | (mode == "windows") | (b.ids == END))[asked]).all()
        if mode == "documents":  # no row holds two documents
            document = np.searchsorted(tokens.index["start"], b.targets - 1, "right")
            for row, weights in zip(document, b.weights, strict=True):
                assert len(set(row[weights > 0].tolist())) <= 1


def test_what_is_too_short() -> None:
    tokens = make([5, 5], [0])
    with pytest.raises(
        DataError, match=r"f\.txt: 5 tokens .* a context of 5: lower the context to at most 4"
    ):
        Batches(tokens, 2, 5, 0)
    assert Batches(tokens, 2, 4, 0).batch(0).ids.shape == (2, 4)
    for batch, context, micros in ((0, 4, 1), (2, 0, 1), (2, 4, 0)):
        with pytest.raises(UsageError, match="is 0: it must be a whole number >= 1"):
            Batches(tokens, batch, context, 0, micros=micros)
    with pytest.raises(UsageError, match="seed is -1"):
        Batches(tokens, 2, 4, -1)
    with pytest.raises(UsageError, match="mode is 'x'"):
        Batches(tokens, 2, 4, 0, mode="x")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch is 0"):
        validation(tokens, 0, 4)
    assert (choose_mode(tokens), choose_mode(make([3, 3]))) == ("windows", "documents")

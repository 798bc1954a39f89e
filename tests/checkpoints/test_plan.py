"""Names with indices of their own, tensors that are stacked, and several stacks of blocks in one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from minigen.backends import Backend
from minigen.backends.base import Quantized
from minigen.checkpoints.checkpoint import read_headers
from minigen.checkpoints.loading import load_params
from minigen.checkpoints.plan import plan
from minigen.checkpoints.saving import to_tensors
from minigen.errors import CheckpointError
from minigen.families.family import Family, Source
from minigen.layers.param import Param
from minigen.tree import flatten, unflatten

EXPERTS, LAYERS = 3, 2


class Mixture:
    """Shapes alone: an encoder with a matrix a layer, and a decoder with experts, whose gate and value are joined."""

    def shapes(self) -> dict[str, Any]:
        experts = {"gate_up": Param((EXPERTS, 10, 4), parts=(5, 5)), "down": Param((EXPERTS, 4, 5))}
        return {
            "encoder": {"blocks": [{"weight": Param((6, 4))} for _ in range(LAYERS)]},
            "decoder": {"blocks": [{"experts": dict(experts)} for _ in range(LAYERS)]},
            "head": {"weight": Param((7, 4))},
        }


FAMILY = Family(
    build=lambda config: Mixture(),  # type: ignore[arg-type, return-value]
    prefix="model.",
    names={
        "encoder.blocks.{layer}.weight": Source(("model.encoder.layers.{layer}.w",)),
        "decoder.blocks.{layer}.experts.gate_up": Source(
            ("model.layers.{layer}.experts.{expert}.w1", "model.layers.{layer}.experts.{expert}.w3")
        ),
        "decoder.blocks.{layer}.experts.down": Source(
            ("model.layers.{layer}.experts.{expert}.w2",), transposed=True
        ),
        "head.weight": Source(("lm_head.weight",)),
    },
)
MODEL: Any = Mixture()


@pytest.fixture
def tensors() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pieces = [piece for entry in plan(MODEL, FAMILY, ["model."]) for piece in entry.pieces]
    return {piece.name: rng.standard_normal(piece.shape).astype(np.float32) for piece in pieces}


def test_the_names_of_all_tensors(tensors: dict[str, Any]) -> None:
    experts = {
        f"model.layers.{layer}.experts.{expert}.w{number}"
        for layer in range(LAYERS)
        for expert in range(EXPERTS)
        for number in (1, 2, 3)
    }
    assert tensors.keys() == experts | {
        "model.encoder.layers.0.w",
        "model.encoder.layers.1.w",
        "lm_head.weight",
    }
    assert tensors["model.layers.1.experts.2.w3"].shape == (5, 4)
    assert tensors["model.layers.1.experts.2.w2"].shape == (5, 4)  # (in, out)


def test_there_and_back(ops: Backend, tensors: dict[str, Any], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    params = load_params(ops, MODEL, FAMILY, read_headers(tmp_path), tmp_path)
    flat = {path: ops.numpy(x) for path, x in flatten(params).items()}
    for layer in range(LAYERS):
        where = f"model.layers.{layer}.experts"
        for expert in range(EXPERTS):
            joined = np.concatenate([tensors[f"{where}.{expert}.{name}"] for name in ("w1", "w3")])
            assert np.array_equal(flat[f"decoder.blocks.{layer}.experts.gate_up"][expert], joined)
            assert np.array_equal(
                flat[f"decoder.blocks.{layer}.experts.down"][expert],
                tensors[f"{where}.{expert}.w2"].T,
            )
        assert np.array_equal(
            flat[f"encoder.blocks.{layer}.weight"], tensors[f"model.encoder.layers.{layer}.w"]
        )
    again = to_tensors(MODEL, FAMILY, unflatten(flat))
    assert again.keys() == tensors.keys()
    for name, x in tensors.items():
        assert np.array_equal(again[name], x)


def test_quantized_matrices_are_stacked(ops: Backend) -> None:
    (entry,) = [
        e for e in plan(MODEL, FAMILY, ["model."]) if e.path == "decoder.blocks.1.experts.gate_up"
    ]
    rng = np.random.default_rng(1)
    drawn = [rng.standard_normal((5, 32)).astype(np.float32) for _ in entry.pieces]
    stacked = entry.assemble(ops, [ops.quantize(ops.asarray(x), 8, 32) for x in drawn])
    assert isinstance(stacked, Quantized)
    for expert in range(EXPERTS):
        pair = np.concatenate(drawn[2 * expert : 2 * expert + 2])
        expected = ops.quantize(ops.asarray(pair), 8, 32)
        for ours, theirs in zip(stacked.arrays, expected.arrays, strict=True):
            assert np.array_equal(ops.numpy(ours[expert]), ops.numpy(theirs))


def test_without_the_prefix(tensors: dict[str, Any]) -> None:
    """Also where every name that has it has an index too."""
    short = {name.removeprefix("model.") for name in tensors}
    names = {piece.name for entry in plan(MODEL, FAMILY, short) for piece in entry.pieces}
    assert names == short


def test_a_missing_expert_is_named(ops: Backend, tensors: dict[str, Any], tmp_path: Path) -> None:
    del tensors["model.layers.1.experts.2.w3"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"1 missing: model\.layers\.1\.experts\.2\.w3 \(5, 4\)"
    ):
        load_params(ops, MODEL, FAMILY, read_headers(tmp_path), tmp_path)

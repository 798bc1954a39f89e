"""What is written in a dtype is read as it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minigen.checkpoints.checkpoint import read_file
from minigen.checkpoints.saving import write_tensors
from minigen.families.stored import parts
from minigen.models.stored_dtypes import NAMES, STORED, number_bytes


@pytest.mark.parametrize("name", STORED)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    values = np.array([0, 1, 1, 0], "float32" if name == "bfloat16" else name)
    write_tensors(
        tmp_path / "x.safetensors", {"x": values}, "bfloat16" if name == "bfloat16" else "float32"
    )
    tensor = read_file(tmp_path / "x.safetensors")["x"]
    assert NAMES[tensor.dtype] == name
    read = np.concatenate(list(parts(tensor)))
    assert (read.dtype, read.tolist()) == (values.dtype, values.tolist())
    assert (tmp_path / "x.safetensors").stat().st_size % 8 == values.size * number_bytes(
        tensor.dtype
    ) % 8

"""A stored model written again as an ordinary folder: in another dtype, with an adapter merged in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends import DTYPES, get_backend
from minigen.errors import CheckpointError, UsageError
from minigen.families.loading import stored_dtype
from minigen.families.opening import Stored, generation_file, open_stored, text_folder
from minigen.families.saving import to_tensors, write_tensors
from minigen.files import new_folder
from minigen.hub import TEXT_FILES
from minigen.tree import flatten, unflatten
from minigen.weight_files import SINGLE


@dataclass(frozen=True)
class Converted:
    """What was written. `bytes` of the weights alone."""

    folder: Path
    model_type: str
    parameters: int
    dtype: str
    bytes: int


def convert(
    source: str | os.PathLike[str],
    out: Path,
    *,
    dtype: str | None = None,
    lora: Path | None = None,
    offline: bool = False,
    backend: str = "auto",
) -> Converted:
    """Writes the model `source` (a folder, a hub id, an adapter's folder) as the new folder `out`: config.json,
    model.safetensors, and the files of its tokenizer, chat template and generation settings.

    `dtype` is that of the weights, without it the one that most of them have. `lora` is an adapter to merge in. The
    weights are read on the CPU, in float32. Raises MinigenError as `open_stored` does, UsageError where `out` is there
    already, CheckpointError where a weight is too large for float16.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}: choose {', '.join(DTYPES)}")
    with new_folder(out) as beside:
        stored = open_stored(source, lora=lora, offline=offline)
        dtype = dtype or stored_dtype(stored.tensors)
        tensors = read_tensors(stored, backend)
        check_range(tensors, dtype)
        for path in text_files(stored):
            shutil.copyfile(path, beside / path.name)
        config = dict(stored.config) | {key: dtype for key in ("dtype", "torch_dtype") if key in stored.config}
        (beside / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_tensors(beside / SINGLE, tensors, dtype)
    size = (out / SINGLE).stat().st_size
    return Converted(out, stored.config["model_type"], sum(x.size for x in tensors.values()), dtype, size)


def read_tensors(stored: Stored, backend: str) -> dict[str, npt.NDArray[np.float32]]:
    """The model's tensors by the names of its family, in float32."""
    ops = get_backend(backend, "cpu", "float32")
    arrays = {path: ops.numpy(x) for path, x in flatten(stored.params(ops)).items()}
    return to_tensors(stored.architecture, stored.family, unflatten(arrays))


def check_range(tensors: Mapping[str, npt.NDArray[Any]], dtype: str) -> None:
    most = float(np.finfo(np.float16).max)
    for name, x in tensors.items() if dtype == "float16" else ():
        largest = float(np.abs(x, where=np.isfinite(x), out=np.zeros_like(x)).max(initial=0.0))
        if largest > most:
            raise CheckpointError(f"{name} has the value {largest:g}, and float16 ends at {most:g}: choose bfloat16")


def text_files(stored: Stored) -> list[Path]:
    """What goes with the weights as it is."""
    folder = text_folder(stored.folder, stored.base)
    paths = [*sorted(folder.glob("*.tiktoken")), *(folder / name for name in TEXT_FILES)]
    paths = [path for path in paths if path.name != "generation_config.json"]
    return [path for path in (*paths, generation_file(stored.folder, stored.base)) if path.is_file()]

"""A stored model written again as an ordinary folder: in another dtype, quantized, with an adapter merged in."""

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
from minigen.backends.base import Backend, Quantized
from minigen.checkpoints.loading import stored_dtype
from minigen.checkpoints.opening import Stored, generation_file, open_stored, text_folder
from minigen.checkpoints.quantization import GROUP, KEYS, name_of
from minigen.checkpoints.saving import quantization_config, to_tensors, write_tensors
from minigen.checkpoints.weight_files import SINGLE
from minigen.errors import CheckpointError, UsageError
from minigen.files import new_folder
from minigen.models.costs import parameters
from minigen.models.packing import Packings
from minigen.tokenizer.names import GENERATION, SETTINGS, TEMPLATES, VOCABULARIES, files_there, rank_files
from minigen.tree import flatten, unflatten


@dataclass(frozen=True)
class Converted:
    """What was written. `bytes` of the weights alone; `quant` is "q4", "q8", "mixed", or "" for plain weights."""

    folder: Path
    model_type: str
    parameters: int
    dtype: str
    quant: str
    bytes: int


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    quant: str | int | None = None,
    group: int = GROUP,
    lora: Path | None = None,
    offline: bool = False,
    backend: str = "auto",
) -> Converted:
    """Writes the model `source` (a folder, a hub id, an adapter's folder) as the new folder `out`: config.json,
    model.safetensors, and the files of its tokenizer, chat template and generation settings.

    `dtype` is that of the weights, without it the one that most of them have. `quant` ("8", "4", "mixed") quantizes the
    matrices, in groups of `group` weights, in mlx-lm's layout; without it a quantized model becomes a plain one.
    `lora` is an adapter to merge in. The weights are read on the CPU, in float32. Raises MinigenError as `open_stored`
    and `Stored.choose` do, UsageError where `out` is there already, CheckpointError for what float16 cannot hold.
    """
    out = Path(out)
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}: choose {', '.join(DTYPES)}")
    with new_folder(out) as beside:
        stored = open_stored(source, lora=lora, offline=offline)
        dtype = dtype or stored_dtype(stored.tensors)
        packings = stored.choose(quant, group) if quant is not None else {}
        tensors = read_tensors(stored, backend, packings)
        check_range(tensors, dtype)
        for path in text_files(stored):
            shutil.copyfile(path, beside / path.name)
        config = {key: value for key, value in stored.config.items() if key not in KEYS}
        config |= {key: dtype for key in ("dtype", "torch_dtype") if key in config}
        if packings:
            config |= dict.fromkeys(KEYS, quantization_config(stored.architecture, stored.family, packings))
        (beside / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_tensors(beside / SINGLE, tensors, dtype)
    size = (out / SINGLE).stat().st_size
    kind, count = stored.config["model_type"], parameters(stored.architecture)
    return Converted(out, kind, count, dtype, name_of(packings), size)


def read_tensors(stored: Stored, backend: str, packings: Packings) -> dict[str, npt.NDArray[Any]]:
    """The model's tensors by the names of its family: those of `packings` quantized, all others in float32."""
    ops = get_backend(backend, "cpu", "float32")
    params = flatten(stored.params(ops, packings))
    arrays = {path: on_host(ops, x, path in packings) for path, x in params.items()}
    return to_tensors(stored.architecture, stored.family, unflatten(arrays))


def on_host(ops: Backend, x: Any, quantized: bool) -> Any:
    """A weight in NumPy, quantized or plain."""
    if not isinstance(x, Quantized):
        return ops.numpy(x)
    if not quantized:
        return ops.numpy(ops.dequantize(x))
    packed, scales, biases = map(ops.numpy, x.arrays)
    return x._replace(packed=packed, scales=scales, biases=biases)


def check_range(tensors: Mapping[str, npt.NDArray[Any]], dtype: str) -> None:
    most = float(np.finfo(np.float16).max)
    floats = {name: x for name, x in tensors.items() if x.dtype == np.float32}
    for name, x in floats.items() if dtype == "float16" else ():
        largest = float(np.abs(x, where=np.isfinite(x), out=np.zeros_like(x)).max(initial=0.0))
        if largest > most:
            raise CheckpointError(f"{name} has the value {largest:g}, and float16 ends at {most:g}: choose bfloat16")


def text_files(stored: Stored) -> list[Path]:
    """What goes with the weights as it is."""
    folder = text_folder(stored.folder, stored.base)
    names = [name for name in (*VOCABULARIES, *SETTINGS, *TEMPLATES) if name != GENERATION]
    generation = generation_file(stored.folder, stored.base)
    return rank_files(folder) + files_there(folder, names) + files_there(generation.parent, [GENERATION])

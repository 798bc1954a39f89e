"""A stored model rewritten as a new folder: another dtype, quantized, an adapter merged in."""

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
from minigen.tokenizer.names import (
    GENERATION,
    SETTINGS,
    TEMPLATES,
    VOCABULARIES,
    files_there,
    rank_files,
)
from minigen.tree import flatten, unflatten


@dataclass(frozen=True)
class Converted:
    """What was written.

    Fields:
        folder: Where.
        model_type: The family of the model.
        parameters: How many it has.
        dtype: The dtype of its weights.
        quant: "q4", "q8", "mixed", or "" for weights that are not quantized.
        bytes: The size of the weights.
    """

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
    """Writes a model as a new folder.

    The folder has config.json, model.safetensors, and the files of the tokenizer, the chat template
    and the generation settings. The weights are read on the CPU, in float32.

    Args:
        source: A folder, a hub id, or an adapter's folder.
        out: The new folder.
        dtype: The dtype of the weights; None: the one that most of them have.
        quant: "8", "4" or "mixed" quantizes the matrices in mlx-lm's layout; None: weights are not
            quantized, even if those of the source are.
        group: How many quantized weights share a scale.
        lora: An adapter to merge in.
        offline: Whether not to use the network.
        backend: The backend that reads the weights.

    Raises UsageError: `out` exists, or a setting cannot be used with this model.
    Raises CheckpointError: the model cannot be read, or has values that float16 cannot
    represent.
    Raises MinigenError: as `open_stored`.
    """
    out = Path(out)
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}: choose {', '.join(DTYPES)}")
    with new_folder(out) as temporary:
        stored = open_stored(source, lora=lora, offline=offline)
        dtype = dtype or stored_dtype(stored.tensors)
        packings: Packings = {}
        if quant is not None:
            packings = stored.choose(quant, group)
        tensors = read_tensors(stored, backend, packings)
        check_range(tensors, dtype)
        for path in text_files(stored):
            shutil.copyfile(path, temporary / path.name)
        write_config(temporary / "config.json", stored, dtype, packings)
        write_tensors(temporary / SINGLE, tensors, dtype)
    return Converted(
        folder=out,
        model_type=stored.config["model_type"],
        parameters=parameters(stored.architecture),
        dtype=dtype,
        quant=name_of(packings),
        bytes=(out / SINGLE).stat().st_size,
    )


def write_config(path: Path, stored: Stored, dtype: str, packings: Packings) -> None:
    """Writes the config.json of the converted model."""
    config = {key: value for key, value in stored.config.items() if key not in KEYS}
    for key in ("dtype", "torch_dtype"):
        if key in config:
            config[key] = dtype
    if packings:
        quantization = quantization_config(stored.architecture, stored.family, packings)
        config |= dict.fromkeys(KEYS, quantization)
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_tensors(stored: Stored, backend: str, packings: Packings) -> dict[str, npt.NDArray[Any]]:
    """The model's tensors by name, quantized as `packings` says, the others in float32."""
    ops = get_backend(backend, "cpu", "float32")
    params = flatten(stored.params(ops, packings))
    arrays = {path: on_host(ops, x, path in packings) for path, x in params.items()}
    return to_tensors(stored.architecture, stored.family, unflatten(arrays))


def on_host(ops: Backend, x: Any, quantized: bool) -> Any:
    """A weight in NumPy, quantized or not."""
    if not isinstance(x, Quantized):
        return ops.numpy(x)
    if not quantized:
        return ops.numpy(ops.dequantize(x))
    packed, scales, biases = (ops.numpy(array) for array in x.arrays)
    return x._replace(packed=packed, scales=scales, biases=biases)


def check_range(tensors: Mapping[str, npt.NDArray[Any]], dtype: str) -> None:
    """Raises CheckpointError if `dtype` is float16 and a finite value is beyond its range."""
    if dtype != "float16":
        return
    limit = float(np.finfo(np.float16).max)
    for name, x in tensors.items():
        if x.dtype != np.float32:
            continue
        magnitudes = np.abs(x, where=np.isfinite(x), out=np.zeros_like(x))
        largest = float(magnitudes.max(initial=0.0))
        if largest > limit:
            raise CheckpointError(
                f"{name} has the value {largest:g}, but float16 ends at {limit:g}: choose bfloat16"
            )


def text_files(stored: Stored) -> list[Path]:
    """The files that are copied: tokenizer, chat template, generation settings."""
    folder = text_folder(stored.folder, stored.base)
    names = [name for name in (*VOCABULARIES, *SETTINGS, *TEMPLATES) if name != GENERATION]
    generation_folder = generation_file(stored.folder, stored.base).parent
    return (
        rank_files(folder)
        + files_there(folder, names)
        + files_there(generation_folder, [GENERATION])
    )

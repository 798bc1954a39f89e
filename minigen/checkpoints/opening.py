"""A stored model before its weights are read: one folder, or an adapter and its base."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.backends.base import Backend, Tree
from minigen.checkpoints.adapters import Adapter, is_adapter, read_adapter
from minigen.checkpoints.backend_packings import joined_packings
from minigen.checkpoints.checkpoint import read_config, read_headers
from minigen.checkpoints.copies import build_as_stored
from minigen.checkpoints.fingerprint import fingerprint
from minigen.checkpoints.hub import resolve
from minigen.checkpoints.loading import load_params
from minigen.checkpoints.plan import matrices, plan
from minigen.checkpoints.quantization import (
    GROUP,
    Declared,
    choose_packings,
    find_packed,
    left_out,
    read_declared,
)
from minigen.errors import CheckpointError, TokenizerError, UsageError
from minigen.families import Family, build_architecture, find_family
from minigen.models.architecture import Architecture
from minigen.models.packing import Packings
from minigen.models.tensor_info import TensorInfo
from minigen.tokenizer import Tokenizer, load_tokenizer, token_files
from minigen.tokenizer.names import GENERATION

log = logging.getLogger("minigen")


@dataclass(frozen=True)
class Stored:
    """A stored model.

    Fields:
        folder: The folder that was asked for.
        base: The folder with config.json and the weights; for an adapter it is another one.
        config: config.json, corrected where the weights contradict it.
        family: Its family.
        architecture: The model.
        tensors: The stored tensors, by name.
        adapter: The adapter to merge in, or None.
        declared: Which of the weights are quantized; None: none.
    """

    folder: Path
    base: Path
    config: Mapping[str, Any]
    family: Family
    architecture: Architecture
    tensors: Mapping[str, TensorInfo]
    adapter: Adapter | None = None
    declared: Declared | None = None

    def packings(self) -> Packings:
        """How matrices are quantized as they are stored, by path.

        Raises CheckpointError if config.json and the tensors contradict each other.
        """
        entries = plan(self.architecture, self.family, self.tensors)
        packed = find_packed(entries, self.tensors, self.declared, self.base)
        return joined_packings(entries, packed)

    def choose(self, quant: str | int | None, group: int = GROUP) -> Packings:
        """How matrices are quantized once the model is loaded with `quant`, by path.

        Matrices that cannot be quantized are a warning. The arguments and errors are those of
        `choose_packings`.
        """
        chosen = choose_packings(quant, self.architecture, self.packings(), str(self.base), group)
        if quant is None:
            return chosen
        widths = left_out(self.architecture, chosen)
        if widths:
            names = ", ".join(f"{path} ({width} wide)" for path, width in widths.items())
            log.warning("not quantized, as rows are not a multiple of %d: %s", group, names)
        return chosen

    def params(self, ops: Backend, packings: Packings | None = None) -> Tree:
        """The weights with the adapter merged in, quantized as `packings` says."""
        return load_params(
            ops,
            self.architecture,
            self.family,
            self.tensors,
            self.base,
            self.adapter,
            self.declared,
            packings,
        )


def text_folder(folder: Path, base: Path) -> Path:
    """The folder of the tokenizer and chat template: an adapter's own if it has any."""
    if token_files(folder):
        return folder
    return base


def generation_file(folder: Path, base: Path) -> Path:
    """generation_config.json, by the same rule; it may not exist."""
    if (folder / GENERATION).is_file():
        return folder / GENERATION
    return base / GENERATION


def tokenizer_and_context(source: str, *, offline: bool = False) -> tuple[Tokenizer, int | None]:
    """A model's tokenizer and its context in tokens; the weights are not read.

    Raises MinigenError as `open_stored` does, and where there is no tokenizer.
    """
    folder = resolve(source, offline=offline)
    config = read_config(folder)
    context = build_architecture(config, str(folder / "config.json")).context
    tokenizer = load_tokenizer(folder, config)
    if tokenizer is None:
        raise TokenizerError(
            f"{folder} has no tokenizer (tokenizer.json, vocab.json, ...): leave out -m, or add one"
        )
    return tokenizer, context


def open_stored(
    source: str | os.PathLike[str] | None, *, lora: Path | None = None, offline: bool = False
) -> Stored:
    """Finds and checks the files of a model, and reads everything but its weights.

    Args:
        source: What `resolve` takes: a folder, a hub id, or None for the model that ships. It may
            be an adapter.
        lora: An adapter to use with that model.
        offline: Whether not to use the network.

    Raises SourceError: the model, or the base of the adapter, cannot be found.
    Raises UsageError: two adapters are given.
    Raises CheckpointError: files cannot be used, or the base of the adapter has changed since.
    With `lora` a changed base is only a warning.
    """
    folder = base = resolve(source, offline=offline)
    adapter = None
    if is_adapter(folder):
        if lora is not None:
            raise UsageError(
                f"{folder} is an adapter itself: merge one at a time, with minigen convert"
            )
        adapter = read_adapter(folder)
        base = adapter.base_folder(offline=offline)
    elif lora is not None:
        folder, adapter = lora, read_adapter(lora)
    values = read_config(base)
    family = find_family(values)
    declared = read_declared(values, str(base / "config.json"))
    tensors = read_headers(base)
    values, architecture = build_as_stored(family, values, tensors, base, declared)
    stored = Stored(folder, base, values, family, architecture, tensors, adapter, declared)
    if adapter is not None:
        check_adapter(adapter, stored, chosen_by_user=lora is not None)
    return stored


def check_adapter(adapter: Adapter, stored: Stored, chosen_by_user: bool) -> None:
    """Raises CheckpointError for an adapter that cannot be merged into a model.

    An adapter that was trained on other weights is only a warning if the user chose the model.
    """
    base = stored.base
    if stored.declared is not None:
        raise CheckpointError(
            f"the adapter {adapter.folder} cannot be merged into {base}, whose weights are "
            "quantized: merge it into the unquantized model, then quantize that with minigen "
            "convert --quant"
        )
    family = stored.family
    shapes = matrices(plan(stored.architecture, family, stored.tensors), family)
    adapter.check(shapes, family.prefix, base)
    if not adapter.fingerprint or adapter.fingerprint == fingerprint(base):
        return
    fault = f"the adapter {adapter.folder} was trained on other weights than {base} has"
    if not chosen_by_user:
        raise CheckpointError(
            f"{fault} now: restore them, or merge it nevertheless with minigen convert {base} OUT "
            f"--lora {adapter.folder}"
        )
    log.warning("%s", fault)

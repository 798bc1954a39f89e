"""A model as it is stored, before a weight is read: in one folder, or as an adapter in one and its base in another."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.backends.base import Backend, Tree
from minigen.checkpoints.adapters import Adapter, is_adapter, read_adapter
from minigen.checkpoints.checkpoint import read_config, read_headers
from minigen.checkpoints.copies import build_as_stored
from minigen.checkpoints.fingerprint import fingerprint
from minigen.checkpoints.held import held_packings
from minigen.checkpoints.hub import resolve
from minigen.checkpoints.loading import load_params
from minigen.checkpoints.plan import matrices, plan
from minigen.checkpoints.quantization import GROUP, Declared, choose_packings, find_packed, left_out, read_declared
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
    """`folder` is what was named; `base` has config.json and the weights, and is another folder for an adapter."""

    folder: Path
    base: Path
    config: Mapping[str, Any]  # config.json, where the weights do not say otherwise
    family: Family
    architecture: Architecture
    tensors: Mapping[str, TensorInfo]
    adapter: Adapter | None = None
    declared: Declared | None = None  # which of the weights are quantized

    def packings(self) -> Packings:
        """The matrices that are quantized as they are stored. Raises CheckpointError as `find_packed` does."""
        entries = plan(self.architecture, self.family, self.tensors)
        return held_packings(entries, find_packed(entries, self.tensors, self.declared, self.base))

    def choose(self, quant: str | int | None, group: int = GROUP) -> Packings:
        """Those that are quantized once the model is loaded with `quant`. Warns of those that cannot be.

        Raises UsageError as `choose_packings` does.
        """
        chosen = choose_packings(quant, self.architecture, self.packings(), str(self.base), group)
        plain = left_out(self.architecture, chosen) if quant is not None else {}
        if plain:
            names = ", ".join(f"{path} ({width} wide)" for path, width in plain.items())
            log.warning("not quantized, for rows that are no multiple of %d: %s", group, names)
        return chosen

    def params(self, ops: Backend, packings: Packings | None = None) -> Tree:
        """The weights, with the adapter merged in, and quantized where `packings` says so. Raises CheckpointError as
        `load_params` does."""
        own = self.architecture, self.family, self.tensors, self.base, self.adapter, self.declared
        return load_params(ops, *own, packings)


def text_folder(folder: Path, base: Path) -> Path:
    """Whose tokenizer and chat template are meant: an adapter's own, or where it has no tokenizer its base's."""
    return folder if token_files(folder) else base


def generation_file(folder: Path, base: Path) -> Path:
    """generation_config.json, which may not be there, by the same rule."""
    own = folder / GENERATION
    return own if own.is_file() else base / own.name


def tokenizer_and_context(source: str, *, offline: bool = False) -> tuple[Tokenizer, int | None]:
    """A model's tokenizer and its context in tokens; the weights are not read. Raises MinigenError as `open_stored`
    does, and where there is no tokenizer."""
    folder = resolve(source, offline=offline)
    config = read_config(folder)
    context = build_architecture(config, str(folder / "config.json")).context
    tokenizer = load_tokenizer(folder, config)
    if tokenizer is None:
        raise TokenizerError(f"{folder} has no tokenizer (tokenizer.json, vocab.json, ...): leave out -m, or add one")
    return tokenizer, context


def open_stored(source: str | os.PathLike[str] | None, *, lora: Path | None = None, offline: bool = False) -> Stored:
    """The model that a source means (as `resolve` has it), or with `lora` that model with this adapter.

    Raises MinigenError: SourceError for a model or a base that is not there, CheckpointError for files that cannot be
    used and for an adapter whose base has changed since (a warning, where `lora` says that it is meant).
    """
    folder = base = resolve(source, offline=offline)
    adapter = None
    if is_adapter(folder):
        if lora is not None:
            raise UsageError(f"{folder} is an adapter itself: merge one at a time, with minigen convert")
        adapter = read_adapter(folder)
        base = adapter.base_folder(offline=offline)
    elif lora is not None:
        folder, adapter = lora, read_adapter(lora)
    values = read_config(base)
    family = find_family(values)
    declared = read_declared(values, str(base / "config.json"))
    tensors = read_headers(base)
    values, architecture = build_as_stored(family, values, tensors, base, declared)
    if adapter is not None and declared is not None:
        raise CheckpointError(
            f"the adapter {adapter.folder} cannot be merged into {base}, whose weights are quantized: merge it into "
            "the float model, which minigen convert --quant then quantizes"
        )
    if adapter is not None:
        adapter.check(matrices(plan(architecture, family, tensors), family), family.prefix, base)
    if adapter is not None and adapter.fingerprint and adapter.fingerprint != fingerprint(base):
        fault = f"the adapter {adapter.folder} was trained on other weights than {base} has"
        if lora is None:
            raise CheckpointError(
                f"{fault} now: put them back, or merge it all the same with minigen convert {base} OUT --lora "
                f"{adapter.folder}"
            )
        log.warning("%s", fault)
    return Stored(folder, base, values, family, architecture, tensors, adapter, declared)

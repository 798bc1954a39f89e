"""A GGUF file as a folder of the hub's: its metadata in small files, and the file itself, linked, as the weights.

The folder lies in a cache and is made once for each file; it takes a few megabytes, most of them the tokenizer's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigen.checkpoints.gguf.header import Header, read_header
from minigen.checkpoints.gguf.tensors import Source, sources
from minigen.checkpoints.gguf.vocabulary import tokenizer_files
from minigen.errors import CheckpointError, shown
from minigen.families import FAMILIES, Family, find_family
from minigen.files import new_folder
from minigen.models.packing import module_of
from minigen.models.tensor_info import TensorInfo

WEIGHTS = "model.gguf"  # the link in the folder
VERSION = 1  # of what the folder has: another one is made anew
SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")

log = logging.getLogger("minigen")


def is_gguf(path: Path) -> bool:
    """Whether a file is named as one, or begins as one does, as ollama's do, which have no ending."""
    if path.suffix == ".gguf":
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minigen" / "gguf"


def folder_of(path: Path) -> Path:
    """The folder for a GGUF file, made where it is not there yet. Raises CheckpointError as `read_header` does, and for
    an architecture or a tokenizer that minigen does not know."""
    path = path.resolve()
    about = path.stat()
    key = f"{path} {about.st_size} {about.st_mtime_ns} {VERSION}"
    name = f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    folder = cache_folder() / name
    if (folder / WEIGHTS).exists():
        return folder
    files = files_of(read_header(path))
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.debug("no cache for %s: %s", path, error)
        folder = Path(tempfile.mkdtemp(prefix="minigen-")) / name
    with new_folder(folder, shared=True) as temporary:
        for file, content in files.items():
            (temporary / file).write_text(content, encoding="utf-8")
        (temporary / WEIGHTS).symlink_to(path)
    return folder


def files_of(header: Header) -> dict[str, str]:
    """The small files of the folder, by name."""
    family, config = config_of(header)
    config |= token_ids(header.metadata)
    quantization = quantization_of(sources(header, family_names(family), config))
    if quantization:
        config["quantization"] = quantization
    files = {"config.json": config, **tokenizer_files(header)}
    return {name: content if isinstance(content, str) else as_json(content) for name, content in files.items()}


def as_json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=None) + "\n"


def config_of(header: Header) -> tuple[Family, dict[str, Any]]:
    """The family of a file and its config.json. Raises CheckpointError for one that minigen does not know."""
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CheckpointError(f"{header.path} names no general.architecture: it is not a language model")
    known = gguf_families()
    if name not in known:
        raise CheckpointError(
            f"{header.path} has the architecture {shown(name)}: minigen reads GGUF files of {', '.join(known)}"
        )
    family = known[name]
    config = family_names(family).config(name, header.metadata, header.tensors)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError(f"{header.path} has no tensor token_embd.weight: it is not a whole model")
    config["vocab_size"] = embedding.shape[0]
    return family, config


def gguf_families() -> dict[str, Family]:
    """The families that GGUF files are read of, by their architecture."""
    every = {kind: find_family({"model_type": kind}) for kind in FAMILIES}
    return {kind: family for kind, family in every.items() if family.gguf is not None}


def family_names(family: Family) -> Any:
    assert family.gguf is not None
    return family.gguf


def token_ids(metadata: Mapping[str, Any]) -> dict[str, Any]:
    ids = {name: metadata.get(f"tokenizer.ggml.{name}") for name in ("bos_token_id", "eos_token_id")}
    return {name: token for name, token in ids.items() if token is not None}


def quantization_of(every: list[Source]) -> dict[str, Any]:
    """config.json's "quantization": the packing of most matrices, and by module what differs."""
    packings = {}
    for source in every:
        if source.quantized and source.tensor.type.packing is not None:
            packings[module_of(source.names[0])] = source.tensor.type.packing
    if not packings:
        return {}
    kinds = list(packings.values())
    usual = max(dict.fromkeys(kinds), key=kinds.count)
    config: dict[str, Any] = {**usual.as_config(), "mode": usual.mode}
    for module, packing in packings.items():
        if packing != usual:
            config[module] = {**packing.as_config(), "mode": packing.mode}
    return config


def read_sources(folder: Path, config: Mapping[str, Any]) -> list[Source]:
    """The tensors of a folder that `folder_of` made."""
    header = read_header((folder / WEIGHTS).resolve())
    return sources(header, family_names(config_of(header)[0]), config)


def infos(folder: Path, config: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """What the headers of safetensors files would say of the same weights."""
    found: dict[str, TensorInfo] = {}
    for source in read_sources(folder, config):
        found |= source.infos(folder / WEIGHTS)
    return found

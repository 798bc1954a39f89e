"""Where a model comes from: a folder, the model that ships, or the Hugging Face hub. A folder in any case.

Files of one commit are fetched by name, so nothing is fetched that minigen does not read. The cache, the
token and the endpoint are huggingface_hub's, which is imported only when a hub id is given.
"""

from __future__ import annotations

import importlib.resources
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.checkpoints.gguf.folder import folder_of, is_gguf
from minigen.checkpoints.weight_files import files_in, pick_weights
from minigen.errors import SourceError

if TYPE_CHECKING:
    from importlib.abc import Traversable

LONGEST_NAME, LONGEST_SHOWN = 96, 256  # characters of a hub id, and of what a message repeats


def resolve(source: str | os.PathLike[str] | None, *, offline: bool = False) -> Path:
    """The folder of model files that a source means; None means the model that ships with minigen.

    A folder wins over a hub id (`org/name[@revision]`, or `name` alone) of the same name, and so does a model that
    ships. A hub id may be an adapter's. Offline (or with HF_HUB_OFFLINE=1) no socket is opened: a hub id is looked up
    in the cache. Online, a model whole in the cache is used if the hub cannot be reached, with a logged warning.

    Errors: SourceError if there is no such folder or model, it cannot be fetched, it is not what the hub states, or has
    no weights that minigen reads; CheckpointError if its shard index is not usable.
    """
    if source is None:
        return _shipped()
    text = os.fspath(source)
    shown = text if text.isprintable() and 0 < len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}"
    path = os.path.expanduser(text)
    if text and os.path.isdir(path):
        return Path(path)
    if os.path.isfile(path):
        if is_gguf(Path(path)):
            return folder_of(Path(path))
        raise SourceError(f"{shown} is a file: give the folder that holds it")
    if text.startswith(("https://", "http://", "hf://")):
        raise SourceError(f"{shown} is an address: give the id alone, written org/name[@revision]")
    repo, at, revision = text.partition("@")
    like_path = text[:1] in ("", ".", "/", "~") or "\\" in text or repo.count("/") > 1 or text.endswith("/")
    if like_path or not isinstance(source, str):
        raise SourceError(f"no such folder: {shown}")
    # What the hub could never have must not become part of an address, or of a path in the cache.
    if not _is_repo(repo):
        raise SourceError(f"{shown} is neither a folder nor a hub id (org/name[@revision])")
    if at and (not re.fullmatch(r"\w[\w.+/-]*", revision) or ".." in revision):
        raise SourceError(f"{shown}: {revision!r} is no revision (a branch, a tag or a commit)")
    if not at and (shipped := _shipped_models().get(text)):
        return shipped
    from minigen.checkpoints.hub.fetch import fetch

    try:
        return fetch(repo, revision or "main", offline=offline)
    except SourceError as error:
        if "/" in repo:
            raise
        # A word may be a model of the hub's first days (gpt2), and is more often a folder that is not there.
        raise SourceError(f"no folder {text!r:.100} here, and {error}") from error


def _is_repo(name: str) -> bool:
    """Whether the hub may have a model of that name: org/name, or of the first days a name alone."""
    part = r"\w(?:[\w.-]*\w)?"
    right = re.fullmatch(rf"(?:{part}/)?{part}", name, re.ASCII) is not None
    return right and len(name) <= LONGEST_NAME and not (".." in name or "--" in name or name.endswith(".git"))


def _shipped() -> Path:
    """The folder of the model inside the package: the one that the file `default` names, or the first."""
    models = _shipped_models()
    for entry in _packaged():
        if entry.name == "default":
            name = entry.read_text(encoding="utf-8").strip()
            assert name in models, f"the shipped default {name!r} is no model"
            return models[name]
    if not models:
        raise SourceError("no model ships with this version of minigen: give a folder or a hub id (org/name)")
    return models[min(models)]


def _shipped_models() -> dict[str, Path]:
    """The folders of the models inside the package, by name."""
    return {entry.name: entry for entry in _packaged() if isinstance(entry, Path) and _is_model(entry)}


def _packaged() -> list[Traversable]:
    try:
        return list(importlib.resources.files("minigen.weights").iterdir())
    except ModuleNotFoundError:  # a source tree that is not installed
        return []


def _is_model(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = files_in(folder)
    return "config.json" in names and pick_weights(names) is not None

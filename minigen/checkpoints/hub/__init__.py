"""Where a model comes from: a folder, the model that ships, or the Hugging Face hub.

The result is always a folder. Files of one commit are downloaded by name, so nothing is downloaded
that minigen does not read. The cache, the token and the endpoint are huggingface_hub's, which is
imported only for a hub id.
"""

from __future__ import annotations

import importlib.resources
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.checkpoints.weight_files import list_files, pick_weights
from minigen.errors import SourceError

if TYPE_CHECKING:
    from importlib.abc import Traversable

MOST_ID = 96  # characters of a hub id
MOST_SHOWN = 256  # characters of a source that a message repeats


def resolve(source: str | os.PathLike[str] | None, *, offline: bool = False) -> Path:
    """The folder of model files that a source stands for.

    Args:
        source: A folder, the name of a model that ships, or a hub id (`org/name[@revision]`, or
            `name` alone), in this order of precedence; a hub id may be an adapter's. None is the
            model that ships with minigen.
        offline: Whether to look a hub id up in the cache only, without opening a socket;
            HF_HUB_OFFLINE=1 does the same. Otherwise a complete model in the cache is used if the
            hub cannot be reached, with a logged warning.

    Raises SourceError: there is no such folder or model, it cannot be downloaded, it is not
    what the hub states, or it has no weights that minigen reads.
    Raises CheckpointError: its shard index is not usable.
    """
    if source is None:
        return _shipped()
    text = os.fspath(source)
    path = os.path.expanduser(text)
    if text and os.path.isdir(path):
        return Path(path)
    shown = _shown(text)
    if os.path.isfile(path):
        raise SourceError(f"{shown} is a file: give the folder that contains it")
    if text.startswith(("https://", "http://", "hf://")):
        raise SourceError(f"{shown} is an address: give the id alone, written org/name[@revision]")
    if _looks_like_a_path(text) or not isinstance(source, str):
        raise SourceError(f"no such folder: {shown}")
    repo, at, revision = text.partition("@")
    # What the hub could never have must not become part of an address, or of a path in the cache.
    if not _is_repo(repo):
        raise SourceError(f"{shown} is neither a folder nor a hub id (org/name[@revision])")
    if at and not _is_revision(revision):
        raise SourceError(f"{shown}: {revision!r} is not a revision (a branch, a tag or a commit)")
    shipped = None if at else _shipped_models().get(text)
    if shipped is not None:
        return shipped
    from minigen.checkpoints.hub.fetch import fetch

    try:
        return fetch(repo, revision or "main", offline=offline)
    except SourceError as error:
        if "/" in repo:
            raise
        # A single word may be an early model of the hub (gpt2), but more often it is a folder that
        # does not exist.
        raise SourceError(f"no folder {text!r:.100} here, and {error}") from error


def _shown(text: str) -> str:
    """A source as a message repeats it: in one line and not too long."""
    if text.isprintable() and 0 < len(text) <= MOST_SHOWN:
        return text
    return repr(text[:MOST_SHOWN])


def _looks_like_a_path(text: str) -> bool:
    """Whether a source can only be meant as a folder."""
    if text[:1] in ("", ".", "/", "~") or text.endswith("/"):
        return True
    repo, _, _ = text.partition("@")
    return "\\" in text or repo.count("/") > 1


def _is_repo(name: str) -> bool:
    """Whether the hub may have a model of that name: org/name, or for early models a name alone."""
    part = r"\w(?:[\w.-]*\w)?"
    if re.fullmatch(rf"(?:{part}/)?{part}", name, re.ASCII) is None or len(name) > MOST_ID:
        return False
    return ".." not in name and "--" not in name and not name.endswith(".git")


def _is_revision(revision: str) -> bool:
    """Whether it may be a branch, a tag or a commit."""
    return re.fullmatch(r"\w[\w.+/-]*", revision) is not None and ".." not in revision


def _shipped() -> Path:
    """The folder of the model that ships: the one that the file `default` names, or the first."""
    models = _shipped_models()
    for entry in _packaged():
        if entry.name == "default":
            name = entry.read_text(encoding="utf-8").strip()
            assert name in models, f"the shipped default {name!r} is not a model"
            return models[name]
    if not models:
        raise SourceError(
            "no model ships with this version of minigen: give a folder or a hub id (org/name)"
        )
    return models[min(models)]


def _shipped_models() -> dict[str, Path]:
    """The folders of the models that ship, by name."""
    models = {}
    for entry in _packaged():
        if isinstance(entry, Path) and _is_model(entry):
            models[entry.name] = entry
    return models


def _packaged() -> list[Traversable]:
    """The entries of minigen/weights."""
    try:
        return list(importlib.resources.files("minigen.weights").iterdir())
    except ModuleNotFoundError:  # a source tree that is not installed
        return []


def _is_model(folder: Path) -> bool:
    """Whether a folder has a config and weights."""
    if not folder.is_dir():
        return False
    names = list_files(folder)
    return "config.json" in names and pick_weights(names) is not None

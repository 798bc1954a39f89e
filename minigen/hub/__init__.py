"""Where a model comes from: a folder, the model that ships, or the Hugging Face hub. A folder in any case.

Files of one commit are fetched by name, so nothing is fetched that minigen does not read. The cache, the
token and the endpoint are huggingface_hub's, which is imported only when a hub id is given.
"""

import importlib.resources
import os
import re
from pathlib import Path

from minigen.errors import SourceError
from minigen.weight_files import files_in, pick_weights

# What a model folder may have beside config.json, its weights and *.tiktoken.
TEXT_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.bpe",
    "encoder.json",
    "chat_template.jinja",
    "chat_template.json",
)


def resolve(source: str | os.PathLike[str] | None, *, offline: bool = False) -> Path:
    """The folder of model files that a source means; None means the model that ships with minigen.

    A folder wins over a hub id (`org/name[@revision]`) of the same name. Offline (or with HF_HUB_OFFLINE=1)
    no socket is opened: a hub id is looked up in the cache. Online, a model whole in the cache is used
    if the hub cannot be reached, with a logged warning.

    Errors: SourceError if there is no such folder or model, or it cannot be fetched, or it has no weights
    that minigen reads; CheckpointError if its shard index is not usable.
    """
    if source is None:
        return _shipped()
    text = os.fspath(source)
    shown = text if text.isprintable() and text else repr(text)
    path = os.path.expanduser(text)
    if text and os.path.isdir(path):
        return Path(path)
    if os.path.isfile(path):
        raise SourceError(f"{shown} is a file: give the folder that holds it")
    if text.startswith(("https://", "http://", "hf://")):
        raise SourceError(f"{shown} is an address: give the id alone, written org/name[@revision]")
    repo, at, revision = text.partition("@")
    like_path = text[:1] in ("", ".", "/", "~") or "\\" in text or repo.count("/") > 1 or text.endswith("/")
    if like_path or not isinstance(source, str):
        raise SourceError(f"no such folder: {shown}")
    if "/" not in repo:
        raise SourceError(f"no folder {text!r} here, and no hub id either: those are written org/name")
    # What the hub could never have must not become part of an address, or of a path in the cache.
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo, re.ASCII) or ".." in repo or "--" in repo:
        raise SourceError(f"{shown} is neither a folder nor a hub id (org/name[@revision])")
    if at and (not re.fullmatch(r"\w[\w.+/-]*", revision) or ".." in revision):
        raise SourceError(f"{shown}: {revision!r} is no revision (a branch, a tag or a commit)")
    from minigen.hub.fetch import fetch

    return fetch(repo, revision or "main", offline=offline)


def _shipped() -> Path:
    """The folder of the model inside the package: the one that the file `default` names, or the first."""
    try:
        entries = list(importlib.resources.files("minigen.weights").iterdir())
    except ModuleNotFoundError:  # a source tree that is not installed
        entries = []
    models = {entry.name: entry for entry in entries if isinstance(entry, Path) and _is_model(entry)}
    names = sorted(models)
    for entry in entries:
        if entry.name == "default":
            names = [entry.read_text(encoding="utf-8").strip()]
            assert names[0] in models, f"the shipped default {names[0]!r} is no model"
    if not names:
        raise SourceError("no model ships with this version of minigen: give a folder or a hub id (org/name)")
    return models[names[0]]


def _is_model(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = files_in(folder)
    return "config.json" in names and pick_weights(names) is not None

"""The small files of a trained model: config.json in its family's form, tokenizer, end tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigen.backends.base import DTYPES
from minigen.chat.format import ChatFormat
from minigen.chat.template import ChatTemplate
from minigen.checkpoints.adapters import is_adapter
from minigen.checkpoints.checkpoint import read_config, read_headers
from minigen.checkpoints.copies import build_as_stored
from minigen.checkpoints.quantization import read_declared
from minigen.checkpoints.weight_files import read_object
from minigen.errors import UsageError
from minigen.families import find_family
from minigen.families.new import new_config
from minigen.tokenizer import Tokenizer
from minigen.tokenizer.names import GENERATION, TEMPLATE
from minigen.training.chat_formats import chat_format
from minigen.training.config import Config

KINDS = {"characters": "char", "bytes": "bytes"}  # our own kinds of tokenizers, as in config.json
CONTEXT = 128  # the default


def model_config(
    config: Config, tokenizer: Tokenizer, source: Path | None
) -> tuple[Config, dict[str, Any]]:
    """The settings with their context filled in, and the model's config.json.

    `source`: the folder of the model that training begins with, if any.
    """
    assert config.run.save_dtype in DTYPES
    if source is not None:
        given = read_config(source)
        hub, architecture = build_as_stored(find_family(given), given, read_headers(source), source)
        if not config.model.context:
            config = config.replace(context=min(architecture.context or CONTEXT, CONTEXT))
        for key in ("dtype", "torch_dtype"):
            if key in hub:
                hub[key] = config.run.save_dtype
    else:
        if not config.model.context:
            config = config.replace(context=CONTEXT)
        vocab = config.model.vocab or tokenizer.vocab_size
        ends = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        hub = new_config(config.model, vocab, ends, config.run.save_dtype)
    if tokenizer.kind in KINDS:
        hub["tokenizer"] = KINDS[tokenizer.kind]
    return config, hub


def from_folder(config: Config) -> Path | None:
    """The folder of the model that training begins with; None if it begins with a new one.

    Raises UsageError for an adapter and for quantized weights.
    """
    if not config.model.from_model:
        return None
    source = Path(config.model.from_model)
    convert = f"minigen convert {source} OUT, and give OUT to --from"
    if is_adapter(source):
        raise UsageError(f"{source} is an adapter: merge it with {convert}")
    if read_declared(read_config(source), str(source / "config.json")) is not None:
        raise UsageError(
            f"{source} is quantized, but training needs unquantized weights: use the original "
            f"model, or run {convert}"
        )
    return source


def text_files(
    config: Config, tokenizer: Tokenizer, folder: Path, ends: Sequence[int]
) -> dict[str, bytes]:
    """The tokenizer's files of a model folder, by name.

    They are copied from `folder`, with the chat format of the settings, and with the end tokens
    `ends` unless generation_config.json has some.
    """
    files: dict[str, bytes] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != "config.json":
            files[path.name] = path.read_bytes()
    named = chat_format(config.data.chat)
    if named is not None:
        files[TEMPLATE] = named.template.source.encode()
    path = folder / GENERATION
    original = read_object(path) if path.is_file() else {}
    generation = dict(original)
    if tokenizer.bos_id is not None and not original:
        generation["bos_token_id"] = tokenizer.bos_id
    if ends and (named is not None or "eos_token_id" not in original):
        generation["eos_token_id"] = list(ends) if len(ends) > 1 else ends[0]
    if generation != original or not original:
        files[GENERATION] = as_json(generation)
    return files


def as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def first_ids(tokenizer: Tokenizer) -> list[int]:
    """The tokens before the first token of a text: the start tokens, or the end token, or none."""
    if tokenizer.start_ids:
        return list(tokenizer.start_ids)
    return [] if tokenizer.eos_id is None else [tokenizer.eos_id]


def end_ids(tokenizer: Tokenizer, template: ChatTemplate | None) -> list[int]:
    """The tokens that end a text, or an answer of the chat template."""
    ids: list[int] = []
    if tokenizer.eos_id is not None:
        ids.append(tokenizer.eos_id)
    if template is not None:
        ids += sorted(ChatFormat(template, tokenizer).stop_ids)
    return list(dict.fromkeys(ids))


def check_chat_tokens(tokenizer: Tokenizer, chat: str) -> None:
    """Raises UsageError if the tokenizer does not have the control tokens of a chat format."""
    used = chat_format(chat)
    if used is None:
        return
    missing = [name for name in used.tokens if name not in tokenizer.special_tokens]
    if missing:
        names = " ".join(repr(name) for name in missing)
        raise UsageError(
            f"the tokenizer has no {missing[0]}, which the chat format {chat} writes: "
            f"use bpe:N, or make one with minigen tokenizer train --special {names}"
        )

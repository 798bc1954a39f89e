"""The small files of a trained model: config.json in the family's hub form, its tokenizer, what ends a text."""

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

KINDS = {
    "characters": "char",
    "bytes": "bytes",
}  # what config.json's "tokenizer" calls our own kinds
CONTEXT = 128  # where none is asked for and the model has no bound


def model_config(
    config: Config, tokenizer: Tokenizer, source: Path | None
) -> tuple[Config, dict[str, Any]]:
    """The settings with the context that is taken, and the model's config.json."""
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
    """The model that training begins with. Raises UsageError for an adapter and for quantized weights."""
    if not config.model.from_model:
        return None
    source = Path(config.model.from_model)
    kind = "an adapter: merge it" if is_adapter(source) else ""
    if not kind and read_declared(read_config(source), str(source / "config.json")) is not None:
        kind = "quantized, and floats are trained: take the model that it was made of, or make floats of it"
    if kind:
        raise UsageError(
            f"{source} is {kind}, minigen convert {source} OUT, and give OUT to --from"
        )
    return source


def text_files(
    config: Config, tokenizer: Tokenizer, folder: Path, ends: Sequence[int]
) -> dict[str, bytes]:
    """The files of a model folder that say how text is read and written: those of its tokenizer's folder, as they are
    but for a chat format that was asked for and for what ends a text, where nothing says that yet.
    """
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    files.pop("config.json", None)
    named = chat_format(config.data.chat)
    if named is not None:
        files[TEMPLATE] = named.template.source.encode()
    given = folder / GENERATION
    before = read_object(given) if given.is_file() else {}
    generation = dict(before)
    if tokenizer.bos_id is not None and not before:
        generation["bos_token_id"] = tokenizer.bos_id
    if ends and (named is not None or "eos_token_id" not in before):
        generation["eos_token_id"] = list(ends) if len(ends) > 1 else ends[0]
    if generation != before or not before:
        files[GENERATION] = as_json(generation)
    return files


def as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def first_ids(tokenizer: Tokenizer) -> list[int]:
    """What the first token of a text is predicted from: the start tokens, or the end of another text, if there are."""
    return list(tokenizer.start_ids) or ([] if tokenizer.eos_id is None else [tokenizer.eos_id])


def end_ids(tokenizer: Tokenizer, template: ChatTemplate | None) -> list[int]:
    """What ends a text, and an answer of the chat template."""
    found = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    if template is not None:
        found += sorted(ChatFormat(template, tokenizer).stop_ids)
    return list(dict.fromkeys(found))


def check_chat_tokens(tokenizer: Tokenizer, chat: str) -> None:
    """Raises UsageError where the tokenizer would spell the format's control tokens out."""
    used = chat_format(chat)
    missing: Sequence[str] = (
        [name for name in used.tokens if name not in tokenizer.special_tokens] if used else ()
    )
    if missing:
        raise UsageError(
            f"the tokenizer has no {missing[0]}, which the chat format {chat} writes: use bpe:N, or make one with "
            f"minigen tokenizer train --special {' '.join(repr(name) for name in missing)}"
        )

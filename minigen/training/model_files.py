"""The small files of a trained model: config.json in the family's hub form, its tokenizer, what ends a text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minigen.backends.base import DTYPES
from minigen.checkpoint import read_config, read_headers
from minigen.errors import MinigenError, SourceError, UsageError
from minigen.families import find_family
from minigen.families.adapters import is_adapter
from minigen.families.copies import build_as_stored
from minigen.families.quantization import read_declared
from minigen.reading import at_home
from minigen.tokenizer import Tokenizer
from minigen.training.chat_formats import chat_format
from minigen.training.config import RECURRENT, Config, ModelConfig
from minigen.training.data import open_tokenizer
from minigen.training.data.cutting import END
from minigen.training.data.encoding import Progress
from minigen.training.data.identity import FILES
from minigen.training.data.vocabulary import train_tokenizer

KINDS = {"characters": "char", "bytes": "bytes"}  # what config.json's "tokenizer" calls our own kinds
TEMPLATE = "chat_template.jinja"
CONTEXT = 128  # where none is asked for and the model has no bound
GPT2 = "openai-community/gpt2"


def hub_config(m: ModelConfig, vocab: int, ends: Mapping[str, int | None], dtype: str) -> dict[str, Any]:
    """config.json of a new model as its family has it on the hub. `ends`: bos_token_id and eos_token_id.

    Raises UsageError for a shape that cannot be.
    """
    if m.model in RECURRENT:
        hidden = m.hidden or m.width
        if m.tied and hidden != m.width:
            raise UsageError(
                f"hidden is {hidden} and width {m.width}: a model whose head is its embedding has both alike; "
                "say --no-tied, or change one"
            )
        values: dict[str, Any] = {
            "model_type": f"{m.model}_lm",
            "vocab_size": vocab,
            "embedding_size": m.width,
            "hidden_size": hidden,
            "num_layers": m.layers,
            "tie_word_embeddings": m.tied,
        }
        return values | {name: i for name, i in ends.items() if i is not None}
    kv_heads = m.kv_heads or m.heads
    if m.width % m.heads:
        raise UsageError(f"width is {m.width}: it must be a multiple of the {m.heads} heads")
    if m.model == "gpt":
        if kv_heads != m.heads:
            raise UsageError(f"kv_heads is {kv_heads}: a gpt has as many as heads; leave it out, or train a llama")
        values = {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": vocab,
            "n_embd": m.width,
            "n_head": m.heads,
            "n_layer": m.layers,
            "n_positions": m.context,
            "n_inner": m.hidden or 4 * m.width,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            **{f"{where}_pdrop": m.dropout for where in ("attn", "embd", "resid")},
        }
    else:
        if m.heads % kv_heads:
            raise UsageError(f"kv_heads is {kv_heads}: it must divide the {m.heads} heads")
        if m.width // m.heads % 2:
            raise UsageError(f"width {m.width} over {m.heads} heads is {m.width // m.heads}: it must be even to rotate")
        values = {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": vocab,
            "hidden_size": m.width,
            "intermediate_size": m.hidden or -(-8 * m.width // 3 // 32) * 32,
            "num_hidden_layers": m.layers,
            "num_attention_heads": m.heads,
            "num_key_value_heads": kv_heads,
            "head_dim": m.width // m.heads,
            "max_position_embeddings": m.context,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "attention_bias": False,
            "mlp_bias": False,
        }
    # Both are said even where there is none: transformers would take ids of its own, outside the vocabulary.
    return {**values, "tie_word_embeddings": m.tied, **ends, "torch_dtype": dtype}


def model_config(config: Config, tokenizer: Tokenizer, source: Path | None) -> tuple[Config, dict[str, Any]]:
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
        hub = hub_config(config.model, vocab, ends, config.run.save_dtype)
        assert config.model.model in RECURRENT or config.model.context
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
        raise UsageError(f"{source} is {kind}, minigen convert {source} OUT, and give OUT to --from")
    return source


def make_tokenizer(
    config: Config,
    folder: Path,
    progress: Progress = lambda done, total: None,
    more: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Puts the tokenizer that `config` names into the new folder. Where it is learned, `more` is asked for files beside
    the data.

    Raises MinigenError.
    """
    wanted, found = config.data.tokenizer, chat_format(config.data.chat)
    kind, _, size = wanted.partition(":")
    if wanted in ("char", "bytes"):
        train_tokenizer(
            [*config.data.data, *more()], folder, kind=kind, separator=config.data.separator or None, progress=progress
        )
    elif kind == "bpe" and not Path(wanted).is_dir():
        if not size.isdecimal():
            raise UsageError(f"tokenizer is {wanted!r}: write it as bpe:2048, with the size of the vocabulary")
        train_tokenizer(
            [*config.data.data, *more()],
            folder,
            int(size),
            special=found.tokens if found else (),
            separator=config.data.separator or None,
            progress=progress,
        )
    elif wanted == "gpt2" and not Path(wanted).is_dir():
        fetch_gpt2(folder)
    elif at_home(wanted).is_dir():
        copy_tokenizer(at_home(wanted), folder)
    else:
        raise UsageError(f"tokenizer is {wanted!r}: choose char, bytes, bpe:N, gpt2, or a folder that there is")


def fetch_gpt2(folder: Path) -> None:
    """GPT-2's vocabulary from the hub, or its cache. Raises SourceError."""
    from huggingface_hub import hf_hub_download

    try:
        folder.mkdir()
        shutil.copyfile(hf_hub_download(GPT2, "tokenizer.json", library_name="minigen"), folder / "tokenizer.json")
    except Exception as error:  # each version of huggingface_hub lets another transport's errors through
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(
            f"cannot fetch the tokenizer of {GPT2} ({reason}): give a folder that has it for --tokenizer"
        ) from error
    # The hub's own says in the model's config.json what ends a text, which is none of a new model's files.
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    settings = {"tokenizer_class": "GPT2Tokenizer", **ends, "add_prefix_space": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def copy_tokenizer(source: Path, folder: Path) -> None:
    """The files of a tokenizer, and whatever says how chats are written. Raises MinigenError."""
    tokenizer = open_tokenizer(source)
    paths = [source / name for name in (*FILES, TEMPLATE)] + sorted(source.glob("*.tiktoken"))
    try:
        folder.mkdir()
        for path in paths:
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        if tokenizer.kind == "bytes":
            (folder / "config.json").write_text('{"tokenizer": "bytes"}\n')
    except OSError as error:
        raise MinigenError(f"cannot copy the tokenizer of {source} to {folder}: {error.strerror or error}") from error


def tokenizer_files(folder: Path) -> list[Path]:
    """What of a tokenizer's folder goes into a model's."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != "config.json")


def first_ids(tokenizer: Tokenizer) -> list[int]:
    """What the first token of a text is predicted from: the start tokens, or the end of another text, if there are."""
    return list(tokenizer.start_ids) or ([] if tokenizer.eos_id is None else [tokenizer.eos_id])


def end_ids(tokenizer: Tokenizer, chat: str) -> list[int]:
    """What ends a text, and an answer."""
    found = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    used = chat_format(chat)
    if used is not None and used.end in tokenizer.special_tokens:
        found.append(tokenizer.special_tokens[used.end])
    return list(dict.fromkeys(found))


def check_chat_tokens(tokenizer: Tokenizer, chat: str) -> None:
    """Raises UsageError where the tokenizer would spell the format's control tokens out."""
    used = chat_format(chat)
    missing: Sequence[str] = [name for name in used.tokens if name not in tokenizer.special_tokens] if used else ()
    if missing:
        raise UsageError(
            f"the tokenizer has no {missing[0]}, which the chat format {chat} writes: use bpe:N, or make one with "
            f"minigen tokenizer train --special {' '.join(repr(name) for name in missing)}"
        )

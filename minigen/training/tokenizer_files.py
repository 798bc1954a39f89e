"""The tokenizer of a run: learned from its text, downloaded, or that of another model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from minigen.errors import SourceError, UsageError, first_line
from minigen.files import new_folder
from minigen.reading import at_home
from minigen.tokenizer.names import (
    CONFIG,
    SETTINGS,
    TEMPLATES,
    TOKENIZER,
    VOCABULARIES,
    files_there,
    rank_files,
)
from minigen.training.chat_formats import chat_format
from minigen.training.config import Config
from minigen.training.data import open_tokenizer
from minigen.training.data.cutting import END
from minigen.training.data.learning import MERGING
from minigen.training.data.vocabulary import train_tokenizer

GPT2 = "openai-community/gpt2"


def make_tokenizer(
    config: Config,
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    more: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Writes the tokenizer that `config` names into the new folder.

    If it is learned, it is also learned from the files that `more` returns. Raises MinigenError.
    """
    name = config.data.tokenizer
    kind, _, size = name.partition(":")
    if name in ("char", "bytes"):
        learn_tokenizer(config, folder, kind, None, progress, more())
    elif kind == "bpe" and not Path(name).is_dir():
        if not size.isdecimal():
            raise UsageError(
                f"tokenizer is {name!r}: write it as bpe:2048, with the size of the vocabulary"
            )
        learn_tokenizer(config, folder, kind, int(size), progress, more())
    elif name == "gpt2" and not Path(name).is_dir():
        fetch_gpt2(folder)
    elif at_home(name).is_dir():
        copy_tokenizer(at_home(name), folder)
    else:
        raise UsageError(
            f"tokenizer is {name!r}: choose char, bytes, bpe:N, gpt2, or an existing folder"
        )


def learn_tokenizer(
    config: Config,
    folder: Path,
    kind: str,
    size: int | None,
    progress: Callable[[str, int, int], None],
    more: Sequence[str],
) -> None:
    """Learns a tokenizer of this kind and size from the run's data and from `more` files."""
    used_format = chat_format(config.data.chat)
    special: tuple[str, ...] = ()
    if kind == "bpe" and used_format is not None:
        special = used_format.tokens
    train_tokenizer(
        [*config.data.data, *more],
        folder,
        size,
        kind=kind,
        special=special,
        separator=config.data.separator or None,
        progress=lambda done, total: progress("learning the tokenizer", done, total),
        merging=lambda: progress(MERGING, 0, 0),
    )


def fetch_gpt2(folder: Path) -> None:
    """Writes GPT-2's tokenizer, from the hub or its cache, into a folder. Raises SourceError."""
    from huggingface_hub import hf_hub_download

    from minigen.checkpoints.hub.verify import Stated, check_download

    try:
        path = Path(hf_hub_download(GPT2, TOKENIZER, library_name="minigen"))
        check_download(path, Stated(), GPT2)
    except Exception as error:  # those of huggingface_hub's transport, which differ by version
        raise SourceError(
            f"cannot download the tokenizer of {GPT2} ({first_line(error)}): "
            "give a folder that has it to --tokenizer"
        ) from error
    # On the hub the end token is in the model's config.json, which a new model does not copy.
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    settings = {"tokenizer_class": "GPT2Tokenizer", **ends, "add_prefix_space": False}
    with new_folder(folder) as temporary:
        shutil.copyfile(path, temporary / TOKENIZER)
        (temporary / CONFIG).write_text(json.dumps(settings, indent=1) + "\n")


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copies the files of a tokenizer and of its chat template. Raises MinigenError."""
    tokenizer = open_tokenizer(source)
    paths = files_there(source, (*VOCABULARIES, *SETTINGS, *TEMPLATES)) + rank_files(source)
    with new_folder(folder) as temporary:
        for path in paths:
            shutil.copyfile(path, temporary / path.name)
        if tokenizer.kind == "bytes":
            (temporary / "config.json").write_text('{"tokenizer": "bytes"}\n')

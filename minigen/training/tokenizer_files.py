"""The tokenizer of a run: learned from its text, fetched, or the one of another model."""

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
    """Puts the tokenizer that `config` names into the new folder. Where it is learned, `more` is asked for files beside
    the data.

    Raises MinigenError.
    """

    def read(done: int, total: int) -> None:
        progress("learning the tokenizer", done, total)

    wanted, found = config.data.tokenizer, chat_format(config.data.chat)
    kind, _, size = wanted.partition(":")
    if wanted in ("char", "bytes"):
        train_tokenizer(
            [*config.data.data, *more()],
            folder,
            kind=kind,
            separator=config.data.separator or None,
            progress=read,
        )
    elif kind == "bpe" and not Path(wanted).is_dir():
        if not size.isdecimal():
            raise UsageError(
                f"tokenizer is {wanted!r}: write it as bpe:2048, with the size of the vocabulary"
            )
        train_tokenizer(
            [*config.data.data, *more()],
            folder,
            int(size),
            special=found.tokens if found else (),
            separator=config.data.separator or None,
            progress=read,
            merging=lambda: progress(MERGING, 0, 0),
        )
    elif wanted == "gpt2" and not Path(wanted).is_dir():
        fetch_gpt2(folder)
    elif at_home(wanted).is_dir():
        copy_tokenizer(at_home(wanted), folder)
    else:
        raise UsageError(
            f"tokenizer is {wanted!r}: choose char, bytes, bpe:N, gpt2, or a folder that there is"
        )


def fetch_gpt2(folder: Path) -> None:
    """GPT-2's vocabulary from the hub, or its cache. Raises SourceError."""
    from huggingface_hub import hf_hub_download

    from minigen.checkpoints.hub.verify import Stated, check_download

    try:
        path = Path(hf_hub_download(GPT2, TOKENIZER, library_name="minigen"))
        check_download(path, Stated(), GPT2)
    except (
        Exception
    ) as error:  # each version of huggingface_hub lets another transport's errors through
        raise SourceError(
            f"cannot fetch the tokenizer of {GPT2} ({first_line(error)}): give a folder that has it for --tokenizer"
        ) from error
    # The hub's own says in the model's config.json what ends a text, which is none of a new model's files.
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    settings = {"tokenizer_class": "GPT2Tokenizer", **ends, "add_prefix_space": False}
    with new_folder(folder) as beside:
        shutil.copyfile(path, beside / TOKENIZER)
        (beside / CONFIG).write_text(json.dumps(settings, indent=1) + "\n")


def copy_tokenizer(source: Path, folder: Path) -> None:
    """The files of a tokenizer, and whatever says how chats are written. Raises MinigenError."""
    tokenizer = open_tokenizer(source)
    paths = files_there(source, (*VOCABULARIES, *SETTINGS, *TEMPLATES)) + rank_files(source)
    with new_folder(folder) as beside:
        for path in paths:
            shutil.copyfile(path, beside / path.name)
        if tokenizer.kind == "bytes":
            (beside / "config.json").write_text('{"tokenizer": "bytes"}\n')

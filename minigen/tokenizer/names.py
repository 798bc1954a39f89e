"""The names of a tokenizer's files, in a model folder and on the hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

TOKENIZER = "tokenizer.json"
MERGES, VOCABULARY = "merges.txt", "vocab.json"
OLD_MERGES, OLD_VOCABULARY = "vocab.bpe", "encoder.json"  # as GPT-2 called them
CONFIG, TOKEN_MAP, OLDER = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
GENERATION = "generation_config.json"
TEMPLATE, OLD_TEMPLATE = "chat_template.jinja", "chat_template.json"
RANKS = ".tiktoken"  # how the name of a rank file ends

# What says which tokens a text becomes, in the order in which it is looked for; rank files have
# names of their own.
VOCABULARIES = (TOKENIZER, OLD_MERGES, OLD_VOCABULARY, MERGES, VOCABULARY)
SETTINGS = (CONFIG, TOKEN_MAP, OLDER, GENERATION)  # what begins and ends it
TEMPLATES = (TEMPLATE, OLD_TEMPLATE)  # how a conversation is written


def is_text_file(name: str) -> bool:
    """Whether a file of this name says how text is read or written."""
    return name.endswith(RANKS) or name in (*VOCABULARIES, *SETTINGS, *TEMPLATES)


def files_there(folder: Path, names: Iterable[str]) -> list[Path]:
    """Those of these files that a folder has."""
    return only_files(folder / name for name in names)


def rank_files(folder: Path) -> list[Path]:
    """The files of tiktoken's ranks in a folder, in the order of their names."""
    return only_files(sorted(folder.glob(f"*{RANKS}")))


def only_files(paths: Iterable[Path]) -> list[Path]:
    """The paths that are files."""
    return [path for path in paths if path.is_file()]

"""Tokenizers made from text: byte-level BPE, characters, bytes; saved as other programs read them."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.errors import MinigenError, UsageError
from minigen.files import new_folder
from minigen.tokenizer import Tokenizer
from minigen.tokenizer.names import CONFIG, TOKENIZER, VOCABULARY
from minigen.training.data.cutting import END
from minigen.training.data.dataset import Sources
from minigen.training.data.documents import Chat, read_files
from minigen.training.data.encoding import Progress
from minigen.training.data.identity import open_tokenizer
from minigen.training.data.learning import learn_bpe
from minigen.training.data.sources import find_files

KINDS = ("bpe", "char", "bytes")

log = logging.getLogger("minigen.training.data")


@dataclass(frozen=True)
class Made:
    """A tokenizer that was made, and what of."""

    tokenizer: Tokenizer
    files: tuple[Path, ...]
    documents: int
    bytes: int  # of text in UTF-8


def train_tokenizer(
    sources: Sources,
    out: Path,
    vocab_size: int | None = None,
    *,
    kind: str = "bpe",
    special: Sequence[str] = (),
    separator: str | None = None,
    progress: Progress = lambda done, total: None,
    merging: Callable[[], None] = lambda: None,
) -> Made:
    """Makes a tokenizer of `vocab_size` tokens from texts and saves it as the folder `out`.

    "bpe": byte-level BPE with GPT-2's pattern (Radford et al. 2019, "Language models are unsupervised multitask
    learners"), as tokenizer.json with tokenizer_config.json; the same files make the same tokenizer. <|endoftext|> is
    its first token, it ends a text, and `special` ones follow. Where a text has these they are no text. "char": the
    characters that occur, by code point; "bytes": nothing to learn. A smaller vocabulary than asked for, where the
    text gives no more, is a logged warning. `merging` is called as `learn_bpe` does.

    Raises UsageError: a size or a special token that cannot be, or `out` is there and not empty.
    Raises DataError: a source cannot be used.
    Raises MinigenError: `out` cannot be written.
    """
    names = list(dict.fromkeys([END, *special]))
    check_settings(kind, vocab_size, names)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there already: name a new folder")
    files = find_files(sources).files
    counts = [0, 0]
    texts = _texts(files, names if kind == "bpe" else [], separator, counts, progress)
    contents: dict[str, Any]
    if kind == "bpe":
        assert vocab_size is not None
        library = learn_bpe(texts, vocab_size, names, merging)
        if library.get_vocab_size() < vocab_size:
            log.warning(
                "%d tokens were made of the %d asked for: the text has no more pairs that stand in it twice",
                library.get_vocab_size(),
                vocab_size,
            )
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END,
            "eos_token": END,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
        }
        contents = {TOKENIZER: json.loads(library.to_str()), CONFIG: settings}
    elif kind == "char":
        contents = {VOCABULARY: sorted({character for text in texts for character in set(text)})}
    else:
        for _ in texts:
            pass
        contents = {"config.json": {"tokenizer": "bytes"}}
    save(out, contents)
    return Made(open_tokenizer(out), files, *counts)


def check_settings(kind: str, vocab_size: int | None, names: Sequence[str]) -> None:
    if kind not in KINDS:
        raise UsageError(f"the kind of tokenizer is {kind!r}: known are {', '.join(KINDS)}")
    if kind != "bpe":
        if vocab_size is not None or len(names) > 1:
            raise UsageError(
                f"a vocabulary size and special tokens are for bpe alone: drop them, or {kind}"
            )
        return
    if vocab_size is None:
        raise UsageError("bpe needs a vocabulary size, such as 2048")
    from tokenizers import pre_tokenizers

    for name in names:
        # A word of the text could become the same token.
        if (
            len(pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(name)) < 2
            or name != name.strip()
        ):
            raise UsageError(f"the special token {name!r} looks like text: write it like <|name|>")
    least = 256 + len(names)
    if vocab_size < least:
        raise UsageError(
            f"the vocabulary size is {vocab_size}: it must be at least {least}, the bytes and {len(names)} special"
        )


def _texts(
    files: Sequence[Path],
    special: Sequence[str],
    separator: str | None,
    counts: list[int],
    progress: Progress,
) -> Iterator[str]:
    """Texts without the special tokens in them; documents and bytes are counted on the way."""
    total, done = sum(path.stat().st_size for path in files), 0
    between = re.compile(
        "|".join(re.escape(name) for name in sorted(special, key=len, reverse=True))
    )

    def read(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    for part in read_files(files, separator, read=read):
        counts[0] += part.last
        for text in (
            [message["content"] for message in part.messages]
            if isinstance(part, Chat)
            else [part.text]
        ):
            counts[1] += len(text.encode("utf-8"))
            yield from filter(None, between.split(text)) if special else [text]


def save(out: Path, contents: dict[str, Any]) -> None:
    """Writes JSON files as a new folder, whole or not at all."""
    try:
        with new_folder(out, shared=True) as beside:
            for name, content in contents.items():
                path = beside / name
                path.write_text(
                    json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
                )
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
    except OSError as error:
        raise MinigenError(f"cannot write {out}: {error.strerror or error}") from error
    if not all((out / name).is_file() for name in contents):
        raise MinigenError(f"cannot write {out}: another program filled it meanwhile")

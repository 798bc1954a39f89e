"""Makes tokenizers from text: byte-level BPE, characters or bytes, in common file formats."""

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
from minigen.training.data.documents import Text, read_files
from minigen.training.data.encoding import Progress
from minigen.training.data.identity import open_tokenizer
from minigen.training.data.learning import learn_bpe
from minigen.training.data.sources import find_files

KINDS = ("bpe", "char", "bytes")

log = logging.getLogger("minigen.training.data")


@dataclass(frozen=True)
class Made:
    """A new tokenizer, and the texts that it was made from."""

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
    """Makes a tokenizer from texts and saves it as the folder `out`.

    "bpe": byte-level BPE of `vocab_size` tokens with GPT-2's pattern (Radford et al. 2019,
    "Language models are unsupervised multitask learners"), as tokenizer.json with
    tokenizer_config.json; the same files make the same tokenizer. Its first token is <|endoftext|>,
    the end token; then come those of `special`. In texts these are not learned as text. If the text
    allows only a smaller vocabulary, that is logged as a warning.
    "char": the characters that occur, by code point. "bytes": nothing is learned.

    `merging` is called as in `learn_bpe`.

    Raises UsageError: an invalid size or special token, or `out` exists and is not empty.
    Raises DataError: a source cannot be used.
    Raises MinigenError: `out` cannot be written.
    """
    names = list(dict.fromkeys([END, *special]))
    check_settings(kind, vocab_size, names)
    is_empty_folder = out.is_dir() and not any(out.iterdir())
    if out.exists() and not is_empty_folder:
        raise UsageError(f"{out} already exists: name a new folder")
    files = find_files(sources).files
    texts = Texts(files, names if kind == "bpe" else [], separator, progress)
    contents: dict[str, Any]
    if kind == "bpe":
        assert vocab_size is not None
        library = learn_bpe(texts, vocab_size, names, merging)
        if library.get_vocab_size() < vocab_size:
            log.warning(
                "the vocabulary has %d tokens instead of %d: no other pair occurs twice in the "
                "text",
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
        contents = {
            TOKENIZER: json.loads(library.to_str()),
            CONFIG: settings,
        }
    elif kind == "char":
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        contents = {VOCABULARY: sorted(characters)}
    else:
        for _ in texts:
            pass
        contents = {"config.json": {"tokenizer": "bytes"}}
    save(out, contents)
    return Made(open_tokenizer(out), files, texts.documents, texts.bytes)


def check_settings(kind: str, vocab_size: int | None, names: Sequence[str]) -> None:
    """Raises UsageError for an invalid kind, vocabulary size or name of a special token."""
    if kind not in KINDS:
        raise UsageError(f"the kind of tokenizer is {kind!r}: it must be one of {', '.join(KINDS)}")
    if kind != "bpe":
        if vocab_size is not None or len(names) > 1:
            raise UsageError(
                f"a vocabulary size and special tokens are only for bpe: drop them, or {kind}"
            )
        return
    if vocab_size is None:
        raise UsageError("bpe needs a vocabulary size, such as 2048")
    from tokenizers import pre_tokenizers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for name in names:
        # Otherwise a word of the text could become the same token.
        is_word = len(words.pre_tokenize_str(name)) < 2
        if is_word or name != name.strip():
            raise UsageError(f"the special token {name!r} looks like text: write it like <|name|>")
    least = 256 + len(names)
    if vocab_size < least:
        raise UsageError(
            f"the vocabulary size is {vocab_size}: it must be at least {least}, "
            f"for the bytes and {len(names)} special tokens"
        )


class Texts:
    """The texts of files, split at special tokens; documents and bytes are counted."""

    def __init__(
        self,
        files: Sequence[Path],
        special: Sequence[str],
        separator: str | None,
        progress: Progress,
    ) -> None:
        self.files = files
        self.separator = separator
        self.progress = progress
        self.pattern: re.Pattern[str] | None = None
        if special:
            longest_first = sorted(special, key=len, reverse=True)
            self.pattern = re.compile("|".join(re.escape(name) for name in longest_first))
        self.documents = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        total = sum(path.stat().st_size for path in self.files)
        done = 0

        def on_read(count: int) -> None:
            nonlocal done
            done += count
            self.progress(done, total)

        for part in read_files(self.files, self.separator, on_read=on_read):
            self.documents += part.last
            contents = [part.text] if isinstance(part, Text) else part.contents
            for content in contents:
                self.bytes += len(content.encode("utf-8"))
                yield from self._split(content)

    def _split(self, text: str) -> list[str]:
        if self.pattern is None:
            return [text]
        return [piece for piece in self.pattern.split(text) if piece]


def save(out: Path, contents: dict[str, Any]) -> None:
    """Writes JSON files as a new folder, all of them or none."""
    try:
        with new_folder(out, shared=True) as temporary:
            for name, content in contents.items():
                path = temporary / name
                text = json.dumps(content, ensure_ascii=False, indent=1)
                path.write_text(text + "\n", encoding="utf-8")
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
    except OSError as error:
        raise MinigenError(f"cannot write {out}: {error.strerror or error}") from error
    if not all((out / name).is_file() for name in contents):
        raise MinigenError(f"cannot write {out}: another program has written to it meanwhile")

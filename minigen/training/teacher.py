"""Distillation from a teacher: by its probabilities, if the tokenizer is the same, or its text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from minigen.backends.base import Backend
from minigen.backends.training import SoftTargets
from minigen.checkpoints.fingerprint import fingerprint
from minigen.checkpoints.hub import resolve
from minigen.errors import MinigenError, SourceError, UsageError
from minigen.files import replacing
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.rows import Row
from minigen.model import Model, load
from minigen.tokenizer import Tokenizer
from minigen.training.config import Config, TeacherConfig
from minigen.training.data import find_files, open_tokenizer
from minigen.training.data.cutting import END
from minigen.training.data.identity import tokenizer_identity
from minigen.training.model_files import first_ids

TEXT = "teacher.txt"  # in RUN: the text of the teacher
WRITING = "the teacher writes"
ROWS, ROOM = 64, 2**16  # documents that are written at once, and their tokens in total, at most
LONGEST = 1024  # tokens of a document, if the teacher's context has no limit

Progress = Callable[[int, int], None]  # (tokens written, tokens to write)


@dataclass(frozen=True)
class Teacher:
    """A teacher; its model is loaded on first use, on the backend of the run and in its dtype."""

    settings: TeacherConfig
    folder: Path
    ops: Backend

    @cached_property
    def model(self) -> Model:
        return load(self.folder, self.ops.name, self.ops.device, self.ops.dtype)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return open_tokenizer(self.folder)

    @cached_property
    def identity(self) -> str:
        return fingerprint(self.folder)

    # -- its probabilities --
    def soft_targets(self, tokenizer: Tokenizer, folder: Path, context: int) -> SoftTargets | None:
        """The targets of a student that reads rows of `context` tokens.

        `tokenizer`, with its files in `folder`, is the student's. None if the settings want only
        the teacher's text: with a weight of 0, or with another tokenizer.

        Raises UsageError if there is nothing to learn from, or if the teacher cannot read such
        rows.
        """
        if not self.has_same_tokens(tokenizer, folder):
            if not self.settings.tokens:
                raise UsageError(
                    f"the teacher {self.folder} has another tokenizer, so it has no probabilities "
                    "of the student's tokens: drop --tokenizer to use the teacher's, or add "
                    "--teacher-tokens N to learn from its text"
                )
            return None
        if not self.settings.weight:
            return None
        architecture = self.model.architecture
        if architecture.vocab_size < tokenizer.vocab_size:
            raise UsageError(
                f"the teacher {self.folder} has a vocabulary of {architecture.vocab_size}, but its "
                f"tokenizer has {tokenizer.vocab_size} tokens: name a complete model for --teacher"
            )
        if architecture.context is not None and context > architecture.context:
            raise UsageError(
                f"context is {context}, but the teacher {self.folder} reads at most "
                f"{architecture.context} tokens: lower --context, or name another teacher"
            )
        return SoftTargets(
            architecture.forward,
            self.model.runner.params,
            tokenizer.vocab_size,
            self.settings.weight,
            self.settings.temperature,
        )

    def has_same_tokens(self, tokenizer: Tokenizer, folder: Path) -> bool:
        """Whether each id is the same token, even if the tokenizers encode differently."""
        own = self.tokenizer
        if tokenizer_identity(own, self.folder) == tokenizer_identity(tokenizer, folder):
            return True
        if own.vocab_size != tokenizer.vocab_size:
            return False
        return all(own.token_bytes(i) == tokenizer.token_bytes(i) for i in range(own.vocab_size))

    # -- its text --
    def text(
        self, run: Path, config: Config, progress: Progress = lambda done, total: None
    ) -> Path:
        """The file of the teacher's text, which is generated unless it exists already.

        This is sequence-level knowledge distillation (Kim and Rush 2016) with sampling in place of
        search. Raises MinigenError if the teacher writes no text, or if the file cannot be written.
        """
        path = run / TEXT
        if path.is_file():
            return path
        separator = f"\n{config.data.separator or END}\n"
        with replacing(path) as temporary:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                is_empty = True
                for text in self.documents(config.run.seed, progress):
                    if text.strip():
                        file.write(text if is_empty else separator + text)
                        is_empty = False
            if is_empty:
                raise MinigenError(
                    f"the teacher {self.folder} wrote no text in {self.settings.tokens} tokens: "
                    "ask for more with --teacher-tokens, or name another teacher"
                )
        return path

    def documents(self, seed: int, progress: Progress = lambda done, total: None) -> Iterator[str]:
        """Documents sampled at temperature 1, until they have the tokens of the settings.

        Each document depends only on the seed and its number, not on how many are generated at
        once. It begins after the tokenizer's start token, or a line break if there is none, and
        ends with the end token or the context. Control tokens are not part of the text; the end
        token is counted.
        """
        model = self.model
        total = self.settings.tokens
        start = first_ids(self.tokenizer) or self.tokenizer.encode("\n")
        ends = model.stop_ids if self.tokenizer.eos_id is None else {self.tokenizer.eos_id}
        longest = LONGEST
        if model.architecture.context is not None:
            longest = max(model.architecture.context - len(start), 1)
        longest = min(longest, total)
        options = Options.of(max_tokens=longest, temperature=1.0, top_p=1.0, seed=seed)
        done = number = 0
        while done < total:
            average = done / number if number else longest  # tokens of a document so far
            count = min(ROWS, max(ROOM // longest, 1), math.ceil((total - done) / average))
            rows = [Row(list(start), number + i) for i in range(count)]
            for _ in generate(model.runner, rows, options, ends):
                generated = sum(len(row.ids) for row in rows)
                progress(min(done + generated, total), total)
            for row in rows:
                if done >= total:
                    break
                done += len(row.ids)
                number += 1
                ids = row.ids[:-1] if row.finish == "stop" else row.ids
                # NUL is replaced like other bytes that are not text: no reader accepts it.
                yield self.tokenizer.decode(ids).replace("\0", "\ufffd")


def open_teacher(config: Config, ops: Backend) -> Teacher | None:
    """The teacher of resolved settings; None if they name none."""
    if not config.teacher.model:
        return None
    return Teacher(config.teacher, Path(config.teacher.model), ops)


def check_sources(config: Config) -> None:
    """Raises MinigenError for sources without files, and for missing validation data."""
    if config.data.data or not config.teacher.tokens:
        find_files(config.data.data)
    elif not config.data.valid_data:
        raise UsageError(
            "no data to validate with: the teacher's text is only for training; "
            "name a file for --valid-data, or DATA of which a part is for validation"
        )
    if config.data.valid_data:
        find_files(config.data.valid_data)


def resolve_teacher(name: str) -> str:
    """The folder of a teacher. Raises SourceError if there is none."""
    try:
        return str(resolve(name).resolve())
    except SourceError as error:
        raise SourceError(f"cannot load the teacher: {error}") from error

"""A model to learn from: by its probabilities where it has the student's tokenizer, by text that it writes for any."""

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

TEXT = "teacher.txt"  # in RUN: what the teacher wrote
WRITING = "the teacher writes"
ROWS, ROOM = (
    64,
    2**16,
)  # documents that are written at once, and the tokens that they may have together
LONGEST = 1024  # tokens of a document, where the teacher's context has no bound

Progress = Callable[[int, int], None]  # tokens written, of all


@dataclass(frozen=True)
class Teacher:
    """`model` is loaded when it is first needed, on the backend of the run and in its dtype."""

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

    # -- its probabilities --------------------------------------------------------------------------------------------
    def soft_targets(self, tokenizer: Tokenizer, folder: Path, context: int) -> SoftTargets | None:
        """For a student with this tokenizer, in `folder`, that reads rows of `context` tokens; None where the settings
        ask for text alone, by a weight of 0 or another tokenizer.

        Raises UsageError where there is nothing to learn from, or the teacher cannot read such rows.
        """
        if not self.agrees(tokenizer, folder):
            if not self.settings.tokens:
                raise UsageError(
                    f"the teacher {self.folder} has another tokenizer, so its probabilities are not of the student's "
                    "tokens: leave --tokenizer out to take the teacher's, or say --teacher-tokens N to learn from "
                    "text that it writes"
                )
            return None
        if not self.settings.weight:
            return None
        found = self.model.architecture
        if found.vocab_size < tokenizer.vocab_size:
            raise UsageError(
                f"the teacher {self.folder} has a vocabulary of {found.vocab_size}, and its tokenizer "
                f"{tokenizer.vocab_size} tokens: name a whole model for --teacher"
            )
        if found.context is not None and context > found.context:
            raise UsageError(
                f"context is {context}, and the teacher {self.folder} reads at most {found.context} tokens: lower "
                "--context, or name another teacher"
            )
        params, s = self.model.runner.params, self.settings
        return SoftTargets(found.forward, params, tokenizer.vocab_size, s.weight, s.temperature)

    def agrees(self, tokenizer: Tokenizer, folder: Path) -> bool:
        """Whether each id is the same token here and there. That other files say so matters only to what encodes."""
        mine = self.tokenizer
        if tokenizer_identity(mine, self.folder) == tokenizer_identity(tokenizer, folder):
            return True
        same_size = mine.vocab_size == tokenizer.vocab_size
        return same_size and all(
            mine.token_bytes(i) == tokenizer.token_bytes(i) for i in range(mine.vocab_size)
        )

    # -- its text -----------------------------------------------------------------------------------------------------
    def text(
        self, run: Path, config: Config, progress: Progress = lambda done, total: None
    ) -> Path:
        """The file of what it wrote (Kim and Rush 2016, "Sequence-level knowledge distillation", here sampled instead
        of searched for), written now where it is not there yet: whole, or not at all.

        Raises MinigenError where nothing comes of it, or the disk refuses.
        """
        path, between, empty = run / TEXT, f"\n{config.data.separator or END}\n", True
        if not path.is_file():
            with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
                for text in self.documents(config.run.seed, progress):
                    if text.strip():
                        file.write(text if empty else between + text)
                        empty = False
                if empty:
                    raise MinigenError(
                        f"the teacher {self.folder} wrote no text in {self.settings.tokens} tokens: ask for more with "
                        "--teacher-tokens, or name another teacher"
                    )
        return path

    def documents(self, seed: int, progress: Progress = lambda done, total: None) -> Iterator[str]:
        """Documents drawn at temperature 1, until they have the tokens asked for, those that end them counted. Each is
        a function of the seed and its number: it does not matter how many are written at once.

        One begins after the tokenizer's start token (or a line break, where it has none) and ends with its end token,
        or where the context does. Control tokens are no part of the text.
        """
        model, wanted = self.model, self.settings.tokens
        start = first_ids(self.tokenizer) or self.tokenizer.encode("\n")
        ends = model.stop_ids if self.tokenizer.eos_id is None else {self.tokenizer.eos_id}
        bound = model.architecture.context
        room = min(LONGEST if bound is None else max(bound - len(start), 1), wanted)
        options = Options.of(max_tokens=room, temperature=1.0, top_p=1.0, seed=seed)
        done = number = 0
        while done < wanted:
            usual = done / number if number else room  # tokens of a document
            count = min(ROWS, max(ROOM // room, 1), math.ceil((wanted - done) / usual))
            rows = [Row(list(start), number + i) for i in range(count)]
            for _ in generate(model.runner, rows, options, ends):
                progress(min(done + sum(len(row.ids) for row in rows), wanted), wanted)
            for row in rows:
                if done < wanted:
                    done, number = done + len(row.ids), number + 1
                    text = self.tokenizer.decode(row.ids[:-1] if row.finish == "stop" else row.ids)
                    yield text.replace(
                        "\0", "\ufffd"
                    )  # as other bytes that are no text; no reader takes a zero


def open_teacher(config: Config, ops: Backend) -> Teacher | None:
    """The teacher of settings that are resolved; None where they name none."""
    return (
        Teacher(config.teacher, Path(config.teacher.model), ops) if config.teacher.model else None
    )


def check_sources(config: Config) -> None:
    """Raises MinigenError for names of data that mean nothing, and where there is none to validate with."""
    if config.data.data or not config.teacher.tokens:
        find_files(config.data.data)
    elif not config.data.valid_data:
        raise UsageError(
            "no data to validate with: what a teacher writes is for training alone; name a file for --valid-data, or "
            "DATA of which a share validates"
        )
    if config.data.valid_data:
        find_files(config.data.valid_data)


def resolve_teacher(name: str) -> str:
    """Its folder. Raises SourceError where there is none."""
    try:
        return str(resolve(name).resolve())
    except SourceError as error:
        raise SourceError(f"no teacher: {error}") from error

"""log.jsonl: a line for each report and each validation, and one for what the run is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from minigen.errors import MinigenError, UsageError
from minigen.files import replacing
from minigen.locks import only_process
from minigen.reading import parse_json, read_bytes

NAME = "log.jsonl"
LOCK = ".lock"  # in the folder of the run, while a process trains it
MOST_BYTES = 2**30


class RunLog:
    """The log of a run under way, which also keeps a second process out. `after`: lines of later steps are dropped."""

    def __init__(self, run: Path, after: int) -> None:
        """Raises MinigenError where it cannot be written, or another process trains this run."""
        self.path = run / NAME
        busy = f"{run} is being trained by another process: wait for it, or end it"
        with ExitStack() as opened:
            opened.enter_context(only_process(run / LOCK, busy))
            try:
                self.drop_later(after)
                self.file = opened.enter_context(self.path.open("a", encoding="utf-8"))
            except OSError as error:
                raise MinigenError(
                    f"cannot write {self.path}: {error.strerror or error}"
                ) from error
            self.opened = opened.pop_all()

    def drop_later(self, after: int) -> None:
        """Removes the lines of later steps."""
        if not self.path.exists():
            return
        kept = [row for row in read_log(self.path.parent) if row.get("step", 0) <= after]
        with replacing(self.path) as beside:
            beside.write_text("".join(line(row) for row in kept), encoding="utf-8")

    def add(self, row: Mapping[str, Any]) -> None:
        try:
            self.file.write(line(row))
            self.file.flush()
        except OSError as error:
            raise MinigenError(f"cannot write {self.path}: {error.strerror or error}") from error

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # a full disk, which has been said
            self.opened.close()


def line(row: Mapping[str, Any]) -> str:
    """JSON has no NaN and no infinity: they become null."""
    plain = {
        name: None if isinstance(x, float) and not math.isfinite(x) else x
        for name, x in row.items()
    }
    return json.dumps(plain, ensure_ascii=False) + "\n"


def read_log(run: Path) -> list[dict[str, Any]]:
    """All whole lines; one that a kill cut short, be it inside a character, is left out, and what is no row of a log.

    Raises UsageError where there is no log that can be read.
    """
    try:
        content = read_bytes(run / NAME, MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {run / NAME}: {reason}: name the folder of a run") from error
    rows = []
    for text_line in content.split(b"\n")[:-1]:
        try:
            row = parse_json(text_line)
        except ValueError:
            continue
        if isinstance(row, dict) and type(row.get("step", 0)) is int:
            rows.append(row)
    return rows

"""What a check of a prompt file reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning"]
Problems = Iterator[tuple[str, str]]  # (where, message) of each problem that a check reports


@dataclass(frozen=True)
class Finding:
    """An error makes results wrong or impossible; a warning matters when they are interpreted."""

    level: Level
    where: str  # FILE:LINE, or FILE if it concerns the whole file
    message: str  # one line: what is wrong; what to do

    def __str__(self) -> str:
        return f"{self.where}: {self.level}: {self.message}"


def gather(level: Level, problems: Iterable[tuple[str, str]]) -> list[Finding]:
    """One finding for all problems (where, message) of a check: the first, and how many follow."""
    all_problems = list(problems)
    if not all_problems:
        return []
    where, message = all_problems[0]
    if len(all_problems) > 1:
        message += f" ({len(all_problems) - 1} more like this)"
    return [Finding(level, where, message)]

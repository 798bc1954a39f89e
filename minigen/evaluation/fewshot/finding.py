"""What a check has to say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning"]
Found = Iterator[tuple[str, str]]  # (where, message) of each time that a check finds something


@dataclass(frozen=True)
class Finding:
    """An error makes results wrong or impossible; a warning is to be known when they are read."""

    level: Level
    where: str  # FILE:LINE, or FILE where it is about the whole
    message: str  # one line: what is wrong; what to do

    def __str__(self) -> str:
        return f"{self.where}: {self.level}: {self.message}"


def gather(level: Level, found: Iterable[tuple[str, str]]) -> list[Finding]:
    """One finding for all (where, message) of a kind: the first, and how many more there are."""
    all_found = list(found)
    if not all_found:
        return []
    where, message = all_found[0]
    more = f" ({len(all_found) - 1} more like this)" if len(all_found) > 1 else ""
    return [Finding(level, where, message + more)]

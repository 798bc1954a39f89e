"""Regular expressions from files, run within a time: one of twenty characters can take longer than the universe is old.

By the `regex` library, which can be stopped and which tiktoken brings; for these patterns it means what `re` does.
"""

from __future__ import annotations

import time

SECONDS = 5.0
LONGEST = 10_000  # characters of a pattern


class Matcher:
    """Matches patterns until `seconds` are over, all of them together."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds

    def begins(self, pattern: str, text: str) -> bool:
        """Whether a text begins with the pattern. Raises as `_find` does."""
        return self._find(pattern, text, anchored=True)

    def stands_in(self, pattern: str, text: str) -> bool:
        """Whether it stands somewhere in a text. Raises as `_find` does."""
        return self._find(pattern, text, anchored=False)

    def _find(self, pattern: str, text: str, *, anchored: bool) -> bool:
        """Raises ValueError, saying why, for what is no pattern, and TimeoutError where the time is over."""
        if len(pattern) > LONGEST:
            raise ValueError(f"a pattern of more than {LONGEST} characters")
        import regex  # when it is needed: it takes a fiftieth of a second

        left = self.end - time.monotonic()
        try:
            compiled = regex.compile(pattern)
            if left <= 0:
                raise TimeoutError
            found = compiled.match(text, timeout=left) if anchored else compiled.search(text, timeout=left)
        except TimeoutError:
            raise TimeoutError(f"it takes more than {self.seconds:g} seconds to match") from None
        except (regex.error, RecursionError, OverflowError) as error:
            raise ValueError(str(error)) from None
        return found is not None

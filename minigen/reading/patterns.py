"""Regular expressions from files, with a time limit: some of twenty characters run for ever.

They are run by the `regex` library, which can be stopped and which tiktoken depends on; for these
patterns it is equivalent to `re`.
"""

from __future__ import annotations

import time

SECONDS = 5.0
LONGEST = 10_000  # characters of a pattern


class Matcher:
    """Matches patterns for `seconds` in all."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds

    def begins(self, pattern: str, text: str) -> bool:
        """Whether a text begins with the pattern. Raises as `_find` does."""
        return self._find(pattern, text, anchored=True)

    def stands_in(self, pattern: str, text: str) -> bool:
        """Whether a text contains a match. Raises as `_find` does."""
        return self._find(pattern, text, anchored=False)

    def _find(self, pattern: str, text: str, *, anchored: bool) -> bool:
        """Raises ValueError for an invalid pattern, and TimeoutError when the time is over."""
        if len(pattern) > LONGEST:
            raise ValueError(f"a pattern of more than {LONGEST} characters")
        import regex  # late, as importing it takes 20 ms

        left = self.end - time.monotonic()
        try:
            compiled = regex.compile(pattern)
            if left <= 0:
                raise TimeoutError
            find = compiled.match if anchored else compiled.search
            match = find(text, timeout=left)
        except TimeoutError:
            raise TimeoutError(f"it takes more than {self.seconds:g} seconds to match") from None
        except (regex.error, RecursionError, OverflowError) as error:
            raise ValueError(str(error)) from None
        return match is not None

"""Stop strings in a text that comes in pieces: what can be shown already, and when to stop."""

from collections.abc import Sequence

from minigen.errors import UsageError


class StopStrings:
    """Cuts a text before the first stop string, even if that spans several pieces.

    The occurrence that starts earliest counts, whichever ends first, so the result does not depend
    on how the text was cut into pieces: if "bc" is complete, but an "abcd" around it may still
    come, `push` waits for the next piece. Characters are compared without normalization.

    Raises UsageError for anything but a list of strings that are not empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str) or not isinstance(stops, Sequence):
            raise UsageError(f"stop is {stops!r}: it must be a list of strings")
        for stop in stops:
            if not isinstance(stop, str) or not stop:
                raise UsageError(
                    f"stop has the entry {stop!r}: it must be a string of at least one character"
                )
        self.stops = tuple(dict.fromkeys(stops))
        self.longest = max(map(len, self.stops), default=0)
        self.found = False  # whether the text has reached a stop string; what follows is ignored
        self._withheld = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Takes the next piece.

        Only the longest end of the text that may still become a stop string is withheld.

        Returns the text that is now certain to come before any stop string, and `found`.
        """
        if self.found:
            return "", True
        text = self._withheld + text
        stop, unclear = self._first(text), self._unclear(text)
        self.found = stop < len(text) and stop <= unclear
        end = min(stop, unclear)
        self._withheld = text[end:]
        if self.found:
            self._withheld = ""
        return text[:end], self.found

    def finish(self) -> str:
        """Ends the text. Returns what was withheld, up to a stop string in it, and sets `found`."""
        text, self._withheld = self._withheld, ""
        stop = self._first(text)
        self.found = self.found or stop < len(text)
        return text[:stop]

    def _first(self, text: str) -> int:
        """Where the first complete stop string starts in `text`, or its length."""
        first = len(text)
        for stop in self.stops:
            start = text.find(stop)
            if start >= 0:
                first = min(first, start)
        return first

    def _unclear(self, text: str) -> int:
        """Where the longest end of `text` that may become a stop string starts, or its length."""
        for start in range(max(0, len(text) - self.longest + 1), len(text)):
            if self._may_become_stop(text[start:]):
                return start
        return len(text)

    def _may_become_stop(self, end: str) -> bool:
        return any(len(end) < len(stop) and stop.startswith(end) for stop in self.stops)

"""Stop strings over a text that arrives in pieces: what may be shown already, and when to stop."""

from collections.abc import Sequence

from minigen.errors import UsageError


class StopStrings:
    """Cuts a streamed text before the first stop string in it; a stop string may span any number of pieces.

    The occurrence that starts earliest wins, whichever ends first, so the text that comes out does not depend
    on how it was cut into pieces: where "bc" is complete but an "abcd" around it may still come, `push` waits
    for the next piece. Characters are compared as they are, without normalisation. UsageError for a stop that
    is empty or no string.
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
        self.found = False  # whether the text has come to a stop string; what follows is ignored
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Take the next piece; return the text that now surely comes before any stop string, and `found`.

        Held back is only the longest end of the text that may still turn out to begin a stop string.
        """
        if self.found:
            return "", True
        text = self._held + text
        stop, pending = self._first(text), self._pending(text)
        self.found = stop < len(text) and stop <= pending
        end = min(stop, pending)
        self._held = "" if self.found else text[end:]
        return text[:end], self.found

    def finish(self) -> str:
        """Return what is held back, up to a stop string in it: the text ends here. Sets `found` as `push`."""
        text, self._held = self._held, ""
        stop = self._first(text)
        self.found = self.found or stop < len(text)
        return text[:stop]

    def _first(self, text: str) -> int:
        """Return where the earliest complete stop string starts in `text`, or its length."""
        return min((at for stop in self.stops if (at := text.find(stop)) >= 0), default=len(text))

    def _pending(self, text: str) -> int:
        """Return where the longest end of `text` that may grow into a stop string starts, or its length."""
        longest = max(map(len, self.stops), default=0)
        for start in range(max(0, len(text) - longest + 1), len(text)):
            if any(
                len(text) - start < len(stop) and stop.startswith(text[start:])
                for stop in self.stops
            ):
                return start
        return len(text)

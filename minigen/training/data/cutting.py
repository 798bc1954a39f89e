"""A text in pieces: at the separators of its documents, and inside a long document where a cut changes no token."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from minigen.errors import UsageError
from minigen.tokenizer.base import SEPARATOR

END = SEPARATOR  # a line of it ends a document, where no other separator is given
PIECE = 2**19  # characters of a document that are taken at once, where it may be cut

_END_LINE = re.compile(rf"(?<![^\n]){re.escape(END)}(?=\r?(?:\n|\Z))")


def split_text(
    chunks: Iterable[str], separator: str | None = None, *, whole: bool = False
) -> Iterator[tuple[str, bool]]:
    """Pieces of the documents of a text, each with whether it is the last one of its document.

    A separator may stand anywhere; without one, a line that is exactly END separates. White space beside a separator
    belongs to no document, and neither does a document that is nothing else. `whole`: a document is never cut.
    Raises UsageError for an empty separator.
    """
    if separator == "":
        raise UsageError("the separator of documents is empty: give a text such as <|endoftext|>")
    pattern = _END_LINE if separator is None else re.compile(re.escape(separator))
    reach = len(separator or END) + 2  # a match may need so many characters that are not here yet
    buffer = ""
    start = 0  # of what is not given out yet; one character before it is kept, since a pattern may look back
    searched = 0  # no separator begins before it
    fresh = False  # a separator was the last thing; white space after it goes
    begun = False  # a piece of this document was given out
    for chunk, final in _with_last(chunks):
        buffer += chunk
        while True:
            match = pattern.search(buffer, searched)
            if match is None or (match.end() + 2 > len(buffer) and not final):
                break
            text = buffer[start : match.start()].rstrip()
            text = text.lstrip() if fresh else text
            assert text or not begun, "a cut leaves something that is no white space"
            if text:
                yield text, True
            start = searched = match.end()
            fresh, begun = True, False
        searched = max(searched, (match.start() if match else len(buffer)) - reach)
        if fresh:
            start += len(buffer) - start - len(buffer[start:].lstrip())
            fresh = start == len(buffer)
            searched = max(searched, start)
        if not whole and not final:
            while cut := last_cut(buffer, start + PIECE // 2, min(start + PIECE, searched - 1)):
                yield buffer[start:cut], False
                start, begun = cut, True
        keep = max(start - 1, 0)
        buffer, start, searched = buffer[keep:], start - keep, max(searched - keep, 0)
    text = buffer[start:]
    if begun or text.strip():
        yield from cut_text(text, whole=whole)


def cut_text(text: str, *, whole: bool = False) -> Iterator[tuple[str, bool]]:
    """The pieces of one document that is here already, each with whether it is the last one."""
    start = 0
    while not whole and (cut := last_cut(text, start + PIECE // 2, start + PIECE)):
        yield text[start:cut], False
        start = cut
    yield text[start:], True


def _with_last(chunks: Iterable[str]) -> Iterator[tuple[str, bool]]:
    held: str | None = None
    for chunk in chunks:
        if held is not None:
            yield held, False
        held = chunk
    yield held or "", True


def last_cut(text: str, low: int, high: int) -> int | None:
    """The last place from `low` to below `high` where a text may be cut and gets the same tokens in two parts.

    That holds for a tokenizer that has characters or bytes for tokens, and for each of the patterns in
    tokenizer/bytelevel.py: they all cut before " a" and after "\n" if no other white space is beside these. (A run of
    white space is cut by what follows it; signs take line breaks and, with o200k, "/" after these.)
    """
    for place in range(min(high, len(text) - 1) - 1, max(low, 2) - 1, -1):
        before, here = text[place - 1], text[place]
        if here == " ":
            if text[place + 1].isalpha() and not before.isspace():
                return place
        elif before == "\n" and not (here.isspace() or here == "/" or text[place - 2].isspace()):
            return place
    return None

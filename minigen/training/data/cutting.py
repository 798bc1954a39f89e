"""Cuts a text into documents, and long documents where a cut does not change the tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from minigen.errors import UsageError
from minigen.tokenizer.base import SEPARATOR

END = SEPARATOR  # the default separator, on a line of its own
PIECE = 2**19  # characters of a document in one piece, at most, if it may be cut

_END_LINE = re.compile(rf"(?<![^\n]){re.escape(END)}(?=\r?(?:\n|\Z))")


def split_text(
    chunks: Iterable[str], separator: str | None = None, *, whole: bool = False
) -> Iterator[tuple[str, bool]]:
    """Pieces of the documents of a text, each with whether it is the last one of its document.

    The separator may be anywhere in the text; by default it is a line that is exactly END. White
    space next to a separator is dropped, and so are documents that consist of it. `whole`: a
    document is never cut. Raises UsageError for an empty separator.
    """
    if separator == "":
        raise UsageError("the separator of documents is empty: give one, such as <|endoftext|>")
    pattern = _END_LINE if separator is None else re.compile(re.escape(separator))
    reach = len(separator or END) + 2  # characters that a match may need
    buffer = ""
    start = 0  # of the text to be returned; one character before it is kept for lookbehind
    searched = 0  # no separator begins before it
    fresh = False  # the last thing was a separator; white space after it is dropped
    begun = False  # a piece of this document was returned
    for chunk, final in _with_last(chunks):
        buffer += chunk
        while True:
            match = pattern.search(buffer, searched)
            if match is None or (match.end() + 2 > len(buffer) and not final):
                break
            text = buffer[start : match.start()].rstrip()
            if fresh:
                text = text.lstrip()
            assert text or not begun, "after a cut there is something other than white space"
            if text:
                yield text, True
            start = searched = match.end()
            fresh, begun = True, False
        undecided = match.start() if match else len(buffer)
        searched = max(searched, undecided - reach)
        if fresh:
            start += len(buffer) - start - len(buffer[start:].lstrip())
            fresh = start == len(buffer)
            searched = max(searched, start)
        if not whole and not final:
            while True:
                cut = last_cut(buffer, start + PIECE // 2, min(start + PIECE, searched - 1))
                if cut is None:
                    break
                yield buffer[start:cut], False
                start, begun = cut, True
        dropped = max(start - 1, 0)
        buffer = buffer[dropped:]
        start -= dropped
        searched = max(searched - dropped, 0)
    text = buffer[start:]
    if begun or text.strip():
        yield from cut_text(text, whole=whole)


def cut_text(text: str, *, whole: bool = False) -> Iterator[tuple[str, bool]]:
    """The pieces of one document, each with whether it is the last one."""
    start = 0
    while not whole:
        cut = last_cut(text, start + PIECE // 2, start + PIECE)
        if cut is None:
            break
        yield text[start:cut], False
        start = cut
    yield text[start:], True


def _with_last(chunks: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each chunk, with whether it is the last one; an empty one if there are none."""
    previous: str | None = None
    for chunk in chunks:
        if previous is not None:
            yield previous, False
        previous = chunk
    yield previous or "", True


def last_cut(text: str, low: int, high: int) -> int | None:
    """The last position from `low` to below `high` where a cut does not change a text's tokens.

    That holds for tokenizers whose tokens are characters or bytes, and for all patterns in
    tokenizer/bytelevel.py: they split before " a" and after "\n" if there is no other white space
    next to them. (How a run of white space is split depends on what follows it. Punctuation takes
    line breaks and, with o200k, "/" after it.)
    """
    for position in range(min(high, len(text) - 1) - 1, max(low, 2) - 1, -1):
        before, here = text[position - 1], text[position]
        if here == " ":
            if text[position + 1].isalpha() and not before.isspace():
                return position
        elif before == "\n" and not (here.isspace() or here == "/" or text[position - 2].isspace()):
            return position
    return None

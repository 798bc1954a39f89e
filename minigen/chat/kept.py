"""Which of the generated tokens stand for what was said, where that is not all of them."""

from __future__ import annotations

from collections.abc import Sequence

from minigen.tokenizer import Tokenizer


def without_half(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int], text: str) -> str:
    """`text` without the U+FFFD for a character that was cut in the middle, which /continue completes."""
    decoder = tokenizer.stream(prompt)
    whole = "".join(map(decoder.push, ids))
    rest = decoder.finish()
    return whole if rest.startswith("\ufffd") and text == whole + rest else text


def kept_ids(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int], text: str) -> list[int] | None:
    """The tokens for `text`, the beginning of what `ids` say after `prompt`: as they are, as far as they go.

    A stop string may begin within a token; what stands before it there is encoded anew. None where that gives another
    text.
    """

    def said(ids: Sequence[int]) -> str:
        decoder = tokenizer.stream(prompt)
        return "".join(map(decoder.push, ids)) + decoder.finish()

    count = len(ids)
    while not text.startswith(said(ids[:count])):
        count -= 1
    kept = list(ids[:count])
    rest = text[len(said(kept)) :]
    if rest:
        kept += tokenizer.encode(rest, bos=False)
    return kept if not rest or said(kept) == text else None

"""Marks that are put into a conversation, to find in the rendered text where a message stands."""

from __future__ import annotations

from collections.abc import Iterable

MARK, RIGHT, LONGER = (
    "\ue000",
    "\ue001",
    "\ue002",
)  # for private use: in no template, and hardly in a text


def unused_mark(texts: Iterable[str]) -> str:
    """MARK, made longer until none of the texts has it."""
    mark, whole = MARK, list(texts)
    while any(mark in text for text in whole):
        mark += LONGER
    return mark

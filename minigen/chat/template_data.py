"""The messages that a chat template is given: plain data, whatever the caller's objects are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigen.chat.budget import size_of
from minigen.errors import ChatError

# Three names for the same text; templates read the first two.
REASONING = ("reasoning_content", "thinking", "reasoning")


def row_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as a template sees it: plain data without None, and reasoning under both names."""
    if not isinstance(message, Mapping):
        raise ChatError(
            f"a message must be a mapping with a role and a content, not {type(message).__name__}"
        )
    row: dict[str, Any] = {}
    for key, value in message.items():
        if value is not None:
            row[plain_data(key)] = plain_data(value)
    for name in REASONING:
        if name in row:
            reasoning = row[name]
            return {"thinking": reasoning, **row, "reasoning_content": reasoning}
    return row


def plain_data(value: Any) -> Any:
    """A copy that consists of JSON's types: a template could call the methods of other objects."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # a subclass, such as an enum, may have its own __str__
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {plain_data(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(plain_data(item) for item in value)
    if isinstance(value, list):
        return [plain_data(item) for item in value]
    raise ChatError(
        f"a message contains an object of type {type(value).__name__}: "
        "give strings, numbers, lists or mappings"
    )


def bytes_of(messages: list[dict[str, Any]]) -> int:
    """The bytes of a conversation, roughly."""
    size = 0
    for message in messages:
        for value in message.values():
            size += size_of(value if isinstance(value, str) else str(value))
    return size

"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """As "1 item" and "2,000 items"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"

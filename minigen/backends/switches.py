"""Switches in the environment: what only the device can decide, and what does without a part that fails."""

from __future__ import annotations

import os
from collections.abc import Collection

from minigen.errors import UsageError


def read_switch(variable: str, known: Collection[str], default: str, advice: str) -> str:
    """What an environment variable says, one of `known`; `default` where it is not set.

    Raises UsageError for anything else; `advice` says what to set it to.
    """
    said = os.environ.get(variable, default)
    if said not in known:
        raise UsageError(f"{variable} is {said!r}: set it to {advice}")
    return said

"""Switches in environment variables, which turn features off or depend on the device."""

from __future__ import annotations

import os
from collections.abc import Collection

from minigen.errors import UsageError


def read_switch(variable: str, known: Collection[str], default: str, advice: str) -> str:
    """The value of an environment variable, one of `known`; `default` if it is not set.

    Raises UsageError for any other value; `advice` says what to set it to.
    """
    value = os.environ.get(variable, default)
    if value not in known:
        raise UsageError(f"{variable} is {value!r}: set it to {advice}")
    return value

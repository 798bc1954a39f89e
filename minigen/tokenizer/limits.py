"""What a tokenizer.json from anywhere may not do: make a text huge, or put a library's panic on the screen."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

from minigen.tokenizer.bytelevel import PATTERNS

MOST_GROWTH = 1024.0  # characters that a normalizer or a decoder may make of one

_lock = threading.RLock()


def growth(step: Any) -> float:
    """How many characters a normalizer or a decoder can make of one by what it replaces, its steps multiplied.

    Forty steps that write two letters for one make a terabyte of a text.
    """
    if not isinstance(step, Mapping):
        return 1.0
    inner = step.get("normalizers", step.get("decoders"))
    if isinstance(inner, list):
        return prod(map(growth, inner))
    pattern, content = step.get("pattern"), step.get("content")
    if step.get("type") != "Replace" or not isinstance(pattern, Mapping) or not isinstance(content, str):
        return 1.0
    replaced = pattern.get("String")
    if isinstance(replaced, str) and replaced:
        return max(1.0, len(content) / len(replaced))
    return 1.0 + len(content)  # a regular expression may find nothing, before every character


def has_own_patterns(spec: Any) -> bool:
    """Whether a text is cut or changed by a regular expression that is none of the published ones."""
    if isinstance(spec, Mapping):
        own = isinstance(spec.get("Regex"), str) and spec["Regex"] not in PATTERNS
        return own or any(map(has_own_patterns, (value for name, value in spec.items() if name != "vocab")))
    return isinstance(spec, list) and any(map(has_own_patterns, spec))


@contextmanager
def without_panics() -> Iterator[None]:
    """What is written to standard error within the block is held back, and comes after it, unless the block panics.

    A Rust library prints a panic before Python hears of it, and nothing but the file descriptor can stop that.
    """
    with _lock, ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile())
            screen = os.dup(2)
        except OSError:  # nowhere to hold it, or no screen
            yield
            return
        panicked = False
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException as error:
            panicked = type(error).__name__ == "PanicException"
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            held.seek(0)
            if not panicked and (said := held.read()):
                os.write(2, said)

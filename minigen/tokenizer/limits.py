"""What a tokenizer.json must not do: make a text huge, or print a library's panic."""

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

MOST_GROWTH = 1024.0  # how many characters a normalizer or a decoder may make from one

_lock = threading.RLock()


def growth(step: Any) -> float:
    """How many characters a normalizer or a decoder can make from one, by replacing text.

    The growth of its steps is multiplied: forty steps that replace one letter by two make a
    terabyte of text.
    """
    if not isinstance(step, Mapping):
        return 1.0
    inner = step.get("normalizers", step.get("decoders"))
    if isinstance(inner, list):
        return prod(growth(inner_step) for inner_step in inner)
    pattern, content = step.get("pattern"), step.get("content")
    if not isinstance(pattern, Mapping) or not isinstance(content, str):
        return 1.0
    if step.get("type") != "Replace":
        return 1.0
    replaced = pattern.get("String")
    if isinstance(replaced, str) and replaced:
        return max(1.0, len(content) / len(replaced))
    return 1.0 + len(content)  # a regular expression may match "" before every character


def has_own_patterns(spec: Any) -> bool:
    """Whether part of a tokenizer.json has a regular expression that is not a published one."""
    if isinstance(spec, list):
        return any(has_own_patterns(inner) for inner in spec)
    if not isinstance(spec, Mapping):
        return False
    if isinstance(spec.get("Regex"), str) and spec["Regex"] not in PATTERNS:
        return True
    return any(has_own_patterns(inner) for name, inner in spec.items() if name != "vocab")


@contextmanager
def without_panics() -> Iterator[None]:
    """Holds back what is written to standard error within the block; drops it if the block panics.

    A Rust library prints a panic before Python sees it; only redirecting the file descriptor can
    stop that.
    """
    with _lock, ExitStack() as stack:
        try:
            output = stack.enter_context(tempfile.TemporaryFile())
            screen = os.dup(2)
        except OSError:  # nowhere to store it, or no standard error
            yield
            return
        panicked = False
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(output.fileno(), 2)
        try:
            yield
        except BaseException as error:
            panicked = type(error).__name__ == "PanicException"
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            output.seek(0)
            written = output.read()
            if written and not panicked:
                os.write(2, written)

"""How much memory the machine has, and how much a process used."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

from minigen.errors import BackendError


def gib(count: float) -> str:
    """A number of bytes as messages show it: "1.5 GiB"."""
    return f"{count / 2**30:,.1f} GiB"


def check_memory(size: int, memory: int, how: str = "at once") -> None:
    """Raises BackendError, before anything is allocated, for more bytes than the device has.

    `size` and `memory` are bytes: needed and available. `how` says what is limited: all arrays
    together ("at once"), or each ("in one array").
    """
    if size <= memory:
        return
    verb = "has" if how == "at once" else "takes"
    raise BackendError(
        f"this needs {gib(size)} {how}, and the device {verb} {gib(memory)}: "
        "ask for fewer tokens, samples or prompts"
    )


def physical_memory() -> int:
    """This machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_rss() -> int:
    """Peak resident memory of this process in bytes, which backends report on a CPU."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage may begin with the peak of the parent process
        match = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)
        if match is not None:
            return 1024 * int(match[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":  # counts bytes; others count KiB
        return peak
    return peak * 1024

"""How much memory there is, and how much a process took."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

from minigen.errors import BackendError


def gib(count: float) -> str:
    """So many bytes as a message has them."""
    return f"{count / 2**30:,.1f} GiB"


def check_memory(wanted: int, memory: int, how: str = "at once") -> None:
    """Raises BackendError, before anything is allocated, for more bytes than the device has.

    `how` tells the limit: of all arrays together, or "in one array".
    """
    if wanted > memory:
        most = "has" if how == "at once" else "takes"
        raise BackendError(
            f"this needs {gib(wanted)} {how}, and the device {most} {gib(memory)}: "
            "ask for fewer tokens, samples or prompts"
        )


def physical_memory() -> int:
    """This machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_rss() -> int:
    """Peak resident memory of this process in bytes: what a backend on the CPU reports as its memory."""
    status = Path(
        "/proc/self/status"
    )  # Linux: what getrusage says there may be the peak of the parent, at the start
    found = (
        re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)
        if status.exists()
        else None
    )
    if found is not None:
        return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes

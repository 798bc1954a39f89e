"""The processor cores that this process can use."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """The logical processors that this process may use: two threads of one core count as two."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def physical_cores() -> int:
    """The cores that this process may use: two threads of one core count as one."""
    try:
        usable = os.sched_getaffinity(0)
        siblings = [
            Path(f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list").read_text()
            for i in usable
        ]
        return len(set(siblings))
    except (AttributeError, OSError):  # not Linux, or a container that hides it
        return os.cpu_count() or 1

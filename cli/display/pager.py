"""Shows long text on a terminal through a pager, as git does."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess

# -F: only print text that fits on the screen; -R: colors; -X: leave the text on the screen.
LESS = "FRX"


def pager() -> list[str]:
    """The command of the pager: $PAGER, else less.

    It is empty if there is no such program, or if $PAGER is empty or cat.
    """
    words = shlex.split(os.environ.get("PAGER", "less"))
    if not words or words == ["cat"] or shutil.which(words[0]) is None:
        return []
    return words


def page(text: str) -> None:
    """Shows text on the terminal, one screen at a time if there is a pager."""
    command = pager()
    if not command:
        print(text, end="")
        return
    environment = {"LESS": LESS, **os.environ}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    ours = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pager
    try:
        process.communicate(text.encode())
    finally:
        signal.signal(signal.SIGINT, ours)

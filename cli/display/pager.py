"""Long text on a terminal, through a pager as git does it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess

# -F: text that fits on the screen is only printed; -R: colors; -X: what was read stays on the screen.
LESS = "FRX"


def pager() -> list[str]:
    """The command: $PAGER, else less. Empty where there is none, or where $PAGER is empty or cat."""
    words = shlex.split(os.environ.get("PAGER", "less"))
    if not words or words == ["cat"] or shutil.which(words[0]) is None:
        return []
    return words


def page(text: str) -> None:
    """Shows text on the terminal, a screen at a time where there is a pager."""
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

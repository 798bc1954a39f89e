"""The picture of the terminal in README: a chat with the model that ships, recorded in tmux and drawn as an SVG.

    python bench/terminal.py

writes bench/results/terminal.svg. What is seen is what was on the screen; the seed makes it the same each time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "results" / "terminal.svg"
COLUMNS, ROWS = 88, 27
FLAGS = "--seed 3 --temp 0.5 -n 64 --no-save"
TYPED = ("Tell me a story about a cat and a ball.", "What color is the sky?", "/why")
SECONDS = 120  # for one answer, on a machine that is busy with others
FONT = re.compile(
    r"@font-face \{.*?\}\s*", re.DOTALL
)  # from another server: the reader's own has to do


class Screen:
    """`minigen chat` in a terminal of tmux."""

    def __init__(self, folder: Path) -> None:
        self.command = ["tmux", "-L", f"minigen-picture-{os.getpid()}", "-f", "/dev/null"]
        environment = {"XDG_DATA_HOME": str(folder), "LC_ALL": "C.UTF-8", "COLORTERM": "truecolor"}
        settings = [
            word for name, value in environment.items() for word in ("-e", f"{name}={value}")
        ]
        chat = f"printf '$ minigen chat {FLAGS}\\n\\n'; TERM=xterm-256color {sys.executable} -m minigen chat {FLAGS}"
        self.tmux("new-session", "-d", *settings, "-x", str(COLUMNS), "-y", str(ROWS), chat)

    def tmux(self, *words: str) -> str:
        return subprocess.run(
            [*self.command, *words], check=True, capture_output=True, text=True
        ).stdout

    def lines(self, *flags: str) -> str:
        return self.tmux("capture-pane", "-p", *flags)

    def wait_for_prompt(self, number: int) -> None:
        """Until the prompt is there for the n-th time, empty."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            prompts = re.findall(r"^> ?.*$", self.lines("-S", "-"), re.MULTILINE)
            if len(prompts) == number and prompts[-1].strip() == ">":
                time.sleep(0.5)  # the line at the bottom is drawn after it
                return
            time.sleep(0.1)
        raise TimeoutError(self.lines())

    def close(self) -> None:
        subprocess.run([*self.command, "kill-server"], capture_output=True, check=False)


def record() -> str:
    """The screen after all was typed, with its colors as escape sequences."""
    with tempfile.TemporaryDirectory() as folder:
        screen = Screen(Path(folder))
        try:
            screen.wait_for_prompt(1)
            for number, line in enumerate(TYPED, start=2):
                screen.tmux("send-keys", "-l", line)
                screen.tmux("send-keys", "Enter")
                screen.wait_for_prompt(number)
            return screen.lines("-e")
        finally:
            screen.close()


def draw(screen: str) -> str:
    """The SVG of a screen."""
    from rich.console import Console
    from rich.text import Text

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(
            record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        console.print(Text.from_ansi(screen.rstrip("\n")), end="")
        picture = console.export_svg(title="minigen chat", unique_id="minigen")
    return FONT.sub("", picture)


def main() -> None:
    OUT.write_text(draw(record()), encoding="utf-8")
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size / 1000:.1f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Standard input line by line: messages and commands.

They come from another program, or from a keyboard while the answers go into a pipe.
"""

from __future__ import annotations

import sys

from minigen.errors import MinigenError, UsageError

from .words import QUOTES, is_open, without_line_end


class LineReader:
    """The lines of standard input as they come; those of a block in triple quotes together."""

    def __init__(self, prompt: bool) -> None:
        """With `prompt`, a prompt is shown on stderr if that is a terminal."""
        if sys.stdin is None:
            raise UsageError("standard input is closed: name a file")
        self.prompt = prompt and sys.stderr.isatty()
        self.number = 0

    def read(self) -> str | None:
        """The next message or command; None at the end."""
        lines: list[str] = []
        while True:
            line = self.line("… " if lines else "> ")
            if line is None and lines:
                raise UsageError(
                    'a triple quote is open at the end of standard input: close it with """'
                )
            if line is None:
                return None
            lines.append(line)
            # Only a line with quotes can close a block. Joining at every line would be quadratic.
            in_block = len(lines) > 1 and QUOTES not in line
            if not in_block and not is_open("\n".join(lines)):
                return "\n".join(lines)

    def line(self, prompt: str) -> str | None:
        """The next line without its line ending; None at the end."""
        if self.prompt:
            print(prompt, end="", file=sys.stderr, flush=True)
        raw = sys.stdin.buffer.readline()
        if not raw:
            if self.prompt:
                print(file=sys.stderr)
            return None
        self.number += 1
        try:
            encoding = "utf-8-sig" if self.number == 1 else "utf-8"
            return without_line_end(raw.decode(encoding))
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise MinigenError(
                f"line {self.number} of standard input is not UTF-8: byte {byte:#04x}"
            ) from None

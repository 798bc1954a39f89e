"""Standard input as lines: messages and commands of another program, or of a keyboard whose answers go into a pipe."""

from __future__ import annotations

import sys

from minigen.errors import MinigenError, UsageError

from .words import QUOTES, is_open, without_line_end


class LineReader:
    """The lines of standard input as they come, so that another program may talk with this one; those of a block in
    triple quotes together. With `prompt`, a keyboard's, what is waited for is said on stderr.
    """

    def __init__(self, prompt: bool) -> None:
        if sys.stdin is None:
            raise UsageError("standard input is closed: name a file")
        self.prompt = prompt and sys.stderr.isatty()
        self.number = 0

    def read(self) -> str | None:
        """The next message or command; None at the end."""
        begun: list[str] = []
        while True:
            line = self.line("… " if begun else "> ")
            if line is None and begun:
                raise UsageError('a triple quote is open at the end of standard input: close it with """')
            if line is None:
                return None
            begun.append(line)
            if (len(begun) > 1 and QUOTES not in line) or is_open("\n".join(begun)):
                continue
            return "\n".join(begun)

    def line(self, prompt: str) -> str | None:
        if self.prompt:
            print(prompt, end="", file=sys.stderr, flush=True)
        raw = sys.stdin.buffer.readline()
        if not raw:
            if self.prompt:
                print(file=sys.stderr)
            return None
        self.number += 1
        try:
            return without_line_end(raw.decode("utf-8-sig" if self.number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise MinigenError(f"line {self.number} of standard input is not UTF-8: byte {byte:#04x}") from None

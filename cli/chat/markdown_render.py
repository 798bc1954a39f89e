"""A block of Markdown as rich shows it, with nothing taken away."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from io import StringIO
from typing import TYPE_CHECKING, Any

from ..display.terminal import harmless
from .markdown_blocks import Block, dedent

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from rich.markdown import Markdown

STYLE = re.compile(r"\x1b\[[0-9;]*m")


def render(block: Block, columns: int) -> str | None:
    """The lines that show a block of Markdown; None where its text is as good: no style, no other characters."""
    indent = min(block.indent, columns // 4)
    tokens = parser().parse(dedent(block.text, block.indent))
    parts = [render_tokens(group, columns - indent) for group in groups(tokens)]
    rendering = "\n\n".join(part for part in parts if part)
    plain = STYLE.sub("", rendering)
    if not plain.strip() or Counter(letters(tokens)) - Counter(plain):
        return None  # more columns of a table than of the terminal: there is no room for what they say
    if rendering == plain and "".join(plain.split()) == "".join(block.text.split()):
        return None
    return "".join(" " * indent * bool(line) + line + "\n" for line in rendering.split("\n"))


def render_tokens(tokens: list[Token], columns: int) -> str:
    """What rich makes of one element, without the empty lines around it."""
    from rich.console import Console

    markdown = renderer()("", hyperlinks=False)
    markdown.parsed = tokens
    stream = StringIO()
    console = Console(file=stream, width=columns, force_terminal=True, highlight=False, legacy_windows=False)
    console.print(markdown, end="")
    lines = [line.rstrip() for line in stream.getvalue().split("\n")]
    filled = [i for i, line in enumerate(lines) if STYLE.sub("", line).strip()]
    return "\n".join(lines[filled[0] : filled[-1] + 1]) if filled else ""


def groups(tokens: list[Token]) -> Iterator[list[Token]]:
    """The tokens of each element that is in no other."""
    group: list[Token] = []
    depth = 0
    for token in tokens:
        group.append(token)
        depth += token.nesting
        if depth == 0:
            yield group
            group = []


def letters(tokens: list[Token]) -> Iterator[str]:
    """Every letter and digit of what the tokens say; rich cuts what it has no room for."""
    for token in tokens:
        yield from letters(token.children) if token.children else filter(str.isalnum, token.content)


@lru_cache(maxsize=1)
def parser() -> MarkdownIt:
    """What rich parses with, but for what would take text away: HTML, definitions of links, addresses of images.

    A line feed stays one, as in text that is left as it is.
    """
    from markdown_it import MarkdownIt  # what rich.markdown is made with
    from markdown_it.rules_core import StateCore

    def keep_lines(state: StateCore) -> None:
        for child in (child for token in state.tokens for child in token.children or ()):
            child.type = "hardbreak" if child.type == "softbreak" else child.type
            child.content = harmless(child.content)  # &#13; is one

    found = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    found.disable(["reference", "image", "autolink"])
    found.core.ruler.push("keep_lines", keep_lines)
    return found


@lru_cache(maxsize=1)
def renderer() -> type[Markdown]:
    """rich's Markdown, with code that can be copied, not padded, and tables that wrap what they would cut."""
    from rich import markdown
    from rich.syntax import Syntax

    class CodeBlock(markdown.CodeBlock):
        def __rich_console__(self, console: Any, options: Any) -> Any:
            yield Syntax(str(self.text).rstrip(), self.lexer_name, theme=self.theme, word_wrap=True)

    class TableElement(markdown.TableElement):
        def __rich_console__(self, console: Any, options: Any) -> Any:
            for table in super().__rich_console__(console, options):
                for column in table.columns:  # type: ignore[union-attr]
                    column.overflow = "fold"
                yield table

    class Renderer(markdown.Markdown):
        elements = markdown.Markdown.elements | {
            "fence": CodeBlock,
            "code_block": CodeBlock,
            "table_open": TableElement,
        }

    return Renderer

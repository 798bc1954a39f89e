"""A block of Markdown as rich renders it, without losing any text."""

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
    """The rendered lines of a block of Markdown; None if its text is as good as the rendering."""
    indent = min(block.indent, columns // 4)
    tokens = parser().parse(dedent(block.text, block.indent))
    parts = []
    for group in groups(tokens):
        part = render_tokens(group, columns - indent)
        if part:
            parts.append(part)
    rendering = "\n\n".join(parts)
    plain = STYLE.sub("", rendering)
    if not plain.strip() or Counter(letters(tokens)) - Counter(plain):
        return None  # text is lost, as in a table with more columns than the terminal has
    if rendering == plain and "".join(plain.split()) == "".join(block.text.split()):
        return None  # neither style nor other characters
    margin = " " * indent
    lines = [(margin + line).rstrip(" ") for line in rendering.split("\n")]
    return "\n".join(lines) + "\n"


def render_tokens(tokens: list[Token], columns: int) -> str:
    """rich's rendering of one element, without the empty lines around it."""
    from rich.console import Console

    markdown = renderer()("", hyperlinks=False)
    markdown.parsed = tokens
    stream = StringIO()
    console = Console(
        file=stream, width=columns, force_terminal=True, highlight=False, legacy_windows=False
    )
    console.print(markdown, end="")
    lines = [line.rstrip() for line in stream.getvalue().split("\n")]
    while lines and is_blank(lines[0]):
        lines.pop(0)
    while lines and is_blank(lines[-1]):
        lines.pop()
    return "\n".join(lines)


def is_blank(line: str) -> bool:
    """Whether a line shows nothing."""
    return not STYLE.sub("", line).strip()


def groups(tokens: list[Token]) -> Iterator[list[Token]]:
    """The tokens of each element that is not part of another."""
    group: list[Token] = []
    depth = 0
    for token in tokens:
        group.append(token)
        depth += token.nesting
        if depth == 0:
            yield group
            group = []


def letters(tokens: list[Token]) -> Iterator[str]:
    """Every letter and digit in the tokens. rich cuts what it has no room for."""
    for token in tokens:
        if token.children:
            yield from letters(token.children)
        else:
            yield from filter(str.isalnum, token.content)


@lru_cache(maxsize=1)
def parser() -> MarkdownIt:
    """rich's parser, without what would remove text: HTML, link definitions, addresses of images.

    A line feed stays a line feed, as in text that is not rendered.
    """
    from markdown_it import MarkdownIt  # as rich.markdown does
    from markdown_it.rules_core import StateCore

    def keep_lines(state: StateCore) -> None:
        for token in state.tokens:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"
                child.content = harmless(child.content)  # &#13; is a control character

    markdown = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    markdown.disable(["reference", "image", "autolink"])
    markdown.core.ruler.push("keep_lines", keep_lines)
    return markdown


@lru_cache(maxsize=1)
def renderer() -> type[Markdown]:
    """rich's Markdown, with code that can be copied (not padded) and tables that wrap."""
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

"""`minigen help`: the pages of the manual."""

from __future__ import annotations

import argparse

from ..display.pager import page
from ..display.pages import contents, find_topic, for_terminal, page_text
from ..display.tables import screen
from ..parser import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "topic", nargs="?", metavar="TOPIC", help="a page, or a command (default: list the pages)"
    )


def run(args: argparse.Namespace) -> int:
    text = contents() if args.topic is None else page_text(find_topic(args.topic))
    columns, is_terminal = screen()
    if is_terminal:
        page(for_terminal(text, columns))
    else:
        print(text, end="")
    return 0

"""The flags of `minigen chat` for the conversation and its sessions."""

from __future__ import annotations

from ..parser import Parser

NEWEST = "the newest"  # --resume without a name


def add_conversation(parser: Parser) -> None:
    group = parser.add_argument_group("conversation")
    group.add_argument("--system", metavar="TEXT", help="system prompt")
    group.add_argument(
        "--plain",
        action="store_true",
        help='use a plain transcript ("User: ... Assistant: ...") even if the model has a chat '
        "template",
    )
    group.add_argument(
        "--overflow",
        choices=("stop", "roll", "sinks"),
        help="what to do when the conversation is longer than the window: stop, roll (drop the "
        "oldest turns), or use attention sinks (default: stop)",
    )
    group.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="window size in tokens (default: the model's context)",
    )
    group.add_argument(
        "-n",
        "--max-tokens",
        type=int,
        help="maximum number of new tokens per answer (default: 512, or a quarter of the window)",
    )
    group.add_argument(
        "--stop",
        action="append",
        metavar="TEXT",
        help="end an answer before this text; may be repeated",
    )
    group.add_argument(
        "--lines",
        action="store_true",
        help="read standard input line by line; each line is a message or a command",
    )
    group.add_argument(
        "--no-markdown",
        dest="markdown",
        action="store_false",
        help="do not render Markdown on a terminal",
    )


def add_sessions(parser: Parser) -> None:
    group = parser.add_argument_group("sessions")
    group.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="FILE",
        help="continue a saved session (default: the newest)",
    )
    group.add_argument(
        "--session", metavar="FILE", help="save the session to FILE (default: a new file)"
    )
    group.add_argument("--no-save", action="store_true", help="do not save the session")
    group.add_argument(
        "--replay", metavar="FILE", help="generate a session's answers again, and compare them"
    )

"""What the commands of a chat show: /help, /set, /why, /context, /stats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from minigen.errors import UsageError

from ..display.report import piece, rate
from ..display.tables import render, screen, sizes_of, wrapped

if TYPE_CHECKING:
    from minigen.chat.engine import Chat
    from minigen.chat.why import TokenChoice

    from .app import ChatApp

WHY_ROWS = 40  # tokens that /why shows at once
LEAST = 16  # columns that a cut cell must keep
KEYS = (
    ("Alt-Enter, or Esc then Enter", "start a new line in the message"),
    ('"""', "on a line of its own, begins and ends a message of several lines"),
    ("Ctrl-C", "stop the answer, and keep what was generated"),
    ("Ctrl-D", "leave"),
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> str:
    """A table; if the terminal is too narrow, each row by itself with its cells one after another.

    `left` names the columns that are aligned to the left and may be cut.
    """
    width, terminal = screen()
    needed = 2 * (len(head) - 1)
    for name, size in zip(head, sizes_of(head, rows), strict=True):
        needed += min(size, LEAST) if name in left else size
    if needed <= width:
        return render(head, rows, width, terminal, left)
    text = ""
    for row in (head, *rows):
        cells = [cell for cell in row if cell.strip()]
        if cells or row is not head:
            text += f"{wrapped(' · '.join(cells), width)}\n"
    return text


# -- /help and /set --
def help_view(commands: Sequence[tuple[str, str]]) -> str:
    """The commands, each with its summary, and the keys."""
    return table(["command", ""], [*commands, *KEYS], ["command", ""])


def setting_values(chat: Chat) -> dict[str, str]:
    """Every setting and its value, as text."""
    options = chat.options
    values: dict[str, Any] = {
        "max_tokens": options.max_tokens or f"{chat.window.answer(None)} (default)",
        "stop": list(options.stop),
        **options.sampling.flat(),
        "speculate": options.speculate,
        "draft_tokens": options.draft_tokens,
        "overflow": chat.window.policy,
        "context": chat.window.size,
    }
    texts = {}
    for name, value in values.items():
        texts[name] = value if isinstance(value, str) else json.dumps(value)
    return texts


def settings_view(chat: Chat) -> str:
    """Every setting of the next answers."""
    return table(["setting", "value"], list(setting_values(chat).items()), ["setting", "value"])


# -- /why --
def why_view(app: ChatApp, rest: str) -> str:
    """The tokens of the last answer, their alternatives, and what the sampling stages removed."""
    from minigen.chat.why import explain

    if rest and (not rest.isdecimal() or not rest.strip("0")):
        raise UsageError(f"/why takes the number of the first token to show, not {rest!r}")
    # Ten digits are enough to be beyond any answer.
    first = int((rest or "1").lstrip("0")[:10])
    choices = list(islice(explain(app.chat), first - 1, first + WHY_ROWS))
    if not choices:
        raise UsageError(f"the last answer has fewer than {rest or 1} tokens")
    rows = []
    for number, choice in enumerate(choices[:WHY_ROWS], first):
        rows.append([str(number), *why_cells(app.chat, choice)])
    head = ["#", "token", "model", "drawn", "instead", "removed"]
    text = table(head, rows, ["token", "instead", "removed"])
    if len(choices) > WHY_ROWS:
        text += f"more: /why {first + WHY_ROWS}\n"
    return text


def why_cells(chat: Chat, choice: TokenChoice) -> list[str]:
    """A row of /why, but for its number."""
    token = token_label(chat, choice.token)
    if choice.ends:
        token += " (end)"
    alternatives = []
    for candidate, probability, _ in choice.candidates:
        if candidate != choice.token:
            alternatives.append(f"{token_label(chat, candidate)} {probability:.3f}")
    removed = []
    for stage in choice.removed:
        removed.append(f"{stage.stage} -{stage.tokens:,} ({stage.probability:.3f})")
    return [
        token,
        f"{choice.probability:.4f}",
        f"{choice.drawn_from:.4f}",
        "  ".join(alternatives),
        "  ".join(removed),
    ]


def token_label(chat: Chat, token: int) -> str:
    """A token as it can be read in a table: quoted, with escapes."""
    return repr(piece(chat.model, token))


# -- /stats --
def stats_view(chat: Chat) -> str:
    """The tokens and seconds of the last answer, and of all answers."""
    if not chat.readings:
        return "no answer yet\n"
    last = totals(chat.readings[-1:])
    all_answers = totals(chat.readings)
    rows = []
    for name, cell in last.items():
        rows.append([name, cell, all_answers[name]])
    if not any(reading.timing.drafted for reading in chat.readings):
        rows.pop()
    return table(["", "last answer", f"{len(chat.readings)} answers"], rows, [""])


def totals(readings: Sequence[Any]) -> dict[str, str]:
    """A column of /stats."""
    timings = [reading.timing for reading in readings]
    read = sum(reading.tokens_read for reading in readings)
    reused = sum(reading.tokens_reused for reading in readings)
    prefill_s = sum(timing.prefill_s for timing in timings)
    first_s = sum(timing.first_token_s for timing in timings) / len(timings)
    decoded = sum(timing.decode_tokens for timing in timings)
    decode_s = sum(timing.decode_s for timing in timings)
    started = sum(timing.first_token_s > 0 for timing in timings)  # their first token is prefill's
    accepted = sum(timing.accepted for timing in timings)
    drafted = sum(timing.drafted for timing in timings)
    return {
        "prompt tokens read": str(read),
        "prompt tokens reused": str(reused),
        "reading": f"{prefill_s:.3f} s{speed(read, prefill_s)}",
        "to the first token": f"{first_s:.3f} s",
        "tokens generated": str(decoded + started),
        "generating": f"{decode_s:.3f} s{speed(decoded, decode_s)}",
        "drafted tokens accepted": f"{accepted} of {drafted}",
    }


def speed(tokens: int, seconds: float) -> str:
    """`, 12 tokens/s`, or nothing if nothing was measured."""
    per_second = rate(tokens, seconds)
    if per_second is None:
        return ""
    return f", {per_second:,.0f} tokens/s"

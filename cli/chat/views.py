"""What the commands of a chat show: /help, /set, /why, /context, /stats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from minigen.errors import ChatError, UsageError

from ..display.report import piece, rate
from ..display.tables import render, screen, sizes_of, wrapped
from ..display.terminal import harmless

if TYPE_CHECKING:
    from minigen.chat.engine import Chat

    from .app import ChatApp

ROWS = 40  # tokens that /why shows at once
LEAST = 16  # columns that a cut cell must keep
SHOWN = 40  # messages that /context shows one by one, the newest
BAR = 24  # cells of the bar of /context


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> str:
    """A table; where the terminal is too narrow for one, each row by itself, with its cells one after another."""
    width, terminal = screen()
    sizes = [min(size, LEAST) if name in left else size for name, size in zip(head, sizes_of(head, rows), strict=True)]
    if sum(sizes) + 2 * (len(sizes) - 1) <= width:
        return render(head, rows, width, terminal, left)
    lines = [" · ".join(cell for cell in row if cell.strip()) for row in ([head] if any(head) else []) + list(rows)]
    return "".join(f"{wrapped(line, width)}\n" for line in lines)


def help_view(commands: Mapping[str, tuple[str, str, Any]]) -> str:
    rows = [[f"/{name} {arguments}".rstrip(), text] for name, (arguments, text, _) in commands.items()]
    keys = [
        ["Alt-Enter, or Esc then Enter", "a new line in the message"],
        ['"""', "on a line by itself begins and ends a message of several lines"],
        ["Ctrl-C", "stops the answer, and keeps what was said"],
        ["Ctrl-D", "leaves"],
    ]
    return table(["command", ""], rows + keys, ["command", ""])


def settings_shown(chat: Chat) -> dict[str, str]:
    """Every setting and its value, a default told where it depends on the window."""
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
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def settings_view(chat: Chat) -> str:
    return table(["setting", "value"], [list(row) for row in settings_shown(chat).items()], ["setting", "value"])


def why_view(app: ChatApp, rest: str) -> str:
    """Each token of the last answer, its probability, the alternatives, and what the sampling stages removed."""
    from minigen.chat.why import explain

    if rest and (not rest.isdecimal() or not rest.strip("0")):
        raise UsageError(f"/why takes the number of the token to begin with, not {rest!r}")
    begin = int((rest or "1").lstrip("0")[:10]) - 1  # beyond any answer, with ten digits
    choices = list(islice(explain(app.chat), begin, begin + ROWS + 1))
    if not choices:
        raise UsageError(f"the last answer has fewer than {rest or 1} tokens")
    rows = []
    for number, choice in enumerate(choices[:ROWS], begin + 1):
        others = "  ".join(f"{shown(app.chat, i)} {p:.3f}" for i, p, _ in choice.candidates if i != choice.token)
        removed = "  ".join(f"{gone.stage} -{gone.tokens:,} ({gone.probability:.3f})" for gone in choice.removed)
        name = shown(app.chat, choice.token) + (" (end)" if choice.ends else "")
        rows.append([str(number), name, f"{choice.probability:.4f}", f"{choice.drawn_from:.4f}", others, removed])
    text = table(["#", "token", "model", "drawn", "instead", "removed"], rows, ["token", "instead", "removed"])
    return text + (f"more: /why {begin + ROWS + 1}\n" if len(choices) > ROWS else "")


def shown(chat: Chat, token: int) -> str:
    """A token as it can be read in a table: quoted, with escapes."""
    return repr(piece(chat.model, token))


def context_view(chat: Chat) -> str:
    """A line a message: its tokens in the window, and their share of it as a bar."""
    from minigen.chat.conversation import Conversation
    from minigen.chat.window import SINKS

    talk, first, size = chat.conversation, chat.conversation.first, chat.window.size
    counts: list[tuple[str, str, int | None]] = []
    before = 0
    if talk.system:
        before = count(chat, Conversation([], talk.system), first) or 0
        counts.append(("system", talk.system, before))
    if first:
        counts.append((f"{first} older", "left out", None))
    begin = max(first, (len(talk.spoken) - SHOWN) // 2 * 2)
    if begin > first:
        older = count(chat, Conversation(talk.spoken[:begin], talk.system), first) or before
        counts.append((f"{begin - first} more", "", older - before))
        before = older
    for number, message in enumerate(talk.spoken[begin:], begin):
        total = count(chat, Conversation(talk.spoken[: number + 1], talk.system), first)
        counts.append((message.role, message.content, None if total is None else total - before))
        before = before if total is None else total
    whole = max(size or 0, before, 1)
    rows = []
    for role, content, tokens in counts:
        filled = round(BAR * (tokens or 0) / whole)
        bar = "█" * filled if filled or not tokens else "▏"
        rows.append([role, "-" if tokens is None else str(tokens), bar, harmless(" ".join(content.split())[:60])])
    if size is None:
        used = f"{before} tokens, and no bound"
    elif before > size:  # attention sinks
        used = f"{before} tokens, of which the model sees the first {SINKS} and the newest {size - SINKS}"
    else:
        used = f"{before} of {size} tokens, {size - before} free"
    return table(["message", "tokens", "share", "text"], rows, ["message", "share", "text"]) + f"{used}\n"


def count(chat: Chat, conversation: Any, first: int) -> int | None:
    """The tokens of a part of the conversation; None where the template does not take that part alone."""
    try:
        return len(chat.format.ids(conversation, first, generate=False))
    except ChatError:
        return None


def stats_view(chat: Chat) -> str:
    """What the last answer cost, and all of them."""
    if not chat.readings:
        return "no answer yet\n"
    sums: list[list[str]] = []
    for readings in ([chat.readings[-1]], chat.readings):
        read, reused = (sum(getattr(r, name) for r in readings) for name in ("tokens_read", "tokens_reused"))
        prefill = sum(r.timing.prefill_s for r in readings)
        decoded, decode = sum(r.timing.decode_tokens for r in readings), sum(r.timing.decode_s for r in readings)
        first = sum(r.timing.first_token_s for r in readings) / len(readings)
        sums.append(
            [
                str(read),
                str(reused),
                f"{prefill:.3f} s" + speed(read, prefill),
                f"{first:.3f} s",
                str(decoded + sum(r.timing.first_token_s > 0 for r in readings)),
                f"{decode:.3f} s" + speed(decoded, decode),
                f"{sum(r.timing.accepted for r in readings)} of {sum(r.timing.drafted for r in readings)}",
            ]
        )
    names = ["prompt tokens read", "prompt tokens reused", "reading", "to the first token", "tokens written", "writing"]
    if any(r.timing.drafted for r in chat.readings):
        names.append("guesses kept")
    last, whole = (row[: len(names)] for row in sums)
    rows = [list(row) for row in zip(names, last, whole, strict=True)]
    return table(["", "last answer", f"{len(chat.readings)} answers"], rows, [""])


def speed(tokens: int, seconds: float) -> str:
    found = rate(tokens, seconds)
    return "" if found is None else f", {found:,.0f} tokens/s"

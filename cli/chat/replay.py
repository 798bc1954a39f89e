"""`minigen chat --replay`: a session's answers are generated again and compared."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.errors import ChatError

from ..display.words import counted
from ..model_arguments import load_draft, load_model

if TYPE_CHECKING:
    from minigen.chat.replay import Replayed


def run_replay(args: argparse.Namespace) -> int:
    """Exit code 0 if every answer is the same as before; 1 if not, or if none can be compared."""
    from minigen.chat.engine import Chat
    from minigen.chat.replay import replay
    from minigen.chat.session import load_session, tokenizer_key

    session = load_session(Path(args.replay))
    args.model = args.model or session.model
    model = load_model(args)
    if session.tokenizer != tokenizer_key(model):
        raise ChatError(
            f"{args.replay} was made with a model that has a different tokenizer: name that model"
        )
    chat = Chat(model, plain=args.plain or session.plain, draft=load_draft(args))
    compared = []
    for answer in replay(chat, session.conversation):
        if answer.skipped:
            print(f"message {answer.message + 1}: skipped, {answer.skipped}")
        else:
            compared.append(answer)
    differing = [answer for answer in compared if answer.at is not None]
    tokens = sum(answer.tokens for answer in compared)
    same = len(compared) - len(differing)
    print(
        f"{counted(len(compared), 'answer')}, {counted(tokens, 'token')}, on {model.backend}: "
        f"{same} identical, {len(differing)} different"
    )
    if differing:
        print_difference(differing[0])
    return 1 if differing or not compared else 0


def print_difference(answer: Replayed) -> None:
    assert answer.at is not None
    print(f"first difference: message {answer.message + 1}, token {answer.at + 1}")
    print(f"  recorded: {answer.expected[:60]!r}")
    print(f"  now:      {answer.got[:60]!r}")

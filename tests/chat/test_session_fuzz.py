"""A session from a stranger: nothing but one clear error comes of it, whatever is done with it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.chat.engine import Answer, Chat
from minigen.chat.replay import replay
from minigen.chat.session import Session, load_session, save_session, tokenizer_key
from minigen.chat.why import explain
from minigen.errors import MinigenError
from minigen.model import Model, load

VALUES = [
    None, True, False, 0, 1, -1, 2, 7, 8, 64, 96, 255, 1000, 2**31, 2**32, 2**63, 2**64, 10**30, 0.5, -0.0, 1e300,
    "", "x", "stop", "sinks", "roll", "lookup", "assistant", "user", "\0", "\ud800", "<|end|>", "\ue000", "a" * 200,
    [], [0], [1, 2, 3], ["\udc80"], [[]], [10**9], {}, {"seed": 1}, {"1": 1e308}, {"1" * 5000: 1}, [{}], [None],
]  # fmt: skip
NAMES = ["seed", "stop", "beams", "speculate", "draft_tokens", "logit_bias", "max_tokens", "temperature", "num_samples",
         "logprobs", "top_k", "no_repeat_ngram_size", "ids", "runs", "plain", "x", "repetition_penalty"]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a JSON value."""
    if path:
        yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in inner:
        yield from places(item, (*path, key))


def changed(lines: list[Any], change: tuple[Any, str, Any, str]) -> list[Any]:
    """A copy with one thing in it replaced, removed, doubled or added."""
    share, way, value, name = change
    lines = deepcopy(lines)
    found = list(places(lines))
    if not found:
        return lines
    *before, last = found[int(share * len(found))]
    inside = lines
    for key in before:
        inside = inside[key]
    if way == "remove":
        del inside[last]
    elif way == "double" and isinstance(inside, list):
        inside.insert(last, deepcopy(inside[last]))
    elif way == "add" and isinstance(inside[last], dict):
        inside[last][name] = value
    else:
        inside[last] = value
    return lines


CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["replace", "replace", "remove", "double", "add"]),
        st.sampled_from(VALUES),
        st.sampled_from(NAMES),
    ),
    min_size=1,
    max_size=2,
)


def told(model: Model, folder: Path) -> list[Any]:
    """The lines of a session with a continued answer."""
    chat = Chat(
        model, settings={"seed": 3, "max_tokens": 4, "logit_bias": {5: 0.5}, "stop": ["zzz"]}
    )
    chat.conversation.system = "Be kind."
    for begin in (lambda: chat.say("Hi"), chat.go_on, lambda: chat.say("More")):
        answer = begin()
        list(answer)
        answer.finish()
    save_session(as_session(chat), folder / "whole.jsonl")
    return [json.loads(line) for line in (folder / "whole.jsonl").read_text().splitlines()]


def as_session(chat: Chat) -> Session:
    key, policy = tokenizer_key(chat.model), chat.window.policy
    return Session(
        chat.conversation, "m", key, policy, chat.context, dict(chat.settings), chat.plain
    )


def drive(model: Model, path: Path) -> int:
    """All that a chat does with a session; how many of the parts went well."""
    views = import_module("minigen.cli.chat.views")
    context_view = import_module("minigen.cli.chat.context_view").context_view
    well = 0
    try:
        session = load_session(path)
        chat = Chat(
            model, session.conversation, settings=session.settings, overflow=session.overflow, context=session.context,
            plain=session.plain,
        )  # fmt: skip
    except MinigenError:
        return 0
    spoken = list(chat.conversation.spoken)

    def some(begin: Callable[[], Answer]) -> None:
        chat.conversation.spoken = list(spoken)
        answer = begin()
        list(islice(answer, 3))
        answer.finish()

    parts: list[Callable[[], Any]] = [
        lambda: list(islice(explain(chat), 3)),
        lambda: (chat.used, chat.warning(), context_view(chat), views.settings_view(chat)),
        lambda: save_session(as_session(chat), path.with_name("again.jsonl")),
        lambda: some(chat.again),
        lambda: some(chat.go_on),
        lambda: some(lambda: chat.say("a")),
        lambda: some(lambda: chat.edit("b")),
        lambda: views.stats_view(chat),
        lambda: list(replay(Chat(model, plain=session.plain), session.conversation)),
    ]
    for part in parts:
        with suppress(MinigenError):
            part()
            well += 1
    return well


def test_a_session_from_a_stranger(
    any_backend: str,
    make_bigram: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = load(make_bigram(context=96), any_backend, "cpu", "float32")
    lines = told(model, tmp_path)
    caplog.set_level(logging.CRITICAL, "minigen")
    assert drive(model, tmp_path / "whole.jsonl") == 9
    counts: list[int] = []

    def check_file(broken: list[Any]) -> None:
        path = tmp_path / "broken.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in broken))
        counts.append(drive(model, path))

    found = list(places(lines))
    for number in range(len(found)):  # everything that is there once missing
        check_file(changed(lines, ((number + 0.5) / len(found), "remove", None, "")))

    @settings(deadline=None, derandomize=True, max_examples=40, database=None)
    @given(CHANGES)
    def check(changes: list[Any]) -> None:
        broken = lines
        for change in changes:
            broken = changed(broken, change)
        check_file(broken)

    check()
    assert counts.count(0) > 10  # some are refused, and some go through all of it
    assert max(counts[1:]) == 9

"""A chat with speculation says what it says without, turn after turn, wherever an answer was stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigen.chat.engine import Chat
from minigen.chat.replay import replay
from minigen.errors import UsageError
from minigen.model import Model, load

WITH_KERNELS = True  # see conftest.py

Load = Callable[[str], Model]


@pytest.fixture
def loaded(
    backend: str, device: str, make_model: Callable[..., Path], make_bigram: Callable[..., Path]
) -> Load:
    def get(name: str) -> Model:
        folder = make_bigram() if name == "bigram" else make_model(name)
        return load(folder, backend, device, "float32")

    return get


def talk(chat: Chat) -> list[tuple[int, ...] | None]:
    """The tokens of a conversation with all that a user may do in it."""
    said = []

    def take(answer: Any, stop_after: int | None = None) -> None:
        for count, _ in enumerate(answer, 1):
            if count == stop_after:
                break
        said.append(answer.finish().ids)

    take(chat.say("Hi"))
    take(chat.say("What is rain?"))
    take(chat.say("And the garden?"), stop_after=3)
    take(chat.go_on())
    take(chat.again())
    take(chat.edit("The roof?"))
    chat.conversation.take_turn()
    take(chat.say("Hi again"))
    return said


# The llama's window is 64 tokens, which the conversation passes: it would not stop there.
@pytest.mark.parametrize(
    ("name", "overflow"), [("bigram", "stop"), ("bigram", "sinks"), ("llama", "sinks")]
)
def test_a_conversation_is_the_same(loaded: Load, name: str, overflow: str) -> None:
    model = loaded(name)
    for drawn in ({"temperature": 0}, {"temperature": 1.0, "seed": 4, "repetition_penalty": 1.2}):
        settings: dict[str, Any] = {"max_tokens": 20 if name == "llama" else 12, **drawn}
        wanted = talk(Chat(model, settings=settings, overflow=overflow))
        lookup = Chat(model, settings=settings | {"speculate": "lookup"}, overflow=overflow)
        drafted = Chat(model, settings=settings, overflow=overflow, draft=model)
        assert talk(lookup) == wanted
        assert talk(drafted) == wanted
        kept = sum(reading.timing.accepted for reading in drafted.readings)
        assert kept > 10
        assert [reading.tokens_read for reading in drafted.readings[:3]] == [
            reading.tokens_read for reading in lookup.readings[:3]
        ]


def test_a_draft_model_reads_what_is_new(loaded: Load) -> None:
    model = loaded("bigram")
    chat = Chat(model, settings={"temperature": 0, "max_tokens": 12}, draft=model)
    assert chat.draft is not None
    for text in ("Hi", "What is rain?", "And the garden?"):
        before = chat.draft.tokens_read
        answer = chat.say(text)
        for _ in answer:
            pass
        answer.finish()
    assert chat.draft.tokens_read - before < len(answer.row.prompt)


def test_guesses_are_no_part_of_what_an_answer_is(loaded: Load) -> None:
    model = loaded("bigram")
    chat = Chat(
        model, settings={"max_tokens": 12, "seed": 2, "speculate": "lookup", "draft_tokens": 4}
    )
    talk(chat)
    assert chat.settings["speculate"] == "lookup"
    run = chat.conversation.last_answer().runs[-1]
    assert not {"speculate", "draft_tokens"} & set(run.settings)
    results = list(replay(Chat(model, draft=model), chat.conversation))
    assert results
    assert not any(result.skipped or result.at is not None for result in results)


def test_what_is_refused(
    loaded: Load, backend: str, device: str, make_model: Callable[..., Path]
) -> None:
    model = loaded("llama")
    chat = Chat(model, draft=model)
    with pytest.raises(UsageError, match="draft and speculate=lookup both say who guesses"):
        chat.configure(speculate="lookup")
    assert chat.options.speculate is None
    small = load(make_model("llama", vocab_size=300), backend, device, "float32")
    with pytest.raises(UsageError, match="the draft model has 300 token ids and the model 256"):
        Chat(model, draft=small)
    with pytest.raises(UsageError, match="a recurrent model reads a token at a time"):
        Chat(loaded("lstm"), settings={"speculate": "lookup"})

"""A conversation with a kept state says, token for token, what one says that is read from its beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minigen.chat.conversation import Conversation, Message
from minigen.chat.engine import Answer, Chat
from minigen.chat.kept import kept_ids, says
from minigen.chat.replay import replay
from minigen.chat.why import explain
from minigen.errors import ChatError, ContextError, MinigenError, UsageError
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.rows import Row
from minigen.generation.shared_text import common_length
from minigen.model import Model, load

WITH_KERNELS = True  # see conftest.py

Load = Callable[..., Model]


@pytest.fixture
def loaded(
    backend: str, device: str, make_model: Callable[..., Path], make_bigram: Callable[..., Path]
) -> Load:
    """loaded("llama" | "gpt2" | "lstm" | "bigram" | "bigram-base", context): the model on each backend in turn."""

    def get(name: str, context: int = 200) -> Model:
        if name.startswith("bigram"):
            folder = (
                make_bigram(None, context)
                if name.endswith("base")
                else make_bigram(context=context)
            )
        else:
            limit = {"llama": "max_position_embeddings", "gpt2": "n_positions"}
            folder = make_model(name, **({limit[name]: context} if name in limit else {}))
        return load(folder, backend, device, "float32")

    return get


def finished(answer: Answer, stop_after: int | None = None) -> Message:
    """Runs an answer to its end, or until it has said so many pieces."""
    for count, _ in enumerate(answer, 1):
        if count == stop_after:
            break
    message = answer.finish()
    assert message.ids is None or says(
        answer.chat.tokenizer, message
    )  # it is not taken for one that was edited
    return message


def from_scratch(chat: Chat, answer: Answer) -> list[int]:
    """The tokens that the plain loop gives after the same prompt, read from its beginning by a state of its own."""
    row = Row(list(answer.row.prompt))
    options = Options.of(
        **(dict(answer.run.settings) | {"max_tokens": max(1, len(answer.row.ids))})
    )
    for _ in generate(chat.shared.runner, [row], options, answer.stop_ids):
        pass
    return row.ids


OPERATIONS = st.one_of(
    st.tuples(
        st.just("say"), st.text(min_size=1, max_size=12).filter(lambda text: text.strip() != "")
    ),
    st.tuples(
        st.just("edit"),
        st.sampled_from(["Hi", "What is rain?", "日本語 🙂", "User: me\nAssistant: you"]),
    ),
    st.tuples(st.just("again"), st.one_of(st.none(), st.integers(0, 5))),
    st.tuples(st.just("go_on"), st.none()),
    st.tuples(st.just("undo"), st.none()),
    st.tuples(st.just("clear"), st.none()),
    st.tuples(st.just("system"), st.sampled_from([None, "Be kind.", "x"])),
    st.tuples(
        st.just("set"),
        st.sampled_from([{"temperature": 0}, {"temperature": 1.3}, {"repetition_penalty": 1.3}]),
    ),
    st.tuples(st.just("interrupted"), st.integers(1, 4)),
)
CASES = [
    ("llama", "stop"), ("llama", "roll"), ("llama", "sinks"), ("gpt2", "roll"), ("lstm", "stop"),
    ("bigram", "roll"), ("bigram-base", "sinks"),
]  # fmt: skip


def do(chat: Chat, name: str, value: Any) -> Answer | None:
    """One operation; the answer that it began, if it did."""
    match name:
        case "say":
            return chat.say(value)
        case "edit":
            return chat.edit(value)
        case "again":
            return chat.again(value)
        case "go_on":
            return chat.go_on()
        case "undo":
            chat.conversation.take_turn()
        case "clear":
            chat.conversation.clear()
        case "system":
            chat.conversation.system = value
        case "set":
            chat.configure(**value)
        case "interrupted":
            return chat.say("Go on and on.")
    return None


@pytest.mark.parametrize(("name", "policy"), CASES)
def test_any_conversation_is_what_it_is_from_scratch(
    loaded: Load, backend: str, any_backend: str, name: str, policy: str
) -> None:
    model = loaded(name, 120 if name in ("llama", "gpt2", "lstm") else 40)
    seen = {"answers": 0, "reused": 0, "left out": 0}
    # No backend decides what is done: on one of them all of it is, and on the others the first conversations.
    examples = 12 if backend == any_backend else 3

    @settings(deadline=None, derandomize=True, max_examples=examples, database=None)
    @example([("say", "What is rain?")] * 6)  # longer than the window
    @given(st.lists(OPERATIONS, min_size=4, max_size=12))
    def check(operations: list[tuple[str, Any]]) -> None:
        chat = Chat(model, settings={"seed": 7, "max_tokens": 9}, overflow=policy)
        for operation, value in operations:
            before = list(chat.conversation.spoken)
            try:
                answer = do(chat, operation, value)
            except (UsageError, ContextError):
                assert chat.conversation.spoken == before  # what is refused changes nothing
                continue
            if answer is None:
                continue
            known = list(chat.shared.ids)
            message = finished(answer, value if operation == "interrupted" else None)
            assert chat.conversation.spoken[-1] is message
            assert from_scratch(chat, answer) == answer.row.ids
            reading = answer.reading
            assert reading.tokens_read + reading.tokens_reused == len(answer.row.prompt)
            missed = (
                min(common_length(known, answer.row.prompt), len(answer.row.prompt) - 1)
                - reading.tokens_reused
            )
            # A recurrent state goes back to the copy before, which is at most so far away.
            assert 0 <= missed <= (64 if name == "lstm" else 0)
            if message.ids is not None:
                said = chat.tokenizer.stream([0, *answer.row.prompt])
                text = "".join(map(said.push, message.ids[answer.run.start :])) + said.finish()
                assert message.content.endswith(text)
            seen["answers"] += 1
            seen["reused"] += reading.tokens_reused
            seen["left out"] += answer.left_out

    check()
    assert seen["answers"] > 1.5 * examples
    assert seen["reused"] > 8 * examples
    if policy == "roll":
        assert seen["left out"] or examples < 12
    else:
        assert not seen["left out"]


def test_a_turn_reads_what_is_new(loaded: Load) -> None:
    chat = Chat(loaded("bigram", 512), settings={"seed": 1, "max_tokens": 12})
    finished(chat.say("Hello there."))
    first = chat.readings[-1]
    assert first.tokens_reused == 0
    answer = chat.say("More.")
    finished(answer)
    # What the state has not seen: the last token of the answer, where the first turn ends, and the new message.
    new = len(chat.tokenizer.encode("<|end|><|user|>More.<|end|><|assistant|>", special=True))
    assert new <= chat.readings[-1].tokens_read <= new + 1
    finished(chat.again())
    assert chat.readings[-1].tokens_read == 1
    finished(chat.edit("More!"))
    assert chat.readings[-1].tokens_read <= 4


def test_a_recurrent_state_goes_back_to_the_prompt(loaded: Load) -> None:
    chat = Chat(loaded("lstm"), settings={"seed": 1, "max_tokens": 9})
    for _ in range(2):
        finished(chat.say("Hello there."))
        before = chat.readings[-1]
        finished(chat.again())
        assert chat.readings[-1].tokens_read == 1
        assert chat.readings[-1].tokens_reused == before.tokens_read + before.tokens_reused - 1


def test_going_on_is_one_text(loaded: Load) -> None:
    """An answer in two parts is what it is in one, where nothing but its length was bounded."""
    model = loaded("bigram")
    whole = finished(
        Chat(model, settings={"seed": 3, "max_tokens": 20, "temperature": 1.5}).say("Hi")
    )
    chat = Chat(model, settings={"seed": 3, "max_tokens": 10, "temperature": 1.5})
    finished(chat.say("Hi"))
    assert finished(chat.go_on()).content == whole.content
    assert chat.conversation.spoken[-1].ids == whole.ids
    assert [(run.start, run.tokens, run.finish) for run in chat.conversation.spoken[-1].runs] == [
        (0, 10, "length"), (10, 10, "length"),
    ]  # fmt: skip
    assert len(chat.conversation.spoken) == 2


THOUGHTFUL = """{%- for m in messages %}{%- if m.role == 'assistant' and loop.last -%}
{{ '<|assistant|><think>\\n\\n</think>\\n\\n' + m.content + '<|end|>' }}
{%- else -%}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{%- endif -%}
{%- endfor -%}{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif -%}"""
STRIPPING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize("policy", ["stop", "roll", "sinks"])
@pytest.mark.parametrize("template", [THOUGHTFUL, STRIPPING, None])
def test_going_on_reads_what_was_read(
    backend: str, device: str, make_bigram: Callable[..., Path], template: str | None, policy: str
) -> None:
    """In pieces the same answer as in one go, the state kept, whatever the template makes of an answer."""
    model = load(make_bigram(template, 120), backend, device, "float32")
    whole = finished(
        Chat(model, settings={"seed": 3, "max_tokens": 40, "temperature": 0.9}).say("Hi")
    )
    chat = Chat(model, settings={"seed": 3, "max_tokens": 5, "temperature": 0.9}, overflow=policy)
    answer = chat.say("Hi")
    finished(answer)
    for _ in range(5):
        read = [*answer.row.prompt, *chat.conversation.last_answer().ids[answer.run.start :]]  # type: ignore[index]
        answer = chat.go_on()
        assert answer.row.prompt == read
        finished(answer)
        assert answer.reading.tokens_read <= 1
    said = chat.conversation.last_answer()
    assert len(said.ids or ()) > 20
    assert whole.ids is not None
    assert whole.ids[: len(said.ids or ())] == said.ids
    assert whole.content.startswith(said.content)
    assert {found.at for found in replay(Chat(model), chat.conversation)} == {None}
    assert 1 <= len(list(explain(chat))) <= 6
    finished(chat.say("More, please."))
    finished(chat.go_on())
    finished(chat.again())
    assert {found.at for found in replay(Chat(model), chat.conversation)} == {None}


# -- what the template does not show, and what a file says --
USERS = (
    "{% for m in messages if m.role == 'user' %}{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SYSTEM_OUT = "the chat template omits the system prompt: the model does not see it"


def test_what_is_left_out_is_said_once(
    backend: str, device: str, make_bigram: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    model = load(make_bigram(USERS), backend, device, "float32")
    chat = Chat(model, settings={"seed": 1, "max_tokens": 3})
    finished(chat.say("Hi"))
    assert caplog.messages == []
    chat.set_system("Be kind.")
    chat.set_system("Be kinder.")
    assert caplog.messages == [SYSTEM_OUT]
    finished(chat.say("Hello"))
    finished(chat.say("Hello?"))
    finished(chat.again())
    answers = "the chat template omits messages, which the model does not see: 2 (the assistant's)"
    assert caplog.messages == [SYSTEM_OUT, answers]
    caplog.clear()
    resumed = Chat(model, chat.conversation)  # says it before anything is asked of it
    assert caplog.messages == [SYSTEM_OUT, f"{answers}, 4 (the assistant's), 6 (the assistant's)"]
    finished(resumed.say("So"))
    assert len(caplog.messages) == 2
    caplog.clear()
    Chat(
        model,
        Conversation([Message("user" if i % 2 == 0 else "assistant", "x") for i in range(20)]),
    )
    assert caplog.messages[0].endswith(
        "2 (the assistant's), 4 (the assistant's), 6 (the assistant's) and 7 more"
    )
    caplog.clear()
    Chat(load(make_bigram(), backend, device, "float32"), chat.conversation)
    Chat(load(make_bigram(None), backend, device, "float32"), chat.conversation)
    assert caplog.messages == []


def test_an_answer_that_was_edited(loaded: Load, caplog: pytest.LogCaptureFixture) -> None:
    """Its text is what the model is given; tokens that say something else are no longer its own."""
    chat = Chat(loaded("bigram"), settings={"seed": 3, "max_tokens": 10})
    finished(chat.say("Hi"))
    finished(chat.say("More"))
    edited = list(chat.conversation.spoken)
    edited[1] = replace(edited[1], content="The roof is old.")
    resumed = Chat(chat.model, Conversation(edited), settings=chat.settings)
    assert caplog.messages == [
        "the model is given the text of message 2, whose tokens say something else"
    ]
    assert resumed.conversation.spoken == [
        edited[0],
        Message("assistant", "The roof is old."),
        *edited[2:],
    ]
    resumed.conversation.take_turn()
    assert chat.tokenizer.decode(resumed.go_on().row.prompt).endswith("HiThe roof is old.")
    wrong = [edited[0], replace(edited[1], ids=(5, 10**6))]
    message = f"message 2 has the token 1000000, and the model's go from 0 to {chat.model.architecture.vocab_size - 1}"
    with pytest.raises(ChatError, match=message):
        Chat(chat.model, Conversation(wrong))
    with pytest.raises(ChatError, match=message):
        resumed.take(Conversation(wrong))
    with pytest.raises(ChatError, match=message):
        list(replay(chat, Conversation(wrong)))
    assert len(resumed.conversation.spoken) == 2


def test_what_is_refused_is_worked_out_once(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toolbar asks at every key."""
    chat = Chat(loaded("bigram"), Conversation([Message("user", "Hi")]))
    asked = []

    def refuse(*args: Any, **named: Any) -> list[int]:
        asked.append(args)
        raise ChatError("no")

    monkeypatch.setattr(chat.format, "ids", refuse)
    chat.conversation.system = "x"
    for _ in range(3):
        with pytest.raises(ChatError, match="no"):
            _ = chat.used
    assert len(asked) == 1


def test_again_takes_the_next_seed(loaded: Load) -> None:
    chat = Chat(loaded("bigram"), settings={"seed": 3, "max_tokens": 10})
    texts = [
        finished(chat.say("Hi")).content,
        finished(chat.again()).content,
        finished(chat.again()).content,
    ]
    assert [
        finished(Chat(chat.model, settings={"seed": s, "max_tokens": 10}).say("Hi")).content
        for s in (3, 4, 5)
    ] == texts
    assert finished(chat.again(3)).content == texts[0]
    assert len(set(texts)) == 3


def test_roll_leaves_the_oldest_turns_out(loaded: Load) -> None:
    chat = Chat(loaded("bigram", 100), settings={"seed": 1, "max_tokens": 12}, overflow="roll")
    chat.conversation.system = "Be kind."
    firsts, warned = [], None
    for number in range(12):
        if chat.conversation.first == 0:
            warned = chat.warning() if number else None
        answer = chat.say(f"Message number {number}, please.")
        finished(answer)
        firsts.append(chat.conversation.first)
        assert len(answer.row.prompt) + 12 <= 100
        assert chat.tokenizer.decode(answer.row.prompt, skip_special=False).startswith(
            "<|system|>Be kind.<|end|><|user|>"
        )
        assert answer.left_out == firsts[-1] - (firsts[-2] if number else 0)
    assert warned is not None  # before anything was left out
    assert warned[0] == "roll"
    assert "the oldest turns will be left out" in warned[1]
    assert len(chat.conversation.spoken) == 24  # nothing is lost
    assert firsts == sorted(firsts)
    assert 3 < len(set(firsts)) < 12  # not at every turn
    chat.conversation.take_turn()
    assert chat.conversation.first == firsts[-2]


def test_sinks_go_on_past_the_window(loaded: Load) -> None:
    chat = Chat(loaded("llama", 64), settings={"seed": 1, "max_tokens": 30}, overflow="sinks")
    for _ in range(4):
        finished(chat.say("And then?"))
    assert chat.used > 150
    assert chat.conversation.first == 0
    with pytest.raises(ContextError, match="attention sinks need rotary positions"):
        Chat(loaded("gpt2", 64), overflow="sinks")


def test_stop_refuses_what_does_not_fit(loaded: Load) -> None:
    chat = Chat(loaded("llama", 64), settings={"seed": 1, "max_tokens": 10})
    with pytest.raises(ContextError) as error:
        chat.say("x" * 80)
    assert str(error.value) == "this turn alone has 97 tokens, and the window is 64: shorten it"
    finished(chat.say("x" * 20))
    with pytest.raises(
        ContextError, match="shorten it, /undo, /clear, or choose --overflow roll or sinks"
    ):
        chat.say("y" * 20)
    assert len(chat.conversation.spoken) == 2
    assert chat.warning() is None
    finished(chat.edit("x" * 30))
    warning = chat.warning()
    assert warning is not None
    assert "a message that does not fit will be refused" in warning[1]
    # The answer ends with the window, whatever was asked for.
    chat = Chat(chat.model, settings={"seed": 1, "max_tokens": 60})
    answer = chat.say("x" * 20)
    assert finished(answer).runs[0].tokens == 64 - len(answer.row.prompt)


def test_the_window_may_be_smaller(loaded: Load) -> None:
    chat = Chat(loaded("llama", 64), context=40)
    assert chat.window.size == 40
    assert chat.window.answer(None) == 10
    for context in (7, 65):
        with pytest.raises(
            UsageError, match=f"context is {context}: it must be from 8 to the model's 64"
        ):
            chat.set_window("stop", context)
    with pytest.raises(UsageError, match="this model has no context to make smaller"):
        Chat(loaded("lstm"), context=40)
    assert Chat(loaded("lstm")).window.answer(None) == 512


def test_settings(loaded: Load) -> None:
    chat = Chat(loaded("llama"), settings={"seed": 5})
    with pytest.raises(
        UsageError, match="beams is no setting of a chat: there are max_tokens, stop, "
    ):
        chat.configure(beams=2)
    with pytest.raises(UsageError, match="top_p is 2: it must be a number > 0 and <= 1"):
        chat.configure(temperature=0.5, top_p=2)
    assert chat.settings == {"seed": 5}  # nothing of a bad change is taken
    chat.configure(temperature=0.5)
    chat.configure(temperature=None)
    assert chat.options.sampling.temperature == 0.8
    chat.configure(logit_bias={999: 1})
    with pytest.raises(UsageError, match="logit_bias names token 999"):
        chat.say("Hi")
    assert chat.conversation.spoken == []


def test_a_stop_string_within_a_token(loaded: Load) -> None:
    tokenizer = loaded("bigram").tokenizer
    assert tokenizer is not None
    ids = tokenizer.encode(" The garden has three trees")
    assert kept_ids(tokenizer, [5], ids, " The garden") == tokenizer.encode(" The garden")
    kept = kept_ids(tokenizer, [5], ids, " The gar")
    assert kept is not None
    assert tokenizer.decode(kept) == " The gar"
    assert kept_ids(tokenizer, [5], ids, "") == []
    half = [*tokenizer.encode("a"), *tokenizer.encode("é")[:1]]
    assert kept_ids(tokenizer, [5], half, "a") == half[:1]  # half a character is not kept


def test_half_a_character_is_completed(loaded: Load) -> None:
    """One token at a time, continued: the text and its tokens say the same, whatever is cut."""
    chat = Chat(loaded("llama", 400), settings={"seed": 2, "max_tokens": 1, "temperature": 1.5})
    finished(chat.say("Hi"))
    halves = 0
    for _ in range(40):
        message = finished(chat.go_on())
        assert message.ids is not None
        stream = chat.tokenizer.stream([0])
        assert message.content == "".join(map(stream.push, message.ids)) + stream.finish()
        halves += message.runs[-1].tokens > len(message.ids) - message.runs[-1].start
    assert halves > 3


def test_a_message_that_waits(loaded: Load) -> None:
    chat = Chat(
        loaded("bigram"),
        Conversation([Message("user", "Hi")]),
        settings={"seed": 3, "max_tokens": 10},
    )
    assert (
        finished(chat.again()).content
        == finished(Chat(chat.model, settings=chat.settings).say("Hi")).content
    )


def test_a_template_that_refuses(
    backend: str, device: str, make_bigram: Callable[..., Path]
) -> None:
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ "
        "messages[-1].content }}"
    )
    chat = Chat(load(make_bigram(refusing), backend, device, "float32"))
    chat.conversation.system = "Be kind."
    with pytest.raises(
        ChatError, match=r"the chat template refuses this conversation: no system .*drop it"
    ):
        chat.say("Hi")
    assert chat.conversation.spoken == []


def test_errors_of_a_conversation() -> None:
    talk = Conversation()
    for call in (talk.last_answer, talk.take_answer, talk.take_turn):
        with pytest.raises(MinigenError):
            call()
    with pytest.raises(UsageError, match="the message is empty"):
        talk.say(" \n ")
    talk.say("Hi")
    with pytest.raises(
        UsageError, match="the last message has no answer yet: /regen generates one"
    ):
        talk.say("Hello?")
    with pytest.raises(
        ChatError, match="message 2 is the user's: user and assistant must alternate"
    ):
        Conversation([Message("user", "a"), Message("user", "b")])

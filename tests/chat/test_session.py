"""Sessions on disk, replayed, and explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.chat.conversation import Conversation, Message, Run
from minigen.chat.engine import Chat
from minigen.chat.replay import Replayed, replay
from minigen.chat.session import Session, load_session, save_session, tokenizer_key
from minigen.chat.why import explain
from minigen.errors import ChatError, MinigenError, UsageError
from minigen.model import load
from minigen.sampling import process
from minigen.sampling.numeric import softmax


@pytest.fixture
def make_chat(backend: str, device: str, make_bigram: Callable[..., Path]) -> Callable[..., Chat]:
    def make(conversation: Conversation | None = None, **settings: Any) -> Chat:
        model = load(make_bigram(context=96), backend, device, "float32")
        return Chat(
            model,
            conversation,
            settings={"seed": 3, "max_tokens": 12, "temperature": 1.2} | settings,
        )

    return make


def talked(chat: Chat) -> Chat:
    """A conversation with a continued answer, an interrupted one, and one whose oldest turns were left out."""
    chat.set_window("roll")
    for name in ("Hello.", "What is rain?", "And the roof?", "Tell me more.", "And then?"):
        answer = chat.say(name)
        for count, _ in enumerate(answer):
            if name == "And the roof?" and count == 3:
                break
        answer.finish()
        chat.conversation.system = "Be kind."  # from the second turn on
        if name == "Hello.":
            answer = chat.go_on()
            list(answer)
            answer.finish()
    assert chat.conversation.first > 0
    return chat


def as_session(chat: Chat) -> Session:
    return Session(
        chat.conversation, "a model", tokenizer_key(chat.model), "roll", None, dict(chat.settings)
    )


def test_a_session_comes_back_whole(make_chat: Callable[..., Chat], tmp_path: Path) -> None:
    chat = talked(make_chat(logit_bias={5: -1.5}, stop=["\n"]))
    chat.conversation.system = "Sei nett 🙂"
    path = tmp_path / "s.jsonl"
    save_session(as_session(chat), path)
    found = load_session(path)
    assert found.conversation.spoken == chat.conversation.spoken
    assert found.conversation.system == "Sei nett 🙂"
    assert (found.model, found.overflow, found.context) == ("a model", "roll", None)
    assert found.settings == chat.settings
    assert found.tokenizer == tokenizer_key(chat.model)
    assert "Sei nett 🙂" in path.read_text()  # readable by people too
    save_session(found, path)
    assert load_session(path).conversation.spoken == chat.conversation.spoken


def test_replay_gives_the_same_again(make_chat: Callable[..., Chat]) -> None:
    chat = talked(make_chat())
    results = list(replay(Chat(chat.model), chat.conversation))
    assert len(results) == 6
    assert {result.at for result in results} == {None}
    assert sum(result.tokens for result in results) == sum(
        len(m.ids or ()) for m in chat.conversation.spoken
    )
    assert min(result.tokens for result in results) > 0


def test_replay_finds_the_first_difference(make_chat: Callable[..., Chat]) -> None:
    chat = talked(make_chat())
    spoken = list(chat.conversation.spoken)
    ids = list(spoken[3].ids or ())
    ids[2] = chat.tokenizer.encode("Q")[0]
    spoken[3] = replace(spoken[3], ids=tuple(ids))
    spoken[5] = replace(
        spoken[5],
        runs=(
            replace(spoken[5].runs[0], settings=dict(spoken[5].runs[0].settings) | {"seed": 99}),
        ),
    )
    spoken[7] = replace(spoken[7], ids=None)
    results = list(replay(Chat(chat.model), Conversation(spoken)))
    found = {result.message: result for result in results if result.at is not None}
    assert found[3].at == 2
    assert found[3].expected.startswith("Q")
    assert not found[3].got.startswith("Q")
    assert 5 in found
    assert [r for r in results if r.skipped][:1] == [
        Replayed(7, 0, None, skipped="its tokens are not recorded")
    ]
    broken = [spoken[0], replace(spoken[1], runs=(replace(spoken[1].runs[0], first=2),))]
    with pytest.raises(ChatError, match="message 2: its runs do not fit its tokens"):
        list(replay(Chat(chat.model), Conversation(broken)))


def test_replay_on_the_other_backend(make_bigram: Callable[..., Path]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx")
    folder = make_bigram(context=96)
    chat = talked(Chat(load(folder, "torch", "cpu"), settings={"seed": 3, "max_tokens": 12}))
    results = list(replay(Chat(load(folder, "mlx", "cpu")), chat.conversation))
    assert {result.at for result in results} == {None}


def test_why(make_chat: Callable[..., Chat]) -> None:
    chat = make_chat(temperature=0.9, top_p=0.97, min_p=0.6)
    answer = chat.say("Hello.")
    list(answer)
    message = answer.finish()
    choices = list(explain(chat, 4))
    ended = message.runs[-1].finish == "stop"
    assert [c.token for c in choices][: len(message.ids or ())] == list(message.ids or ())
    assert [c.ends for c in choices] == [False] * len(message.ids or ()) + [True] * ended
    prompt = answer.row.prompt
    logits = chat.model.logits([[*prompt, *(message.ids or ())]])[0]
    for number, choice in enumerate(choices):
        row = logits[len(prompt) - 1 + number]
        said = [*prompt, *(message.ids or ())[:number]]
        probs = process(row, said, len(prompt), chat.options.sampling)
        assert choice.drawn_from == pytest.approx(probs[choice.token], abs=1e-5)
        assert choice.probability == pytest.approx(
            softmax(row.astype(np.float64))[choice.token], abs=1e-5
        )
        assert [gone.stage for gone in choice.removed] in (["top_p"], ["top_p", "min_p"])
        left = len(row) - sum(gone.tokens for gone in choice.removed)
        assert left == (probs > 0).sum()
        assert all(0 <= gone.probability < 1 for gone in choice.removed)
        assert [i for i, _, _ in choice.candidates] == list((-row).argsort(kind="stable")[:4])
    assert {gone.stage for choice in choices for gone in choice.removed} == {"top_p", "min_p"}
    chat.conversation = Conversation([Message("user", "a"), Message("assistant", "b")])
    with pytest.raises(UsageError, match="it is not recorded how"):
        list(explain(chat))
    list(chat.go_on())  # the state is still good


def test_training_data_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    path.write_text(json.dumps({"messages": messages}) + "\n")
    found = load_session(path)
    assert found.conversation.plain() == messages


HEAD = {
    "minigen_chat": 1,
    "model": None,
    "tokenizer": "",
    "overflow": "stop",
    "context": None,
    "settings": {},
    "system": None,
}
USER = {"role": "user", "content": "a"}
ANSWER, SYSTEM = {"role": "assistant", "content": "b"}, {"role": "system", "content": "s"}
RUN = {
    "start": 0,
    "tokens": 1,
    "finish": "stop",
    "first": 0,
    "settings": {"seed": 1},
    "system": None,
    "sinks": None,
}


def run(**changes: Any) -> dict[str, Any]:
    """An answer of one token and one run."""
    return ANSWER | {"ids": [1], "runs": [RUN | changes]}


BROKEN: dict[str, tuple[list[Any] | bytes, str]] = {
    "empty": (b"\n", " is empty: it has no conversation"),
    "no text": (b"\xff", " is not UTF-8: byte 0xff at offset 0"),
    "no JSON": (b"{x", ":1: not valid JSON: Expecting property name enclosed in double quotes"),
    "deep": (b"[" * 99999, ":1: not valid JSON: "),
    "no object": ([1], ":1: must be a JSON object, not int"),
    "something else": ([{"a": 1}], ':1: neither a session (its first line has "minigen_chat") nor {"messages": [...]}'),
    "later": ([HEAD | {"minigen_chat": 2}], ":1: minigen_chat is 2: this version of minigen reads 1"),
    "version": ([HEAD | {"minigen_chat": True}], ":1: minigen_chat is true: this version of minigen reads 1"),
    "model": ([HEAD | {"model": 3}], ":1: model is 3: it must be a string"),
    "model, NUL": ([HEAD | {"model": "a\0b"}], ":1: model has a NUL character, which no name of a file"),
    "model, surrogate": ([HEAD | {"model": "\ud800"}], ":1: model is not valid Unicode: it has half of a surrogate "),
    "no tokenizer": ([{k: v for k, v in HEAD.items() if k != "tokenizer"}], ":1: tokenizer is missing: it must be a"),
    "plain": ([HEAD | {"plain": "yes"}], ":1: plain is 'yes': it must be true or false"),
    "context": ([HEAD | {"context": True}], ":1: context is true: it must be a whole number from 8 to 2147483648"),
    "context, huge": ([HEAD | {"context": 2**70}], ":1: context is 1180591620717411303424: it must be a whole number"),
    "context, float": ([HEAD | {"context": 64.0}], ":1: context is 64.0: it must be a whole number"),
    "overflow": ([HEAD | {"overflow": "x"}], ":1: overflow is 'x': it must be one of stop, roll, sinks"),
    "overflow, list": ([HEAD | {"overflow": ["stop"]}], ":1: overflow is a list of 1: it must be one of stop, roll,"),
    "system": ([HEAD | {"system": {}}], ":1: system is an object of 0: it must be a string"),
    "settings": ([HEAD | {"settings": []}], ":1: settings is a list of 0: it must be an object"),
    "setting": ([HEAD | {"settings": {"beams": 2}}], ":1: settings has 'beams', which is not a setting of it"),
    "setting, type": ([HEAD | {"settings": {"seed": "x"}}], ":1: settings.seed is 'x': it must be a whole number"),
    "setting, range": ([HEAD | {"settings": {"top_p": 1e300}}], ":1: settings.top_p is 1e+300: it must be a number "),
    "setting, huge": ([HEAD | {"settings": {"temperature": 10**400}}], ":1: settings.temperature is 1000000"),
    "max_tokens": ([HEAD | {"settings": {"max_tokens": 2**70}}], ":1: settings.max_tokens is 1180591620717411303424"),
    "stop": ([HEAD | {"settings": {"stop": ["a", 1]}}], ":1: settings.stop[1] is 1: it must be a string"),
    "stop, surrogate": ([HEAD | {"settings": {"stop": ["\udfff"]}}], ":1: settings.stop[0] is not valid Unicode"),
    "stop, empty": ([HEAD | {"settings": {"stop": [""]}}], ":1: settings.stop has the entry ''"),
    "bias": ([HEAD | {"settings": {"logit_bias": {"a": 1}}}], ":1: settings.logit_bias has the key 'a': it must map"),
    "bias, digits": ([HEAD | {"settings": {"logit_bias": {"1" * 5000: 1}}}], ":1: settings.logit_bias has the key '"),
    "bias, other digits": ([HEAD | {"settings": {"logit_bias": {"²": 1}}}], ":1: settings.logit_bias has the key '"),
    "bias, value": ([HEAD | {"settings": {"logit_bias": {"1": "x"}}}], ":1: settings.logit_bias of token 1 is 'x': it"),
    "role": ([HEAD, {"role": "tool", "content": ""}], ":2: role is 'tool': it must be one of user, assistant"),
    "role, list": ([HEAD, {"role": ["user"], "content": ""}], ":2: role is a list of 1: it must be one of user, ass"),
    "content": ([HEAD, {"role": "user"}], ":2: content is missing: it must be a str"),
    "content, null": ([HEAD, {"role": "user", "content": None}], ":2: content is null: it must be a string"),
    "turns": ([HEAD, USER, USER], ":3: role is 'user': user and assistant must alternate, and this must be assistant"),
    "begin": ([HEAD, ANSWER], ":2: role is 'assistant': user and assistant must alternate, and this must be user"),
    "ids": ([HEAD, USER, ANSWER | {"ids": [5, -1]}], ":3: ids[1] is -1: it must be a whole number from 0 to 2147483"),
    "ids, text": ([HEAD, USER, ANSWER | {"ids": ["5"]}], ":3: ids[0] is '5': it must be a whole number"),
    "ids, true": ([HEAD, USER, ANSWER | {"ids": [True]}], ":3: ids[0] is true: it must be a whole number"),
    "ids, float": ([HEAD, USER, ANSWER | {"ids": [1.0]}], ":3: ids[0] is 1.0: it must be a whole number"),
    "ids, huge": ([HEAD, USER, ANSWER | {"ids": [2**70]}], ":3: ids[0] is 1180591620717411303424: it must be a whole"),
    "ids, object": ([HEAD, USER, ANSWER | {"ids": {"a": 1}}], ":3: ids is an object of 1: it must be a list"),
    "ids, user": ([HEAD, USER | {"ids": [1]}], ":2: ids belongs to an answer, but this is a message of the user"),
    "runs, user": ([HEAD, USER | {"runs": [RUN]}], ":2: runs belongs to an answer, but this is a message of the user"),
    "run": ([HEAD, USER, ANSWER | {"runs": [{}]}], ":3: runs[0].start is missing: it must be a whole number from 0 to"),
    "run, more": ([HEAD, USER, ANSWER | {"runs": [RUN | {"x": 1}]}], ":3: runs[0].'x' is not a field of it"),
    "run, list": ([HEAD, USER, ANSWER | {"runs": [[]]}], ":3: runs[0] is a list of 0: it must be an object"),
    "no seed": ([HEAD, USER, run(settings={})], ":3: runs[0].settings has no seed, without which an"),
    "seed null": ([HEAD, USER, run(settings={"seed": None})], ":3: runs[0].settings has no seed"),
    "seed": ([HEAD, USER, run(settings={"seed": []})], ":3: runs[0].settings.seed is []: it must be a whole number"),
    "guessing": ([HEAD, USER, run(settings={"seed": 1, "speculate": "lookup"})], ":3: runs[0].settings has 'specula"),
    "finish": ([HEAD, USER, run(finish="x")], ":3: runs[0].finish is 'x': it must be one of stop, length, interrupted"),
    "first": ([HEAD, USER, run(first=1)], ":3: runs[0].first is 1: it must be even: a window begins with a mess"),
    "first, late": ([HEAD, USER, run(first=2)], ":3: runs[0].first is 2: it must be less than 1, the number of mess"),
    "start": ([HEAD, USER, run(start=2)], ":3: runs[0].start is 2: it must be from 0 to 1, the number of tokens"),
    "back": (
        [HEAD, USER, ANSWER | {"ids": [1], "runs": [RUN | {"start": 1}, RUN]}], ":3: runs[1].start is 0: it must be ",
    ),
    "tokens": ([HEAD, USER, run(tokens=2**40)], ":3: runs[0].tokens is 1099511627776: it must be a whole number"),
    "sinks": ([HEAD, USER, run(sinks=2)], ":3: runs[0].sinks is 2: it must be a whole number from 8 to"),
    "a run's system": ([HEAD, USER, run(system="\ud800")], ":3: runs[0].system is not valid Unicode"),
    "surrogate": ([HEAD, {"role": "user", "content": "h\ud800i"}], ":2: content is not valid Unicode"),
    "twice": (b'{"minigen_chat": 1, "minigen_chat": 1}', ":1: not valid JSON: the key 'minigen_chat' is there twice"),
    "NaN": (b'{"minigen_chat": NaN}', ":1: minigen_chat is nan: this version of minigen reads 1"),
    "infinite": (b'{"messages": [{"role": "user", "content": 1e999}]}', ":1: messages[0].content is inf: it must be a"),
    "digits": (b'{"minigen_chat": ' + b"1" * 5000 + b"}", ":1: not valid JSON: Exceeds the limit"),
    "messages": ([{"messages": [1]}], ":1: messages must be a list of objects with a role and a content"),
    "messages, turns": ([{"messages": [USER, USER]}], ":1: messages[1].role is 'user': user and assistant must alte"),
    "messages, system": ([{"messages": [{"role": "system"}]}], ":1: messages[0].content is missing: it must be a str"),
    "messages, later": ([{"messages": [SYSTEM, USER, {"role": "assistant"}]}], ":1: messages[2].content is missing:"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str, tmp_path: Path) -> None:
    content, reason = BROKEN[name]
    path = tmp_path / "s.jsonl"
    path.write_bytes(
        content
        if isinstance(content, bytes)
        else "".join(json.dumps(x) + "\n" for x in content).encode()
    )
    with pytest.raises(ChatError) as error:
        load_session(path)
    assert str(error.value).startswith(f"{path}{reason}")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600 + len(str(path))


def test_a_file_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(MinigenError, match=r"cannot read .*: No such file"):
        load_session(tmp_path / "none")
    with pytest.raises(MinigenError, match=r"cannot read .*: embedded null byte"):
        load_session(Path("a\0b"))
    with pytest.raises(MinigenError, match=r"cannot read /dev/zero: is larger than 64 MiB"):
        load_session(Path("/dev/zero"))
    with pytest.raises(MinigenError, match="cannot write"):
        save_session(Session(), tmp_path / "none" / "s.jsonl")
    with pytest.raises(
        MinigenError, match=r"cannot write .*: a text of the session has the lone surrogate U\+DC80"
    ):
        save_session(Session(model="\udc80"), tmp_path / "s.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.jsonl"
    save_session(Session(Conversation([Message("user", "first")])), path)
    before = path.read_bytes()

    def full(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(MinigenError, match=r"cannot write .*No space left"):
        save_session(Session(Conversation([Message("user", "second")])), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_settings_of_a_run_survive(tmp_path: Path) -> None:
    run = Run(0, 3, "length", 0, {"seed": 1, "logit_bias": {7: 0.5}}, "Be kind.", 64)
    talk = Conversation([Message("user", "a"), Message("assistant", "b", (1, 2, 3), (run,))])
    save_session(Session(talk), tmp_path / "s.jsonl")
    assert load_session(tmp_path / "s.jsonl").conversation.spoken[1].runs == (run,)

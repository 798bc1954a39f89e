"""`minigen chat` through a pipe: whole transcripts of the real command, with a mock model that is a real checkpoint."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sessions and history go here."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "minigen"


@pytest.fixture
def chat(
    run_cli: Run, backend: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """chat(model, text, *flags): what `minigen chat` does with that text on standard input."""

    def run(model: Path | str, text: str, *flags: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return run_cli("chat", *([str(model)] if str(model) else []), "--backend", backend, *flags)

    return run


def sessions(home: Path) -> list[Path]:
    return sorted((home / "sessions").glob("*"))


def test_a_message_on_a_pipe(chat: Run, make_bigram: Callable[..., Path], home: Path) -> None:
    model = make_bigram()
    code, out, err = chat(model, "Hello\nthere\n", "--seed", "3", "-n", "30")
    assert (code, out, err) == (0, HELLO, "")
    (path,) = sessions(home)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[1] == {
        "role": "user",
        "content": "Hello\nthere",
    }  # one message, whatever its lines
    assert lines[2]["content"].strip() + "\n" == HELLO
    assert chat(model, "Hello\nthere\n", "--seed", "3", "-n", "30", "--no-save")[1] == HELLO
    assert sessions(home) == [path]


HELLO = """\
Hello!
I like rain.
- a plum tree
"""
TRANSCRIPT = """\
Hello.
/regen
/regen 3
/undo
What is **rain**?
/edit What is rain?
/continue
/system Be kind.
/set temp 0
And the roof?
/set temp default
/set max_tokens 8
More, please.
/clear
\"""
/not a command
two lines
\"""
/export jsonl
/exit
never said
"""


ANSWERS = """\
Hello!
I like rain. 日本語 is fine 🙂 too.
- an apple tree
Well, and the roof is fine 🙂 too.
- a small
Hello again!
Rain is fine 🙂 too.
- an apple
Hello! I like the garden has three trees:Well, the garden
has three trees:Hello! I am a plum tree
- a small model, and the garden.
Well, and the `rain` falls
Hello!
Rain is old, the
{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "/not a command\\ntwo lines"}, \
{"role": "assistant", "content": "Hello!\\nRain is old, the"}]}
"""
NOTES = """\
minigen: cut at 14 tokens: /continue resumes, /set max_tokens N allows more
minigen: cut at 14 tokens: /continue resumes, /set max_tokens N allows more
minigen: undone: Hello.
minigen: cut at 14 tokens: /continue resumes, /set max_tokens N allows more
minigen: cut at 14 tokens: /continue resumes, /set max_tokens N allows more
minigen: system prompt: Be kind.
minigen: temperature is 0.0
minigen: temperature is 0.8
minigen: max_tokens is 8
minigen: cut at 8 tokens: /continue resumes, /set max_tokens N allows more
minigen: a new conversation, with the same system prompt
minigen: cut at 8 tokens: /continue resumes, /set max_tokens N allows more
"""


def test_a_transcript(chat: Run, make_bigram: Callable[..., Path], home: Path) -> None:
    code, out, err = chat(make_bigram(), TRANSCRIPT, "--lines", "--seed", "1", "-n", "14")
    assert code == 0
    assert out == ANSWERS
    assert err == NOTES
    assert len(sessions(home)) == 2  # /clear keeps what there was


def test_the_views(chat: Run, make_bigram: Callable[..., Path]) -> None:
    text = "Hello.\nAnd the rain?\n/stats\n/context\n/why\n/set\n/help\n/model\n/markdown\n/export md\n"
    code, out, _ = chat(
        make_bigram(), text, "--lines", "--seed", "5", "-n", "6", "--system", "Be kind."
    )
    assert code == 0
    assert "prompt tokens reused" in out
    lines = out.splitlines()
    context = next(i for i, line in enumerate(lines) if line.startswith("message "))
    assert [line.split()[0] for line in lines[context + 1 : context + 6]] == [
        "system", "user", "assistant", "user", "assistant",
    ]  # fmt: skip
    counts = [int(line.split()[1]) for line in lines[context + 1 : context + 6]]
    assert lines[context + 6] == f"{sum(counts)} of 512 tokens, {512 - sum(counts)} free"
    why = next(i for i, line in enumerate(lines) if line.lstrip().startswith("#"))
    assert lines[why].split() == ["#", "token", "model", "drawn", "instead", "removed"]
    assert "top_p" in lines[why + 1]
    assert "temperature           0.8" in out
    assert "/regen [seed]" in out
    assert "**System**\n\nBe kind.\n\n**User**\n\nHello.\n" in out
    assert "\x1b" not in out


def test_base_models_and_recurrent_ones(
    chat: Run, make_bigram: Callable[..., Path], make_model: Callable[..., Path]
) -> None:
    code, out, err = chat(make_bigram(None), "Hi", "--seed", "5", "-n", "20")
    assert (code, err.splitlines()[0]) == (
        0, 'minigen: this model has no chat template: it continues a plain transcript, "User: ... Assistant: ..."',
    )  # fmt: skip
    assert "User:" not in out
    code, out, err = chat(
        make_model("lstm"), "Hi\n/stats\n/context\n", "--lines", "-n", "5", "--seed", "1"
    )
    assert code == 0
    assert "tokens, no limit" in out
    code, out, err = chat(make_bigram(), "Hi", "--plain", "--seed", "5", "-n", "20")
    assert (code, "no chat template" in err) == (0, False)


def test_resume_and_replay(
    chat: Run,
    run_cli: Run,
    make_bigram: Callable[..., Path],
    home: Path,
    backend: str,
    tmp_path: Path,
) -> None:
    model, flags = make_bigram(), ("--lines", "--seed", "2", "-n", "10")
    whole = chat(model, "One.\nTwo.\nThree.\n", *flags)[1]
    path = sessions(home)[0]
    path.unlink()
    first = chat(model, "One.\nTwo.\n", *flags)[1]
    second = chat("", "Three.\n", "--lines", "--resume")[
        1
    ]  # model, seed and settings are in the file
    assert first + second == whole
    (path,) = sessions(home)
    assert [json.loads(line)["role"] for line in path.read_text().splitlines()[1:]] == [
        "user",
        "assistant",
    ] * 3
    code, out, err = run_cli("chat", "--replay", path, "--backend", backend)
    assert (code, err) == (0, "")
    assert out == f"3 answers, 30 tokens, on {backend}: 3 identical, 0 different\n"
    lines = path.read_text().splitlines()
    row = json.loads(lines[4])
    row["ids"][3] = 7
    lines[4] = json.dumps(row)
    path.write_text("\n".join(lines))
    code, out, err = run_cli("chat", "--replay", path, "--backend", backend)
    assert code == 1
    assert out.splitlines()[:2] == [
        f"3 answers, 30 tokens, on {backend}: 2 identical, 1 different", "first difference: message 4, token 4",
    ]  # fmt: skip
    other = tmp_path / "other.jsonl"
    assert chat(model, "x", "--session", str(other))[0] == 0
    assert len(sessions(home)) == 1
    assert chat(model, "x", "--session", str(other)) == (
        2, "", f"minigen: {other} exists: continue it with --resume {other}, or choose another name\n",
    )  # fmt: skip


def test_files_of_others_are_not_written_over(
    chat: Run, make_bigram: Callable[..., Path], tmp_path: Path, home: Path
) -> None:
    data, other, model = tmp_path / "train.jsonl", tmp_path / "other.jsonl", make_bigram()
    data.write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
        * 3
    )
    before = data.read_bytes()
    assert chat(model, "Hello", "--resume", str(data), "-n", "3")[0] == 0
    assert data.read_bytes() == before
    (path,) = sessions(home)
    assert [json.loads(line)["content"] for line in path.read_text().splitlines()[1:3]] == [
        "a",
        "b",
    ]
    other.write_text("precious")
    assert chat("", "Hello", "--resume", str(path), "--session", str(other))[0] == 2
    assert other.read_text() == "precious"
    assert path.stat().st_mode & 0o077 == 0


def test_a_session_that_two_use(
    chat: Run, make_bigram: Callable[..., Path], tmp_path: Path, home: Path
) -> None:
    path, copy = tmp_path / "s.jsonl", tmp_path / "copy.jsonl"
    assert chat(make_bigram(), "One.", "--session", str(path), "-n", "3", "--seed", "1")[0] == 0
    before = path.read_bytes()
    copy.write_bytes(before)
    text = f"/load {copy}\nMine.\n"  # a new session; then the first one changes while it is open
    assert chat("", text, "--lines", "--resume", str(path), "-n", "3")[0] == 0
    assert path.read_bytes() == before
    app_module = import_module("minigen.cli.chat.app")
    saved = app_module.ChatApp.save

    def meddle(app: Any) -> None:
        path.write_bytes(before + b"\n")  # another program
        saved(app)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_module.ChatApp, "save", meddle)
        code, _, err = chat("", "Two.", "--resume", str(path), "-n", "3")
    assert (code, "was changed by another program: this chat is now saved to" in err) == (0, True)
    assert path.read_bytes() == before + b"\n"


def test_a_message_without_an_answer(
    chat: Run, make_bigram: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "open.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi"}]}')
    text = (
        f"/load {tmp_path}/open.jsonl\n/regen\n/set seed default\nMore.\n/regen\n/set seed "
        f"{2**64 - 1}\nNo.\n/regen\n"
    )
    code, out, err = chat(make_bigram(), text, "--lines", "-n", "3", "--seed", "1")
    assert code == 0, err
    assert out.count("\n") >= 5
    code, _, err = chat(make_bigram(), f"/load {tmp_path}/open.jsonl\nHello\n", "--lines")
    assert (code, err.splitlines()[-1]) == (
        2, "minigen: the last message has no answer yet: /regen generates one, /undo removes the message",
    )  # fmt: skip


def test_lines_as_they_come(chat: Run, make_bigram: Callable[..., Path], home: Path) -> None:
    text = 'a\u2028b\x0cc\n/system """\nBe\nkind.\n"""\n/edit """\nx\ny\n"""\n'
    code, _, err = chat(make_bigram(), text, "--lines", "-n", "3", "--seed", "1")
    assert code == 0, err
    lines = [json.loads(line) for line in sessions(home)[0].read_text().splitlines()]
    assert (lines[0]["system"], lines[1]["content"]) == ("Be\nkind.", "x\ny")
    monkey = b"ok\n" + b"\xff\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(monkey)))
        code = import_module("minigen.cli.main").main(
            ["chat", str(make_bigram()), "--lines", "-n", "3"]
        )
    assert code == 1


QUOTES = '"' * 3
LITERAL = [
    "    if x:", " x", "\tx", "x  ", "x\t", "a\x00b", "a\x07\x1b[2Jb", "a\rb", "\ufeffx", "a\u2028b", "a\x0cb",
    "a\x85b", f"{QUOTES}Adds one.{QUOTES}", f"x = {QUOTES}y{QUOTES}", f"x {QUOTES}", '""', "  /usr/bin", "e\u0301",
    "\u200bx", "\x7f", "'", "<|end|>", "\ue000", "\x0bx",
]  # fmt: skip


def test_messages_are_literal(chat: Run, make_bigram: Callable[..., Path], home: Path) -> None:
    """What is piped reaches the model as it is, as lines or as one message, but for one line ending at its end."""
    model, flags = make_bigram(context=2000), ("-n", "1", "--seed", "1")
    text = "".join(
        f"{line}\n" for line in ["Hello", *LITERAL]
    )  # a byte order mark is none but at the beginning
    assert chat(model, text, "--lines", *flags)[0] == 0
    assert said(home) == ["Hello", *LITERAL]
    windows = "".join(f"{line}\r\n" for line in ("Hello", "  there", "a\r"))
    assert chat(model, windows, "--lines", *flags)[0] == 0
    assert said(home) == ["Hello", "  there", "a\r"]
    for line in LITERAL:
        for end in ("", "\n", "\r\n"):
            message = f"x{line}\r\n\n {line}"
            assert chat(model, message + end, *flags)[0] == 0
            assert said(home) == [message.removesuffix("\r") if end == "\n" else message]
    for message in ("/clear", " /clear", '"""\nx\n"""', "hi\n\n\n", "   x", "x\r"):
        assert chat(model, f"{message}\n" if message != "x\r" else message, *flags)[0] == 0
        assert said(home) == [message]
    assert chat(model, "\ufeffHello", *flags)[0] == 0
    assert said(home) == ["Hello"]


def said(home: Path) -> list[str]:
    """The user's messages of the newest session, which goes."""
    path = max(sessions(home), key=lambda path: path.stat().st_mtime_ns)
    rows = [json.loads(line) for line in path.read_text().split("\n")[1:] if line]
    path.unlink()
    return [row["content"] for row in rows if row["role"] == "user"]


def test_ways_to_write_a_message(chat: Run, make_bigram: Callable[..., Path], home: Path) -> None:
    """A space before a slash, and blocks in triple quotes: what is between them is text."""
    model, flags = make_bigram(context=2000), ("--lines", "-n", "1", "--seed", "1")
    code = f"def f():\n    {QUOTES}Doc.{QUOTES}\n    x = {QUOTES}"
    blocks = {
        " /clear": "/clear",
        f"{QUOTES}\n/clear\n  x \n\n{QUOTES}": "/clear\n  x \n",
        f"{QUOTES}\n{code}\n  {QUOTES}": code,
        f"{QUOTES}Hello,\nworld.{QUOTES}": "Hello,\nworld.",
        f"{QUOTES}Hello,\nworld.\n{QUOTES}": "Hello,\nworld.",
        f"{QUOTES} \n{QUOTES}x{QUOTES}\n{QUOTES}  ": f"{QUOTES}x{QUOTES}",
        "/edit    x ": "   x ",
        "/edit \tx": "\tx",
        f"/edit {QUOTES}one line{QUOTES}": f"{QUOTES}one line{QUOTES}",
        f"/edit {QUOTES}\n  two\n/lines\n{QUOTES}": "  two\n/lines",
        f"/edit x {QUOTES}": f"x {QUOTES}",
    }
    for written, message in blocks.items():
        before = "Hello\n" if written.startswith("/edit") else ""
        code, _, err = chat(model, f"{before}{written}\n", *flags)
        assert (code, said(home)) == (0, [message]), err
    for written, system in {
        "/system   Be kind. ": "  Be kind. ",
        f"/system {QUOTES}\n Be\nkind.\n{QUOTES}": " Be\nkind.",
        f"/system {QUOTES}kind{QUOTES}": f"{QUOTES}kind{QUOTES}",
    }.items():
        assert (
            chat(model, f"{written}\nHello\n", *flags, "--session", str(home / "s.jsonl"))[0] == 0
        )
        assert json.loads((home / "s.jsonl").read_text().split("\n")[0])["system"] == system
        (home / "s.jsonl").unlink()


def test_files_are_literal(
    chat: Run, make_bigram: Callable[..., Path], home: Path, tmp_path: Path
) -> None:
    model, flags = make_bigram(context=2000), ("--lines", "-n", "1", "--seed", "1")
    for text in (
        "    if x:\n        y\n",
        "\n\nx\n\n",
        '"""Doc.\n\nMore.\n"""\n',
        "a\r\nb\r\n",
        "/clear\n",
        " x",
    ):
        path = tmp_path / "a file.txt"
        path.write_bytes(text.encode())
        content = text.removesuffix("\n").removesuffix("\r")
        assert chat(model, f"/read '{path}'\n", *flags)[0] == 0
        assert said(home) == [content]
        assert chat(model, f"/read '{path}' What's  'this'? \n", *flags)[0] == 0
        assert said(home) == [f"What's  'this'? \n\n{content}"]
        data = tmp_path / "data.jsonl"
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        data.write_text(json.dumps({"messages": messages}))
        assert chat(model, f"/load {data}\nMore\n", *flags)[0] == 0
        assert said(home) == [text, "More"]


def test_a_block_of_many_lines(chat: Run, make_bigram: Callable[..., Path]) -> None:
    """It is not looked through again at each line."""
    text = '"""\n' + "x\n" * 200_000 + '"""\n'
    code, _, err = chat(make_bigram(), text, "--lines", "-n", "1")
    assert (code, "this turn alone has" in err) == (1, True)


def test_the_format_of_a_session(
    chat: Run, run_cli: Run, make_bigram: Callable[..., Path], home: Path, backend: str
) -> None:
    """A transcript stays one when it is resumed and replayed; answers of another model are not compared."""
    model = make_bigram()
    assert chat(model, "One.", "--plain", "--seed", "2", "-n", "9")[0] == 0
    assert chat("", "Two.", "--resume")[0] == 0
    (path,) = sessions(home)
    code, out, _ = run_cli("chat", "--replay", path, "--backend", backend)
    assert (code, out.endswith("2 identical, 0 different\n")) == (0, True)
    assert chat("", f"/model {make_bigram(None)}\nThree.\n", "--lines", "--resume")[0] == 0
    code, out, _ = run_cli("chat", "--replay", path, "--backend", backend)
    assert (code, out.count("skipped"), out.endswith("1 identical, 0 different\n")) == (0, 2, True)


def test_a_model_that_does_not_take_the_conversation(
    chat: Run, make_bigram: Callable[..., Path], home: Path
) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[-1].content }}"
    text = f"Hello.\n/system Be kind.\nMore.\n/model {make_bigram(refusing)}\n"
    code, _, err = chat(make_bigram(), text, "--lines", "-n", "3", "--seed", "1")
    assert code == 1
    assert err.splitlines()[-1].startswith(
        "minigen: the chat template refuses this conversation: no"
    )
    assert chat("", "Go on.", "--resume", "-n", "3")[0] == 0  # the session is the old model's still
    assert chat(make_bigram(refusing), "Hi", "--system", "x")[0] == 1


def test_another_model_in_the_middle(
    chat: Run, make_bigram: Callable[..., Path], make_model: Callable[..., Path]
) -> None:
    text = f"Hello.\n/model {make_model('llama', max_position_embeddings=300)}\nGo on.\n/why\n/undo\n/undo\nNew.\n"
    code, _, err = chat(make_bigram(), text, "--lines", "--seed", "2", "-n", "10")
    assert code == 0
    note = "this model has a different tokenizer than the one before: the answers so far are read again as text"
    assert f"minigen: {note}" in err


FILES = """\
Hello.
/read {folder}/note.txt What is this?
/save {folder}/saved.jsonl
/export md {folder}/talk.md
/export jsonl {folder}/talk.jsonl
/undo
/load {folder}/saved.jsonl
/regen
"""


def test_files(chat: Run, make_bigram: Callable[..., Path], tmp_path: Path, home: Path) -> None:
    (tmp_path / "note.txt").write_text("Rain\nis water.\n")
    code, _, err = chat(
        make_bigram(), FILES.format(folder=tmp_path), "--lines", "--seed", "2", "-n", "8"
    )
    assert code == 0, err
    said = [json.loads(line) for line in (tmp_path / "saved.jsonl").read_text().splitlines()[1:]]
    assert said[2]["content"] == "What is this?\n\nRain\nis water."
    messages = json.loads((tmp_path / "talk.jsonl").read_text())["messages"]
    assert [m["content"] for m in messages] == [m["content"].strip() for m in said]
    assert (tmp_path / "talk.md").read_text().startswith("**User**\n\nHello.\n\n**Assistant**\n\n")
    assert len(sessions(home)) == 2  # what was loaded is another session
    code, _, err = chat(make_bigram(), f"/save {tmp_path}/saved.jsonl\n", "--lines")
    assert (code, err) == (2, f"minigen: {tmp_path}/saved.jsonl exists: choose another name\n")


MISTAKES = {
    "unknown command": ("/foo", 2, "there is no command /foo: /help lists the commands; to send this"),
    "nothing to undo": ("/undo", 2, "the conversation is empty"),
    "nothing to regen": ("/regen", 2, "there is no answer yet: write a message first"),
    "nothing to continue": ("/continue", 2, "there is no answer yet: write a message first"),
    "nothing to edit": ("/edit x", 2, "there is no message to edit yet"),
    "edit without a terminal": ("Hi\n/edit", 2, "/edit takes the new text if there is no terminal"),
    "nothing to explain": ("/why", 2, "there is no answer yet: write a message first"),
    "why words": ("Hi\n/why x", 2, "/why takes the number of the first token to show, not 'x'"),
    "why beyond": ("Hi\n/why 99", 2, "the last answer has fewer than 99 tokens"),
    "seed": ("Hi\n/regen x", 2, "seed is 'x': it must be a whole number"),
    "unknown setting": ("/set foo 1", 2, "foo is not a setting of a chat: there are max_tokens, stop, repe"),
    "bad value": ("/set temp hot", 2, "temperature is 'hot': it must be a number >= 0"),
    "no value": ("/set temp", 2, "/set temperature takes a value, or the word default"),
    "overflow": ("/set overflow x", 2, "overflow is 'x': it must be one of stop, roll, sinks"),
    "context": ("/set context 9999", 2, "context is 9999: it must be from 8 to the model's 512"),
    "markdown": ("/markdown x", 2, "markdown is 'x': it must be on or off"),
    "export": ("/export pdf", 2, "/export takes md or jsonl, and optionally a file to write to"),
    "no file": ("/read", 2, "/read takes a file, and optionally words to put before its text"),
    "missing file": ("/read /nowhere/x", 1, "cannot read /nowhere/x: No such file or directory"),
    "save nowhere": ("/save /nowhere/x", 1, "cannot write /nowhere/x: No such file or directory"),
    "quotes": ("/save 'x", 2, "\"'x\": no closing quotation"),
    "two files": ("/save a b", 2, "/save takes one file"),
    "load no session": ("/load {model}/config.json", 1, "{model}/config.json:1: "),
    "model": ("/model /nowhere", 1, "/nowhere"),
    "no home": ("/save ~nosuchuser/x", 2, "~nosuchuser/x: there is no such home folder"),
    "long name": ("/save " + "x" * 300, 2, "cannot write xxx"),
    "a seed of many digits": ("Hi\n/regen " + "1" * 5000, 2, "seed is '111111111111111111111111111"),
    "a context of many digits": ("/set context " + "1" * 5000, 2, "context is '11111"),
    "a token of many digits": ('/set logit_bias {{"' + "1" * 5000 + '": 1}}', 2, "a key of logit_bias is '1111111"),
    "a token that is none": ('/set logit_bias {{"x": 1}}', 2, "a key of logit_bias is 'x': it must be a whole number"),
    "why of many digits": ("Hi\n/why " + "1" * 5000, 2, "the last answer has fewer than 111"),
    "lists without end": ("/set stop " + "[" * 100_000, 2, "stop cannot be read: JSON nested too deeply"),
    "half a surrogate pair": ('/set stop ["\\ud800"]', 2, "stop cannot be read: half a character in a text"),
    "NUL in a name": ("/load a\0b", 2, "'a\\x00b' has a NUL character, which no file name can have"),
    "NUL in a name to save": ("/save a\0b", 2, "'a\\x00b' has a NUL character, which no file name can have"),
    "why far beyond": ("Hi\n/why 9223372036854775807", 2, "the last answer has fewer than 9223372036854775807 tokens"),
    "open quote": ('"""\nabc', 2, 'a triple quote is open at the end of standard input: close it with """'),
    "too long": ("x" * 3000, 1, "this turn alone has 3003 tokens, and the window is 512: shorten it"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(
    name: str, run_cli: Run, make_bigram: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, code, reason = MISTAKES[name]
    model = make_bigram()
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(text.format(model=model).encode()))
    )
    found, _, err = run_cli("chat", model, "--lines", "-n", "3", "--seed", "1")
    last = err.splitlines()[-1]
    assert found == code
    assert last.startswith("minigen: ")
    assert reason.format(model=model) in last


@pytest.mark.parametrize(
    ("flags", "code", "reason"),
    [
        (["--temp", "-1"], 2, "temperature is -1.0: it must be a number >= 0"),
        (["--context", "9"], 1, "this turn alone has"),
        (["--context", "999"], 2, "context is 999: it must be from 8 to the model's 512"),
        (["--resume"], 2, "there is no session in "),
        (["--resume", "/nowhere"], 1, "cannot read /nowhere: No such file or directory"),
        (["--replay", "/nowhere"], 1, "cannot read /nowhere: No such file or directory"),
        (["--overflow", "x"], 2, "invalid choice: 'x'"),
    ],
)
def test_mistakes_in_flags(
    chat: Run, make_bigram: Callable[..., Path], flags: list[str], code: int, reason: str
) -> None:
    found, out, err = chat(make_bigram(), "What is the rain like?", *flags)
    assert (found, out) == (code, "")
    assert reason in err
    assert err.count("\n") == 1


def test_nothing_on_standard_input(chat: Run, make_bigram: Callable[..., Path]) -> None:
    assert chat(make_bigram(), " \n") == (
        2,
        "",
        "minigen: standard input is empty: write a message\n",
    )


def test_kill_in_the_middle_of_an_answer(
    make_model: Callable[..., Path], any_backend: str, tmp_path: Path
) -> None:
    """The session is whole up to the last finished turn."""
    path = tmp_path / "s.jsonl"
    command = [
        sys.executable, "-m", "minigen", "chat", str(make_model("llama", max_position_embeddings=200_000)),
        "--backend", any_backend, "--lines", "--session", str(path), "--seed", "1",
    ]  # fmt: skip
    text = "/set max_tokens 5\nOne.\nTwo.\n/set max_tokens 100000\nThree.\n"
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(text.encode())
        process.stdin.close()
        notes = iter(process.stderr.readline, b"")
        assert any(b"max_tokens is 100000" in line for line in notes)  # the long answer comes next
        time.sleep(0.2)  # whatever it is doing by now
        process.send_signal(signal.SIGKILL)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["content"] for line in lines[1:] if line["role"] == "user"] == ["One.", "Two."]
    assert len(lines) == 5


def test_ctrl_c_while_an_answer_begins(
    chat: Run, make_bigram: Callable[..., Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a chat template takes long: it is given up, and nothing was said."""
    monkeypatch.setattr(import_module("minigen.cli.chat.answer"), "PATIENCE", 0.1)

    def slow(*args: Any, **named: Any) -> list[int]:
        until = time.monotonic() + 20
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        while time.monotonic() < until:
            pass
        return [5]

    monkeypatch.setattr(import_module("minigen.chat.format").ChatFormat, "ids", slow)
    code, out, _ = chat(make_bigram(), "Hello")
    assert (code, out, sessions(home)) == (130, "", [])


def test_a_session_that_cannot_be_saved(
    chat: Run, make_bigram: Callable[..., Path], home: Path
) -> None:
    home.parent.mkdir(parents=True)
    home.write_text("a file where a folder should be")
    code, out, err = chat(make_bigram(), "Hello\nMore\n", "--lines", "--seed", "3", "-n", "5")
    assert code == 0
    assert out.count("\n") >= 2
    assert err.count("this chat is not saved") == 1

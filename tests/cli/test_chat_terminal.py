"""`minigen chat` in a real terminal, driven by tmux: what is on the screen, compared whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from minigen.chat.engine import Chat
from minigen.model import load

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

TOOLBAR = r"\S+ · (?:torch|mlx) ·.*"
NUMBERS = count()  # of the servers, which take a moment to go
QUOTES = '"' * 3
TIMEOUT = 90  # seconds; only a failure takes so long


class Terminal:
    """One command in a terminal of tmux's own server."""

    def __init__(
        self,
        socket: str,
        home: Path,
        command: str,
        columns: int = 80,
        rows: int = 24,
        **environment: str,
    ) -> None:
        self.tmux_command = ["tmux", "-L", socket, "-f", "/dev/null"]
        self.prompts = 0
        words = {
            "XDG_DATA_HOME": str(home),
            "OMP_NUM_THREADS": "1",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            **environment,
        }
        given = [word for name, value in words.items() for word in ("-e", f"{name}={value}")]
        self.tmux("new-session", "-d", *given, "-x", str(columns), "-y", str(rows), "sh")
        self.tmux("set-option", "-g", "history-limit", "20000")
        # The window stays when the command ends, so that its last words can be read.
        term = environment.get("TERM", "tmux-256color")
        self.tmux(
            "respawn-window",
            "-k",
            *given,
            f"env -u COLUMNS -u LINES TERM={term} {command}; echo status $?; sleep 600",
        )

    def tmux(self, *words: str, text: str | None = None) -> str:
        done = subprocess.run(
            [*self.tmux_command, *words],
            input=text,
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT,
        )
        return done.stdout

    def close(self) -> None:
        subprocess.run(
            [*self.tmux_command, "kill-server"], capture_output=True, check=False, timeout=TIMEOUT
        )

    def screen(self, *flags: str) -> list[str]:
        """All lines so far, those that have scrolled away too, less the empty ones at the end."""
        lines = [
            line.rstrip() for line in self.tmux("capture-pane", "-p", "-S", "-", *flags).split("\n")
        ]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def wait(self, pattern: str, *flags: str) -> list[str]:
        """The lines, as soon as the pattern is in them."""
        until = time.monotonic() + TIMEOUT
        while time.monotonic() < until:
            lines = self.screen(*flags)
            if re.search(pattern, "\n".join(lines), re.MULTILINE):
                return lines
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} is not in\n" + "\n".join(self.screen(*flags)))

    def wait_for_prompt(self) -> list[str]:
        """The lines without the toolbar, when the program waits for another line of the user's."""
        self.prompts += 1
        # As many prompts as lines that were sent, the last one empty, with the toolbar below it.
        found = self.wait(rf"\A(?:(?:.*\n)*?> .*\n){{{self.prompts - 1}}}(?:.*\n)*?>\n+{TOOLBAR}\Z")
        return (
            "\n".join(line for line in found if not re.fullmatch(TOOLBAR, line))
            .rstrip("\n")
            .split("\n")
        )

    def say(self, text: str, enter: str = "Enter") -> list[str]:
        """Types a line and waits for the next prompt."""
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", enter)
        return self.wait_for_prompt()

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)


Start = Callable[..., Terminal]
ESCAPE = 1.7  # seconds, more than prompt-toolkit waits by default for what follows Esc


@contextmanager
def chats(folder: Path, backend: str) -> Iterator[Start]:
    """begin("MODEL --flags", columns=80): a terminal with `minigen chat`, at its first prompt."""
    opened: list[Terminal] = []

    def begin(words: str, **settings: Any) -> Terminal:
        command = f"{sys.executable} -m minigen chat {words} --backend {backend}"
        terminal = Terminal(
            f"minigen-{os.getpid()}-{next(NUMBERS)}", folder / "home", command, **settings
        )
        opened.append(terminal)
        terminal.prompts = int("--resume" in words)  # which shows the last turn as it was
        if settings.get("TERM") == "dumb":
            terminal.wait(r"^>$\Z")
        else:
            terminal.wait_for_prompt()
        return terminal

    try:
        yield begin
    finally:
        for terminal in opened:
            terminal.close()


@pytest.fixture
def start(tmp_path: Path, backend: str) -> Iterator[Start]:
    """Chats on each backend in turn, for what a backend may do differently: its numbers, and how it is stopped."""
    with chats(tmp_path, backend) as begin:
        yield begin


@pytest.fixture
def start_any(tmp_path: Path, any_backend: str) -> Iterator[Start]:
    """Chats for what the terminal alone decides."""
    with chats(tmp_path, any_backend) as begin:
        yield begin


def session(tmp_path: Path) -> list[dict[str, Any]]:
    (path,) = (tmp_path / "home" / "minigen" / "sessions").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def since(lines: list[str], begin: str) -> str:
    """The screen from the line that begins so, for the last time."""
    at = max(i for i, line in enumerate(lines) if line.startswith(begin))
    return "\n".join(lines[at:])


def shown(lines: list[str]) -> str:
    """The lines without the greeting and the empty prompt."""
    first = next(i for i, line in enumerate(lines) if line.startswith("> "))
    return "\n".join(lines[first:]).removesuffix("\n\n>") + "\n"


def converse(terminal: Terminal) -> list[str]:
    """Ten turns and more with every kind of change, up to where the window rolls."""
    for line in CONVERSATION:
        if line == "/edit":
            terminal.keys(*"/edit", "Enter")
            terminal.wait(
                rf"^> What is rain\?$\n+{TOOLBAR}\Z"
            )  # the message stands there to be changed
            terminal.prompts += 1
            terminal.keys("BSpace")
            line = ", in one word?"
        lines = terminal.say(line)
    return lines


CONVERSATION = (
    "Hello there 🙂", "/regen", "/undo", "What is rain?", "/edit", "/set max_tokens 25", "Tell me about 日本語.",
    "/system Be kind.", "/regen 9", "One more, please, and make it about the garden.", "/continue", "/context",
    "And a fourth one.", "The fifth, about the roof of the house in the rain.", "/undo", "The sixth.", "The seventh.",
    "/context",
)  # fmt: skip


def test_a_conversation(
    start: Start,
    make_bigram: Callable[..., Path],
    tmp_path: Path,
    run_cli: Any,
    installed: list[str],
) -> None:
    terminal = start(f"{make_bigram(context=150)} --seed 3 -n 30 --overflow roll")
    assert shown(converse(terminal)) == (Path(__file__).parent / "chat_terminal.txt").read_text()
    terminal.keys("C-d")
    assert (
        since(terminal.wait("^status"), "[saved")
        == "[saved: continue with minigen chat --resume]\nstatus 0"
    )
    lines = session(tmp_path)
    assert [line["content"] for line in lines if line.get("role") == "user"] == [
        "What is rain, in one word?", "Tell me about 日本語.", "One more, please, and make it about the garden.",
        "And a fourth one.", "The sixth.", "The seventh.",
    ]  # fmt: skip
    path = next((tmp_path / "home" / "minigen" / "sessions").glob("*"))
    for other in installed:
        code, out, _ = run_cli("chat", "--replay", path, "--backend", other)
        assert (code, out) == (0, f"7 answers, 94 tokens, on {other}: 7 identical, 0 different\n")
    terminal = start("--resume")
    lines = terminal.say("/undo")
    assert "\n".join(lines[lines.index("[12 messages so far; the last ones:]") :]) == RESUMED


RESUMED = """\
[12 messages so far; the last ones:]
> The seventh.
Hello! I am a small model, and I like the `rain` falls on the `rain` falls on th
e garden
[/help lists the commands, Ctrl-D exits]
> /undo
[undone: The seventh.]

>"""


def test_ctrl_c(
    start: Start, make_bigram: Callable[..., Path], tmp_path: Path, backend: str
) -> None:
    model = make_bigram(context=40_000)
    forever = """--logit-bias 0=-100 -n 30000 --seed 1 --no-markdown"""
    terminal = start(f"{model} {forever}")
    terminal.keys("a", " ", "line", "C-c")  # dropped, as in a shell
    terminal.wait(rf"^> a line$\n+^>$\n+{TOOLBAR}\Z")
    terminal.prompts += 1
    terminal.keys(*"Hello", "Enter")
    terminal.wait(r"^> Hello\n.*\n.*\n")  # in the middle of the answer
    terminal.keys("C-c")
    lines = terminal.wait_for_prompt()
    assert (
        since(lines, "[stopped")
        == "[stopped: /continue resumes the answer, /regen tries again]\n\n>"
    )
    first = session(tmp_path)[2]
    assert first["runs"][0]["finish"] == "interrupted"
    whole = Chat(
        load(model, backend, "cpu"),
        settings=first["runs"][0]["settings"] | {"logit_bias": {0: -100}},
    )
    answer = whole.say("Hello")
    said = ""
    for piece in answer:
        said += piece
        if len(said) > len(first["content"]):
            break
    assert said.startswith(first["content"])
    assert len(first["content"]) > 20
    terminal.keys(*"/continue", "Enter")
    terminal.wait(r"^> /continue\n.*\n.*\n")
    terminal.keys("C-c")
    terminal.wait_for_prompt()
    second = session(tmp_path)[2]
    assert len(second["runs"]) == 2
    assert second["content"].startswith(first["content"])
    assert second["ids"][: len(first["ids"])] == first["ids"]
    assert since(terminal.say("/why"), "> /why").split()[2:5] == [
        "#",
        "token",
        "model",
    ]  # the state is whole
    for turns in range(
        2, 6
    ):  # many, and at the worst moments: the turn is kept, and the chat goes on
        terminal.keys(*"Go on", "Enter")
        until = time.monotonic() + TIMEOUT
        while len(session(tmp_path)) < 1 + 2 * turns:
            assert time.monotonic() < until, "\n".join(terminal.screen())
            terminal.keys(*["C-c"] * 3)
        terminal.keys(
            "o", "k"
        )  # once these stand there, no Ctrl-C is on its way that would take the next line
        terminal.wait(rf"^> ok\n+{TOOLBAR}\Z")
        terminal.keys("BSpace", "BSpace")
    assert [line.get("role") for line in session(tmp_path)[1:]] == ["user", "assistant"] * 5
    terminal.keys("C-d")
    terminal.wait("^status 0")


def test_pasting(start_any: Start, make_bigram: Callable[..., Path], tmp_path: Path) -> None:
    terminal = start_any(f"{make_bigram(context=40_000)} --seed 1 -n 5")
    pasted = "".join(f"line {i} 日本語 e\u0301 🙂 שלום\n" for i in range(450))
    assert len(pasted) > 10_000
    terminal.tmux("load-buffer", "-", text=pasted.rstrip("\n"))
    terminal.tmux("paste-buffer", "-p")
    terminal.wait("line 449")
    terminal.keys("Enter")
    terminal.wait(r"^\[cut at 5 tokens")
    terminal.wait(rf"^>\n+{TOOLBAR}\Z")
    assert session(tmp_path)[1]["content"] == pasted.rstrip("\n")
    terminal.keys("One", "M-Enter", "two")
    terminal.wait("^… two")
    terminal.keys("Enter")
    terminal.wait(r"(?s)\[cut at 5 tokens.*\[cut at 5 tokens")
    terminal.wait(rf"^>\n+{TOOLBAR}\Z")
    assert session(tmp_path)[3]["content"] == "One\ntwo"
    for line in ('"""', "/three", "four", '"""'):
        terminal.keys(line, "Enter")
    terminal.wait(r"(?s)(\[cut at 5 tokens.*){3}")
    assert session(tmp_path)[5]["content"] == "/three\nfour"
    terminal.wait(rf"^>\n+{TOOLBAR}\Z")
    terminal.keys("Five", "Escape")
    time.sleep(ESCAPE)
    terminal.keys("Enter", "six")
    terminal.wait("^… six")
    terminal.keys("Enter")
    terminal.wait(r"(?s)(\[cut at 5 tokens.*){4}")
    assert session(tmp_path)[7]["content"] == "Five\nsix"


def paste(terminal: Terminal, text: str) -> None:
    terminal.tmux("load-buffer", "-", text=text)
    terminal.tmux("paste-buffer", "-p")


def test_what_is_pasted_is_text(
    start_any: Start, make_bigram: Callable[..., Path], tmp_path: Path
) -> None:
    """Whatever it begins with; what is typed around it is still a command, or a block."""
    terminal = start_any(f"{make_bigram(context=40_000)} --seed 1 -n 1")
    code = f"{QUOTES}Adds one.{QUOTES}\n\ndef f(x):\n\treturn x  + 1"
    opens = f"{QUOTES}Adds one.\n\nIt does.{QUOTES}\n\n    x = 1"
    answers = 0

    def sent(*messages: str) -> None:
        nonlocal answers
        answers += 1
        terminal.keys("Enter")
        terminal.wait(rf"(?s)(\[cut at 1 tokens.*){{{answers}}}")
        terminal.wait(rf"^>\n+{TOOLBAR}\Z")
        said = [line["content"] for line in session(tmp_path)[1:] if line["role"] == "user"]
        assert tuple(said[-len(messages) :]) == messages

    texts = [
        code,
        f"{opens}\n",
        "    if x:\n        y",
        "/clear",
        " /clear",
        "/usr/bin/python: none",
        f"{QUOTES}\nx",
    ]
    for text in texts:
        paste(terminal, text)
        terminal.wait(re.escape(text.rstrip("\n").split("\n")[-1].strip()[-9:]))
        sent(text.removesuffix("\n"))  # a line ending at the end is how it was copied
    assert "[pasted text is sent as a message; type a command to run it]" in terminal.screen()
    terminal.tmux("send-keys", "-l", "/edit ")
    paste(terminal, opens)
    terminal.wait(r"> /edit (.*\n)*.*x = 1\n")
    sent("/usr/bin/python: none", opens)
    terminal.keys(QUOTES, "Enter")
    paste(terminal, code)
    terminal.keys("Enter")
    terminal.wait(r"\+ 1\n… *\n")
    terminal.keys(QUOTES)
    sent(opens, code)
    paste(terminal, "/clear")  # and taken away again: what comes then is typed
    terminal.wait(r"^> /clear\n+\S+ · [^/]*\Z")
    terminal.keys("C-a", "C-k")
    terminal.tmux("send-keys", "-l", "/undo")
    terminal.keys("Enter")
    terminal.wait(r"^\[undone: ")
    terminal.keys(*"/edit", "Enter")  # the message is text there too, though it begins with quotes
    terminal.wait(rf"(?s)undone.*> {QUOTES}Adds one\..*x = 1\n")
    terminal.keys("z")
    sent("/usr/bin/python: none", f"{opens}z")


def test_answers_into_a_pipe(
    make_bigram: Callable[..., Path], tmp_path: Path, any_backend: str
) -> None:
    """`minigen chat | tee log`: the conversation goes on line by line, and says what it waits for."""
    chat = f"{sys.executable} -m minigen chat {make_bigram()} --backend {any_backend} --seed 3 -n 8"
    socket = f"minigen-{os.getpid()}-{next(NUMBERS)}"
    terminal = Terminal(socket, tmp_path / "home", f"{chat} | tee -i {tmp_path}/log")
    waits = r"^>$\n*\Z"
    try:
        assert "minigen: type a message; /help lists the commands, Ctrl-D exits" in terminal.wait(
            waits
        )
        for line in ("Hello", "/nothing", "And  the rain?"):
            terminal.tmux("send-keys", "-l", line)
            terminal.keys("Enter")
            terminal.wait(rf"^> {re.escape(line)}\n(.+\n)+\n*{waits}")
        for line in (QUOTES, "two", "lines"):
            terminal.keys(line, "Enter")
            terminal.wait(rf"^[>…] {line}\n…\n*\Z")
        terminal.keys(QUOTES, "Enter")
        terminal.wait(rf"^> {QUOTES}\n… two\n… lines\n… {QUOTES}\n(.+\n)+\n*{waits}")
        terminal.keys("x", "C-c")  # dropped, as in a shell
        terminal.wait(rf"^> x?\^C\n+{waits}")
        terminal.keys("C-d")
        assert "minigen: there is no command /nothing" in "\n".join(terminal.wait("^status 0"))
    finally:
        terminal.close()
    lines = session(tmp_path)[1:]
    assert [line["content"] for line in lines if line["role"] == "user"] == [
        "Hello",
        "And  the rain?",
        "two\nlines",
    ]
    answers = [line["content"].strip() + "\n" for line in lines if line["role"] == "assistant"]
    assert (tmp_path / "log").read_text() == "".join(answers)


def test_completion(start_any: Start, make_bigram: Callable[..., Path]) -> None:
    terminal = start_any(f"{make_bigram()} --seed 1 -n 5")
    terminal.keys("/", "s", "e")
    terminal.wait(r"^> /se\n +/set \[name value\] +change a setting")
    terminal.keys("Tab", " ", "t", "e")
    terminal.wait(r"^> /set te\n +temperature")
    terminal.keys("Tab", " ", "0", "Enter")
    terminal.wait(r"^> /set temperature 0\n\[temperature is 0\.0\]")


def looks(lines: list[str]) -> str:
    """From the first line of the user's on, styles aside."""
    at = next(i for i, line in enumerate(lines) if re.search("^> ", re.sub(STYLE, "", line)))
    return "\n".join(re.sub(STYLE, "", line) for line in lines[at:])


STYLE = r"\x1b\[[0-9;]*m"
COLOUR = r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7])(?:;[0-9;]*)?m"
ENDS = (r"^Rain is old", r"(?s)\[cut at 30", r"free")


@pytest.mark.parametrize("name", ["narrow", "dumb", "plain"])
def test_other_terminals(start_any: Start, make_bigram: Callable[..., Path], name: str) -> None:
    settings: dict[str, dict[str, Any]] = {
        "narrow": {"columns": 20},
        "dumb": {"TERM": "dumb"},
        "plain": {"NO_COLOR": "1"},
    }
    terminal = start_any(f"{make_bigram()} --seed 3 -n 30", **settings[name])
    for line, end in zip(("Hello there 🙂 日本語 مرحبا", "/regen", "/context"), ENDS, strict=True):
        terminal.tmux("send-keys", "-l", line)
        terminal.keys("Enter")
        terminal.wait(end + r"(.|\n)*^>$")
    lines = terminal.screen("-e")
    raw = WIDE.replace("\n\n • ", "\n- ")  # as it came
    assert looks(lines).startswith({"narrow": NARROW, "dumb": raw}.get(name, WIDE))
    assert bool(re.search(STYLE, "".join(lines))) == (name != "dumb")
    if name == "plain":
        assert not re.search(COLOUR, "".join(lines))


WIDE = """\
> Hello there 🙂 日本語 مرحبا
Well, the rain is soft. 日本語 is fine 🙂 too. 日本語 is soft.
Rain is old, and the garden.

> /regen
Hello again! I am a small model, and the roof is fine 🙂 too.

 • a small model, and the roof. Hello again!
[cut at 30 tokens: /continue resumes, /set max_tokens N allows more]

> /context
message    tokens  share  text
user           19  █      Hello there 🙂 日本語 مرحبا
assistant      32  ██     Hello again! I am a small model, and the roof is fine…
51 of 512 tokens, 461 free

>"""
NARROW = """\
> Hello there 🙂 日
本語 مرحبا
Well, the rain is so
ft. 日本語 is fine
🙂 too. 日本語 is so
ft.
Rain is old, and the
 garden.

> /regen
Hello again! I am a
small model, and the
roof is fine 🙂 too.

 • a small model,
   and the roof.
   Hello again!
[cut at 30 tokens:
/continue resumes,
/set max_tokens N
allows more]

> /context
message · tokens ·
share · text
user · 19 · █ ·
Hello there 🙂
日本語 مرحبا
assistant · 32 · ██
· Hello again! I am
a small model, and
the roof is fine 🙂
too.
51 of 512 tokens, 46
1 free

>"""


def test_a_terminal_that_is_resized(start_any: Start, make_bigram: Callable[..., Path]) -> None:
    terminal = start_any(f"{make_bigram()} --seed 3 -n 30")
    terminal.say("Hello")
    terminal.tmux("resize-window", "-x", "40", "-y", "20")
    terminal.wait(r"tokens · [^/]*\Z")  # the toolbar is cut
    assert shown(terminal.say("Again")) == RESIZED
    terminal.tmux("resize-window", "-x", "100", "-y", "30")
    terminal.wait(r"tokens/s\Z")
    assert since(
        terminal.say("/system Be kind to everybody who asks you about the rain."), "> /sys"
    ) == (
        "> /system Be kind to everybody who asks you about the rain.\n"
        "[system prompt: Be kind to everybody who asks you about the rain.]\n\n>"
    )


RESIZED = """\
> Hello
Hello again!

 • an apple tree
   I like the garden. The roof is old, a
nd I am a plum tree

> Again
Hello again! I like rain is old, the gar
den.
"""


def test_a_real_model(
    start_any: Start, shared: Path, tmp_path: Path, run_cli: Any, installed: list[str]
) -> None:
    """Turns with every kind of change: the screen says what the session has, and it is the same from the beginning, on
    the backend that wrote it and on the other one."""
    terminal = start_any(
        f"{shared}/models/stories260K --seed 4 -n 50 --overflow sinks --no-markdown"
    )
    for line in (
        "Once upon a time",
        "/regen",
        "What then?",
        "/undo",
        "Where was it?",
        "/continue",
        *["And then?"] * 7,
    ):
        lines = terminal.say(line)
    used = int(re.findall(r"(\d+) tokens, window 512", "\n".join(terminal.screen()))[-1])
    assert used > 512
    text = "".join("\n".join(lines).split())
    said = session(tmp_path)[1:]
    assert len(said) == 2 * 9
    for line in said:
        if (
            len(line.get("runs", ())) < 2
        ):  # another line of the user's stands in the middle of a continued answer
            assert "".join(line["content"].split()) in text
    path = next((tmp_path / "home" / "minigen" / "sessions").glob("*"))
    for other in installed:
        code, out, _ = run_cli("chat", "--replay", path, "--backend", other)
        assert (code, re.sub(r"\d+ tokens", "N tokens", out)) == (
            0,
            f"10 answers, N tokens, on {other}: 10 identical, 0 different\n",
        )

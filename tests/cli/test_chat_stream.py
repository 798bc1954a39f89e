"""An answer on a terminal while it streams: the whole screen, with what has scrolled away, as an emulator has it."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wcwidth import wcwidth

from minigen.cli.chat.markdown_blocks import Block, Blocks
from minigen.cli.chat.markdown_render import render
from minigen.cli.chat.stream import BEGIN, END, AnswerView
from minigen.cli.display.terminal import rows_down

ABOVE = "> what was there"


class Screen(pyte.HistoryScreen):
    def draw(self, data: str) -> None:
        """As every terminal, and unlike pyte, moves a wide character that does not fit to the next row."""
        for char in data:
            if wcwidth(char) == 2 and self.cursor.x == self.columns - 1:
                super().draw(" ")
            super().draw(char)


class Terminal(io.StringIO):
    """A screen with everything that has scrolled away, and the writes to it one by one."""

    def __init__(self, columns: int = 40, rows: int = 24) -> None:
        super().__init__()
        self.columns, self.lines = columns, rows
        self.screen = Screen(columns, rows, history=10_000)
        self.screen.set_mode(pyte.modes.LNM)  # "\n" is a new line, as the kernel makes it
        self.stream = pyte.Stream(self.screen)
        self.stream.feed(ABOVE + "\n")
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        before = self.rows()
        self.writes.append(text)
        self.stream.feed(text)
        if "\x1b" in text:
            assert text.startswith(BEGIN)
            assert text.endswith(END)
            assert text.count(BEGIN) == text.count(END) == 1
        else:  # what is on the screen stays
            for old, new in zip(before, self.rows(), strict=False):
                assert unicodedata.normalize("NFD", new).startswith(
                    unicodedata.normalize("NFD", old)
                )
        return len(text)

    def size(self) -> tuple[int, int]:
        return self.columns, self.lines

    def resize(self, columns: int, rows: int) -> None:
        self.columns, self.lines = columns, rows
        self.screen.resize(rows, columns)

    def rows(self) -> list[str]:
        screen = self.screen
        above = [
            "".join(line[x].data for x in range(screen.columns)) for line in screen.history.top
        ]
        return [row.rstrip() for row in [*above, *screen.display]]

    def shown(self) -> list[str]:
        """The rows of the answer, below which there is an empty one with the cursor in it."""
        rows = self.rows()
        assert rows[0] == ABOVE
        cursor = len(self.screen.history.top) + self.screen.cursor.y
        assert self.screen.cursor.x == 0
        assert not any(rows[cursor:])
        return rows[1:cursor]

    @property
    def replaced(self) -> int:
        return sum(text.startswith(BEGIN) for text in self.writes)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "COLORTERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def answer(
    pieces: Iterable[str], terminal: Terminal | None = None, markdown: bool = True
) -> Terminal:
    """The terminal after an answer in these pieces; a string comes one character at a time."""
    terminal = terminal or Terminal()
    view = AnswerView(terminal, terminal=True, markdown=markdown, size=terminal.size)
    for piece in pieces:
        view.write(piece)
    view.finish()
    written = len(terminal.writes)
    view.finish()
    assert len(terminal.writes) == written
    assert view.text == "".join(pieces)
    return terminal


def words(rows: list[str]) -> list[str]:
    """Without what differs between versions of rich: how it draws and where it centres."""
    return [" ".join(re.findall(r"\w+", row)) for row in rows if re.search(r"\w", row)]


def test_prose_is_never_rewritten() -> None:
    text = "One line.\nIts next - 2 * 3 * 4, snake_case, a < b & c.\n\n\n\nAnother that is too long for one row.\n\n"
    terminal = answer(text)
    assert terminal.replaced == 0
    assert terminal.shown() == [
        "One line.",
        "Its next - 2 * 3 * 4, snake_case, a < b",
        "& c.",
        "",
        "Another that is too long for one row.",
    ]


def test_text_appears_at_once() -> None:
    terminal = Terminal()
    view = AnswerView(terminal, terminal=True, markdown=True, size=terminal.size)
    for count, char in enumerate("**bold", 1):
        view.write(char)
        assert terminal.rows()[1] == "**bold"[:count]


def test_inline_styles() -> None:
    terminal = answer(
        "Some *words* and **more**,\nand `code`, <b>HTML</b>, ![an image](a.png).\n\nEnd."
    )
    assert terminal.shown() == [
        "Some words and more,",
        "and code, <b>HTML</b>, !an image",
        "(a.png).",
        "",
        "End.",
    ]
    row = terminal.screen.buffer[1]
    assert row[5].italics
    assert row[15].bold
    assert terminal.replaced == 1


def test_a_heading_ends_with_its_line() -> None:
    terminal = answer("## Heading\n")
    assert (words(terminal.shown()), terminal.replaced) == (["Heading"], 1)
    terminal = answer("Before\n## Heading\nAfter\n#hashtag")
    assert [row.strip() for row in terminal.shown()] == [
        "Before",
        "",
        "Heading",
        "",
        "After",
        "#hashtag",
    ]


def test_lists_nest_and_go_on_after_a_blank_line() -> None:
    terminal = answer(
        "- one\n- two\n  - *nested*\n    1. deep\n\n7. seven\n\n   goes *on*\n\n\n8. eight\n\n    ```\n    x\n    ```"
    )
    assert terminal.shown() == [
        " • one",
        " • two",
        "    • nested",
        "       1 deep",
        "",
        " 7 seven",
        "",
        "   goes on",
        "",
        " 8 eight",
        "",
        "    x",
    ]


def test_a_table() -> None:
    text = "| name | size |\n|------|-----:|\n| a | 1 |\n| 支払い | 22 |\n"
    assert words(answer(text).shown()) == ["name size", "a 1", "支払い 22"]
    narrow = answer(text.replace("a |", "antidisestablishment |"), Terminal(columns=20))
    assert (
        re.sub(r"[\s\d]", "", "".join(words(narrow.shown())))
        == "namesizeantidisestablishment支払い"
    )
    many = ["|" + "a|" * 9, "|" + "-|" * 9]
    assert (
        answer("\n".join(many), Terminal(columns=20)).shown() == many
    )  # no room for what it says: the text stays


def test_a_fence_goes_on_after_blank_lines() -> None:
    terminal = answer(
        "Code:\n```python\ndef f():\n\n    # not a heading\n\n    return 1\n```\nAfter\n\n~~~\n```\n~~~~\n"
    )
    assert terminal.shown() == [
        "Code:",
        "",
        "def f():",
        "",
        "    # not a heading",
        "",
        "    return 1",
        "",
        "After",
        "",
        "```",
    ]
    assert terminal.screen.buffer[3][0].fg != terminal.screen.buffer[3][4].fg  # `def` and `f`


def test_a_quote() -> None:
    assert answer("> said\n> *so*\n\n> ```\n> x\n\nEnd").shown() == [
        "▌ said",
        "▌ so",
        "",
        "▌ x",
        "",
        "End",
    ]


def test_an_interrupted_fence_is_code() -> None:
    terminal = answer("```python\nfor x in y:\n\n    pri")
    assert terminal.shown() == ["for x in y:", "", "    pri"]
    assert terminal.replaced == 1


def test_an_interrupted_write_is_not_replaced() -> None:
    """Not all of the block may be on the screen: up by its rows is what was there before."""
    terminal = Terminal()
    view = AnswerView(terminal, terminal=True, markdown=True, size=terminal.size)
    view.write("*a*\n")

    def interrupted() -> tuple[int, int]:
        raise KeyboardInterrupt

    view.size = interrupted
    with pytest.raises(KeyboardInterrupt):
        view.write("b\nc\nd")
    view.size = terminal.size
    view.finish()
    assert terminal.shown() == ["*a*"]
    assert view.text == "*a*\nb\nc\nd"


@pytest.mark.parametrize("columns", [20, 21, 80])
@pytest.mark.parametrize(
    "text",
    [
        "支払いは*月末*までに" * 4,
        "🙂 *smile* 🎉 " * 6,
        "e\u0301te\u0301 *nai\u0308ve* " * 5,
        "x" * 18 + "**",
        "*" + "x" * 18 + "*\n" + "y" * 20,
        "x" * 17 + "*支*",
    ],
)
def test_rows_are_those_of_the_terminal(text: str, columns: int) -> None:
    terminal = answer(text, Terminal(columns))
    assert terminal.replaced == ("**" not in text)
    plain = unicodedata.normalize("NFC", text if "**" in text else text.replace("*", ""))
    assert "".join("".join(terminal.shown()).split()) == "".join(plain.split())


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d👩",
        "❤\ufe0f",
        "🇫🇷",
        "👍🏽",
        "שלום",
        "مرحبا",
        "कि",
        "\u202eabc",
        "\U000e0041",
        "x" * 39 + "\tx",
    ],
    ids=ascii,
)
def test_what_terminals_disagree_about_stays_as_it_is(text: str) -> None:
    assert rows_down(f"*{text}*", 40) is None
    assert answer(f"*{text}*\n\n*plain*").replaced == 1


def test_rows_down() -> None:
    assert [
        rows_down(text, 20) for text in ("", "x", "x\n", "x" * 20, "x" * 20 + "\n", "x" * 21)
    ] == [0, 0, 1, 0, 1, 1]
    assert [rows_down(text, 20) for text in ("支" * 10, "支" * 11, "x" + "支" * 10)] == [0, 1, 1]
    assert [
        rows_down(text, 20) for text in ("e\u0301" * 20, "\txxxxxxxxxxxx", "x\txxxxxxxxxxxxx")
    ] == [0, 0, 1]
    assert [rows_down(text, 20) for text in ("\t\t\tx", "\t\t\txx", "\n\n", "x" * 41 + "\n\n")] == [
        0,
        1,
        2,
        4,
    ]


def test_a_resize_leaves_the_block_under_way() -> None:
    terminal = Terminal()
    view = AnswerView(terminal, terminal=True, markdown=True, size=terminal.size)
    view.write("*one*\n\n*two*")
    terminal.resize(20, 24)
    view.write(" and *more*")
    view.write("\n\n*three* " + "x" * 18)
    view.finish()
    assert terminal.rows()[1:7] == ["one", "", "*two* and *more*", "", "three", "x" * 18]
    assert terminal.replaced == 2


def test_a_resize_before_the_end_leaves_the_last_block() -> None:
    terminal = Terminal()
    view = AnswerView(terminal, terminal=True, markdown=True, size=terminal.size)
    view.write("*one*")
    terminal.resize(20, 24)
    view.finish()
    assert terminal.shown() == ["*one*"]


def test_a_block_taller_than_the_screen_stays() -> None:
    text = "".join(f"- *{i}*\n" for i in range(6))
    assert answer(text, Terminal(rows=6)).shown() == [f"- *{i}*" for i in range(6)]
    assert answer(text, Terminal(rows=7)).shown() == [f" • {i}" for i in range(6)]


def test_a_model_does_not_drive_the_terminal() -> None:
    text = "a\x1b[2Jb\x07\r\x9b31m\r\nc\td &#27;[2J &#13;\r\r\n*e*"
    raw = ["a\ufffd[2Jb\ufffd\ufffd\ufffd31m", "c       d &#27;[2J &#13;\ufffd", "*e*"]
    assert answer(text, markdown=False).shown() == raw
    assert answer(text).shown() == [raw[0], "c       d \ufffd[2J \ufffd\ufffd", "e"]


@pytest.mark.parametrize("markdown", [True, False])
def test_white_space_at_the_beginning_is_not_shown(markdown: bool) -> None:
    assert answer(" \r\n\n \tHello\n", markdown=markdown).shown() == ["Hello"]
    for text in ("", " ", "\r\n", "\n \n"):
        assert answer(text, markdown=markdown).writes == []


def test_without_markdown_the_text_stays() -> None:
    assert answer("# a\n\n\n*b*", markdown=False).shown() == ["# a", "", "", "*b*"]


@pytest.mark.parametrize("name", ["dumb", "unknown"])
def test_a_terminal_without_codes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", name)
    assert "".join(answer(["\n# a\x1b\n\n", "*b*"]).writes) == "# a\ufffd\n\n*b*\n"


def test_a_pipe_gets_the_text_and_nothing_else() -> None:
    out = io.StringIO()
    view = AnswerView(out, terminal=False, markdown=True)
    for piece in (" # a\x1b\r", "\n", "*b*"):
        view.write(piece)
    view.finish()
    assert out.getvalue() == "# a\x1b\r\n*b*\n"


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "*a* `b`\n\n```python\nfor x in y:\n```\n> q\n"

    def codes() -> list[str]:
        return re.findall(r"\x1b\[([\d;]*)m", "".join(answer(text).writes))

    def colours() -> list[str]:
        return [part for code in codes() for part in code.split(";") if int(part) >= 30]

    assert colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours()
    assert "3" in codes()


def test_what_only_changes_its_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Then:\n\n    return 1\n"
    assert answer(text).replaced == 1
    monkeypatch.setenv("NO_COLOR", "1")
    assert answer(text).replaced == 0


def test_the_size_of_what_is_no_terminal_is_the_usual_one() -> None:
    out = io.StringIO()
    view = AnswerView(out, terminal=True, markdown=True)
    view.write("*" + "x" * 80 + "*")
    view.finish()
    assert f"{BEGIN}\x1b[1A\r\x1b[J" in out.getvalue()


# -- any document, cut anywhere --
LINES = [
    "# Heading",
    "text",
    "*some* `code` here",
    "long words and **more** of them, long words and **more** of them, long words and **more**",
    "- item",
    "  - nested *item*",
    "1. one",
    "   goes on",
    "    indented",
    "```",
    "```python",
    "   ~~~",
    "~~~",
    "> quote",
    "> ```",
    "支払いは*月末*までに支払いは",
    "🙂🎉*x*",
    "e\u0301*a\u0300*",
    "👩\u200d👩 *x*",
    "\ttab *x*",
    "| a | *b* |",
    "|---|---|",
    "| cell | long cell here |",
    "---",
    "***",
    "[a](b)",
    "\\*",
    "x\x1b[1A",
    "#",
    "-",
    "<div>",
    "&#27;",
    "\u3000",
    "",
]
ENDS = st.sampled_from(["\n", "\n", "\n\n", "\r\n", "\n \n", ""])
DOCUMENTS = st.lists(st.tuples(st.sampled_from(LINES), ENDS), max_size=12).map(
    lambda pairs: "".join(map("".join, pairs))
)


def expected(text: str, terminal: Terminal) -> list[str]:
    """The rows of the answer when each block is written only once, in its last form."""
    blocks = Blocks()
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", "\ufffd", text.replace("\r\n", "\n")).lstrip()
    found = [
        *(block for _, block in blocks.feed(text) if block),
        *[block for block in [blocks.finish()] if block],
    ]
    forms = []
    for block in found:
        down = rows_down(block.text, terminal.columns)
        rendering = (
            render(block, terminal.columns) if down is not None and down < terminal.lines else None
        )
        forms.append(rendering or block.text + "\n" * (not block.text.endswith("\n")))
    terminal.stream.feed("\n".join(forms))
    return terminal.shown()


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    DOCUMENTS,
    st.lists(st.integers(0, 400)),
    st.sampled_from([20, 33, 80]),
    st.sampled_from([5, 12, 40]),
)
def test_the_last_screen_is_the_same_for_all_pieces(
    text: str, cuts: list[int], columns: int, rows: int
) -> None:
    cuts = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(cuts)]
    terminal = answer(pieces, Terminal(columns, rows))
    assert terminal.shown() == expected(text, Terminal(columns, rows))
    assert "".join(terminal.writes) == "".join(answer([text], Terminal(columns, rows)).writes)


@given(DOCUMENTS)
def test_blocks_hold_the_text(text: str) -> None:
    """Alone: what is shown is the blocks with an empty line between them, and only blank lines are left out."""
    blocks = Blocks()
    shown, found = "", []
    for part in text:
        for piece, block in blocks.feed(part):
            shown += piece
            found += [block] if block else []
    found += [block for block in [blocks.finish()] if block]
    assert shown == "\n".join(block.text for block in found)
    assert [line for line in shown.split("\n") if line.strip(" \t")] == [
        x for x in text.split("\n") if x.strip(" \t")
    ]


def test_blocks_alone() -> None:
    blocks = Blocks()
    text = "a\nb\n\n# c\nd\n```x\n\n````\n- e\n\n  f\n\n   g\nh\n\n  i\n\n"
    text += "> ```\n> j\n\n> ~~~\n> ~~~\n> k\n\n``` l ```\n\nm"
    found = [block for _, block in blocks.feed(text) if block]
    assert [block.text for block in found] == [
        "a\nb\n",
        "# c\n",
        "d\n```x\n\n````\n",
        "- e\n",
        "  f\n",
        "   g\nh\n",
        "  i\n",
        "> ```\n> j\n",
        "> ~~~\n> ~~~\n> k\n",
        "``` l ```\n",
    ]
    assert [block.indent for block in found] == [0, 0, 0, 0, 2, 3, 2, 0, 0, 0]
    assert blocks.finish() == Block("m", 0)
    assert blocks.finish() is None

"""What the pages say of flags, files and figures is so, and every flag is in one of them."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from minigen.cli.display import pages
from tests.pages import flags
from tests.pages.shell import PAGES, ROOT, TEXTS, blocks

LINK = re.compile(r"\[[^\]\n]+\]\((?!https?:)([^)\s#]*)(?:#([^)\s]*))?\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
OF_OTHERS = {"--nproc-per-node"}  # torchrun's
RENEW = "run: python tests/pages/flags.py"


def text_of(name: str) -> str:
    return TEXTS[name].read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Of each heading what GitHub makes of it."""
    headings = re.findall(
        r"^#+ (.+)$", without_code(path.read_text(encoding="utf-8")), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_is_a_page_for_each_topic() -> None:
    assert list(PAGES) == sorted(pages.TOPICS)
    assert pages.PAGE_OF.keys() | pages.TOPICS.keys() >= import_module(
        "minigen.cli.main"
    ).COMMANDS.keys() - {"help"}


def test_the_pages_ship() -> None:
    assert '"pages/*.md"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    for target, anchor in LINK.findall(without_code(text_of(name))):
        path = (TEXTS[name].parent / target).resolve() if target else TEXTS[name]
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def test_tables_of_flags_are_those_of_the_parsers() -> None:
    for name, path in PAGES.items():
        text = path.read_text(encoding="utf-8")
        assert flags.renewed(text) == text, f"{name}: {RENEW}"


def test_every_command_has_its_table_on_one_page() -> None:
    named = sorted(
        name for path in PAGES.values() for name in flags.named_in(path.read_text(encoding="utf-8"))
    )
    assert named == sorted({*flags.shared(), *flags.parsers()} - {"help"})


def test_tables_have_every_flag() -> None:
    """Each flag of each command is in the command's table or in that of a set, which its table leaves out."""
    tables = flags.tables()
    everywhere = "".join(tables[name] for name in flags.shared())
    for name, parser in flags.parsers().items():
        for action in filter(flags.is_listed, parser._actions):
            row = flags.row_of(action)
            assert row in tables[name] or row in everywhere, f"{name}: {action.option_strings}"


@pytest.mark.parametrize("name", TEXTS)
def test_flags_that_are_named_exist(name: str) -> None:
    known = {flag for parser in flags.parsers().values() for flag in parser._option_string_actions}
    known |= {"--version", "--max_new_tokens", "--n-predict", "--temperature"} | OF_OTHERS
    own = {"--help", *FLAG.findall(without_scripts(text_of(name)))}
    assert own <= known | {"--help"}, own - known


def without_scripts(text: str) -> str:
    """Without the commands of programs of bench/, which have flags of their own."""
    return re.sub(r"`python .*?`", "", text)


# -- figures --
FIGURES = {  # of README: what it says, and the line of the result that says so
    "76 tokens/s, 2.3 times": ("peers.md", "| float32 | tg128 @ d128 | 76.36 | 34.64 (2.30x)"),
    "0.14 s": ("chat.md", "| the turn alone | 41 | 0.136 s |"),
    "1.92 s": ("chat.md", "| everything again | 1,047 | 1.919 s |"),
    "39 times": ("fewshot.md", "| 1 | 3.46 s | 2.43 s | 1.42 | 134.5 s | **39x** |"),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_are_those_of_the_results(figure: str) -> None:
    name, line = FIGURES[figure]
    result = (ROOT / "bench" / "results" / name).read_text(encoding="utf-8")
    rows = [row for row in text_of("README").splitlines() if figure in row]
    assert len(rows) == 1
    assert f"bench/results/{name}" in rows[0]
    assert line in result
    command = re.search(r"`(python .+?)`", rows[0])
    assert command is not None
    assert command[1] in result


def test_readme_is_short() -> None:
    """A screen and a half, on a large screen."""
    assert len(text_of("README").splitlines()) <= 100


@pytest.mark.parametrize("name", TEXTS)
def test_lines_of_prose_are_short(name: str) -> None:
    prose = [
        line for line in without_code(text_of(name)).splitlines() if not line.startswith(("|", "!"))
    ]
    assert [line for line in prose if len(line) > 130] == []


@pytest.mark.parametrize("name", TEXTS)
def test_blocks_say_what_they_are(name: str) -> None:
    for block in blocks(name):
        assert block.language in ("sh", "console", "python", "toml", "text"), block.place

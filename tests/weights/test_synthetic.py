"""The generator of training text: the same everywhere, no mistake that a program can see, true few-shot mappings."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest

from minigen.evaluation.fewshot import load_prompt_file
from minigen.weights.synthetic.__main__ import main
from minigen.weights.synthetic.chats import chat
from minigen.weights.synthetic.fewshot import EVALUATED, fewshot, pairs_of, parts, prompt_file
from minigen.weights.synthetic.grammar import stream
from minigen.weights.synthetic.lexicon import animals, classes, facts, ing, past, plural
from minigen.weights.synthetic.plotfile import plots, subjects
from minigen.weights.synthetic.pools import pool
from minigen.weights.synthetic.stories import short_story, story
from minigen.weights.synthetic.tasks import TASKS

SAMPLE = 5000
DIGEST = (
    "print(hashlib.sha256(repr([[m(7, n) for n in range(40)] for m in (story, chat, "
    "fewshot)]).encode()).hexdigest())"
)
IMPORTS = (
    "import hashlib; from minigen.weights.synthetic.stories import story; "
    "from minigen.weights.synthetic.chats import chat; from minigen.weights.synthetic.fewshot import fewshot; "
)


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return [story(11, n) for n in range(SAMPLE)]


@pytest.fixture(scope="module")
def chats() -> list[list[dict[str, str]]]:
    return [chat(11, n)["messages"] for n in range(SAMPLE)]


def test_documents_do_not_depend_on_the_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", IMPORTS + DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hashseed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashseed in ("0", "4321")
    }
    here = [[make(7, n) for n in range(40)] for make in (story, chat, fewshot)]
    assert found == {hashlib.sha256(repr(here).encode()).hexdigest() + "\n"}


def test_stories_are_distinct_and_of_the_right_length(stories: list[str]) -> None:
    assert len(set(stories)) == SAMPLE
    words = [len(text.split()) for text in stories]
    assert 120 <= sum(words) / SAMPLE <= 180
    assert min(words) > 40
    assert max(words) < 320
    assert len(plots()) >= 40


@pytest.mark.parametrize(
    "pattern",
    [
        r"\b[Aa] [aeio]\w",
        r"\b[Aa]n [b-df-gj-np-tv-z]\w",
        r"\b(?!(?:had|that|so|very|far|up)\b)([a-z]+) \1\b",
        r"[\[\]{}|@#]",
        r" [.,!?]",
        r"[.,!?][A-Za-z]",
        r"(?:^|[.!?] |\n)[a-z]",
        r"  ",
        r"[.!?]\"[.]",
        r"[!?]\.|,,|(?<!\.)\.\.(?!\.)",
        r"\ba (?:milk|bread|cheese|soup)\b",
        r"\b(?:goed|runned|eated|childs|mouses|foots)\b",
    ],
)
def test_stories_have_no_such_mistake(stories: list[str], pattern: str) -> None:
    found = [
        text[max(0, m.start() - 30) : m.end() + 20]
        for text in stories
        for m in re.finditer(pattern, text)
    ]
    assert not found, found[:5]


def test_quotation_marks_of_stories_are_in_pairs(stories: list[str]) -> None:
    for text in stories:
        for line in text.split("\n"):
            assert line.count('"') % 2 == 0, line


def test_names_stay_the_same(stories: list[str]) -> None:
    """Every name is of the hero, the friend, or a pet that is named in the story; no third child turns up."""
    people = set(re.findall(r"named ([A-Z]\w+)", " ".join(stories)))
    for text in stories:
        assert (
            len(
                {word for word in re.findall(r"\b[A-Z]\w+", text) if word in people}
                - {"Star", "Blue", "Red", "Sky"}
            )
            <= 4
        ), text


def test_a_story_is_about_what_was_asked_for() -> None:
    draw = stream(3, "test", 0).random
    for about in ("dog", "cat", "dragon", "fish", "ball", "kite", "hat", "train"):
        for _ in range(5):
            text = short_story(draw, about)
            assert text.count(about) > 1
            assert len(text.split()) <= 160
    assert len(subjects()) > 100


def test_chats_alternate_and_are_distinct(chats: list[list[dict[str, str]]]) -> None:
    for rows in chats:
        roles = [row["role"] for row in rows]
        talk = roles[1:] if roles[0] == "system" else roles
        assert talk == ["user", "assistant"] * (len(talk) // 2)
        assert 1 <= len(talk) // 2 <= 6
        assert all(row["content"].strip() == row["content"] != "" for row in rows)
        assert not any(re.search(r"[\[\]{}|@#]|  ", row["content"]) for row in rows), rows
    assert len({json.dumps(rows) for rows in chats}) > 0.99 * SAMPLE


def test_chats_remember_what_the_user_said(chats: list[list[dict[str, str]]]) -> None:
    recalled = 0
    for rows in chats:
        said = " ".join(row["content"] for row in rows if row["role"] == "user").lower()
        for row in rows:
            match = re.search(
                r"[Yy]our (?:name is|favorite color is|favorite food is) ([\w ]+)[.!]",
                row["content"],
            )
            if match and row["role"] == "assistant":
                recalled += 1
                assert match.group(1).lower() in said, rows
    assert recalled > 100


def test_chats_obey_the_system_prompt(chats: list[list[dict[str, str]]]) -> None:
    seen = set()
    for rows in chats:
        if rows[0]["role"] != "system":
            continue
        prompt, answers = (
            rows[0]["content"],
            [row["content"] for row in rows if row["role"] == "assistant"],
        )
        if "capital letters" in prompt:
            seen.add("capitals")
            assert all(answer == answer.upper() for answer in answers)
        if "pirate" in prompt:
            seen.add("pirate")
            assert all(answer.startswith(("Arr", "Ahoy", "Yo ho")) for answer in answers)
        if "one word" in prompt:
            seen.add("word")
            assert all(len(answer.split()) <= 9 for answer in answers), rows
    assert seen == {"capitals", "pirate", "word"}


def test_few_shot_documents_are_functions_and_distinct() -> None:
    texts = set()
    for n in range(SAMPLE):
        name, pairs, text = parts(11, n)
        texts.add(text)
        assert len(dict(pairs)) == len(set(pairs)), (name, text)
        assert all(a.strip() == a != "" and b.strip() == b != "" for a, b in pairs), text
        assert 3 <= len(pairs) <= 16, text
    assert len(texts) > 0.99 * SAMPLE


def test_a_table_is_answered_by_its_own_lines() -> None:
    for n in range(200):
        _, pairs = pairs_of(stream(5, "test", n).random, "cipher", 16)
        size = len(dict(pairs))
        assert len(set(pairs[:size])) == size, "every pair stands once before the first repeat"
        assert all(pair in pairs[:k] for k, pair in enumerate(pairs) if k >= size)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_held_out_words_are_not_trained_on(name: str) -> None:
    """What an evaluation asks is made of words that no training document of the task takes as input words."""
    _, asked = pairs_of(stream(1, "test", 0).random, name, 12, held_out=True)
    assert asked
    trained = set(pool("words", False)) | set(pool("nouns", False)) | set(pool("animals", False))
    held = set(pool("words", True))
    assert not trained & held
    if name in ("copy", "reverse", "first-word", "last-word", "capitalize", "cipher"):
        assert not {word for a, _ in asked for word in a.split()} & set(pool("words", False))


def test_words() -> None:
    assert [plural(w) for w in ("box", "baby", "toy", "mouse", "toy boat", "wolf", "peach")] == [
        "boxes", "babies", "toys", "mice", "toy boats", "wolves", "peaches",
    ]  # fmt: skip
    assert [ing(w) for w in ("swim", "bake", "play", "tie", "see")] == [
        "swimming",
        "baking",
        "playing",
        "tying",
        "seeing",
    ]
    assert [past(w) for w in ("swim", "bake", "play", "carry", "skip")] == [
        "swam",
        "baked",
        "played",
        "carried",
        "skipped",
    ]
    assert facts("opposites")["hot"] == "cold"
    assert animals()["cow"]["says"] == "moo"
    assert all(word == word.strip() and word for words in classes().values() for word in words)


def test_the_command_writes_everything(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        assert (
            main(
                [
                    "--seed",
                    "3",
                    "--stories",
                    "8",
                    "--chats",
                    "8",
                    "--fewshot",
                    "8",
                    "--out",
                    str(tmp_path / folder),
                ]
            )
            == 0
        )
    names = sorted(
        path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*.*")
    )
    assert names == sorted(
        ["stories.txt", "chats.jsonl", "fewshot.txt", *(f"eval/{n}.prompt.toml" for n in EVALUATED)]
    )
    assert all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in names
    )
    assert (tmp_path / "a" / "stories.txt").read_text(encoding="utf-8").count(
        "<|endoftext|>\n"
    ) == 8
    assert len((tmp_path / "a" / "chats.jsonl").read_text(encoding="utf-8").splitlines()) == 8
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file")]) == 1
    assert "give --out a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(EVALUATED))
def test_prompt_files_can_be_read(name: str, tmp_path) -> None:
    path = tmp_path / f"{name}.prompt.toml"
    path.write_text(prompt_file(2, name), encoding="utf-8")
    file = load_prompt_file(path)
    assert len(file.items) >= 5
    assert len(file.examples) >= max(file.shots.n)

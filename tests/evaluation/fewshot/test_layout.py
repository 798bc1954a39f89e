"""Prompts as text: GPT-3's layout to the character, and which examples stand in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen.evaluation.fewshot import (
    Example,
    Item,
    Prompt,
    PromptError,
    PromptFile,
    Shots,
    choose_examples,
    prefix,
    render,
    render_content_free,
    render_text,
    render_unconditional,
)
from minigen.evaluation.fewshot.file import Pick
from minigen.evaluation.fewshot.layout import render_choices
from minigen.evaluation.fewshot.template import fill

Load = Callable[..., PromptFile]

SEED = """\
format = 1
description = "Translate English to French:"
template = "{input} =>"
[[examples]]
input = "sea otter"
output = "loutre de mer"
[[examples]]
input = "peppermint"
output = "menthe poivrée"
[[examples]]
input = "plush girafe"
output = "girafe peluche"
[[items]]
input = "cheese"
output = "fromage"
"""
LAYOUT = """\
Translate English to French:
sea otter => loutre de mer
peppermint => menthe poivrée
plush girafe => girafe peluche
cheese =>"""


def make(answers: str, pick: Pick = "random") -> PromptFile:
    """A file with an example for each letter, which is its answer."""
    examples = tuple(
        Example({"input": f"{i}"}, answer, f"t:{i}") for i, answer in enumerate(answers)
    )
    item = Item({"input": "x"}, None, (), (), "t:0")
    return PromptFile(
        Path("t"), "", "{input}", " ", "\n", examples, (item,), (), shots=Shots(pick=pick)
    )


def test_the_three_settings_of_gpt3(load: Load) -> None:
    file, lines = load(SEED), LAYOUT.split("\n")
    assert render_text(file, 3, 0, 0) == LAYOUT
    assert render_text(file, 1, 0, 0) == "\n".join([*lines[:2], lines[-1]])
    assert render_text(file, 0, 0, 0) == "\n".join([lines[0], lines[-1]])
    assert render_text(file, 3, 0, 0, with_answer=True) == LAYOUT + " fromage"
    assert render(file, file.examples, file.items[0]) == [Prompt(LAYOUT, (" fromage",))]


def test_no_description_no_separator(load: Load) -> None:
    file = load(SEED.replace("Translate English to French:", ""))
    assert render_text(file, 0, 0, 0) == "cheese =>"
    assert prefix(file, []) == ""


def test_choices_and_contexts(load: Load) -> None:
    file = load("""\
format = 1
answer_sep = "-> "
block_sep = "|"
choices = ["b", "c"]
[[items]]
input = "{a} {{b}}"
[[examples]]
input = "x"
output = "b"
[score]
calibrate = ["N/A", ""]
uncond_context = "A"
""")
    item, answers = file.items[0], ("-> b", "-> c")
    assert render(file, file.examples, item) == [Prompt("x-> b|{a} {{b}}", answers)]
    assert render_content_free(file, file.examples, item) == [
        Prompt("x-> b|N/A", answers),
        Prompt("x-> b|", answers),
    ]
    assert render_unconditional(file, item) == Prompt("A", answers)
    assert render_text(file, 1, 0, 0, with_answer=True) == "x-> b|{a} {{b}}"  # no answer is known

    row = '[[items]]\ncontext_options = ["a b", "a c"]\ncontinuation = "d."\ngold = 1\n'
    file = load("format = 1\n" + row)
    assert render(file, [], file.items[0]) == [Prompt("a b", (" d.",)), Prompt("a c", (" d.",))]
    assert render_text(file, 0, 0, 0, with_answer=True) == "a c d."


def test_what_follows_a_prompt_follows_all_that_stand_for_it(load: Load) -> None:
    file = load("""\
format = 1
template = "{input}"
answer_sep = ""
choices = ["b", "c"]
[[items]]
input = "A: "
[score]
calibrate = ["N/A", "", "x\\n"]
normalize = "uncond"
""")
    found = render_choices(file, [], file.items[0])
    assert [prompt.text for prompt in (*found.own, *found.content_free, *found.unconditional)] == [
        "A: ",
        "N/A ",
        " ",
        "x\n",
        "Answer: ",
    ]


FIELD = st.text(max_size=5)


@given(FIELD, FIELD, FIELD, FIELD, st.lists(st.tuples(FIELD, FIELD), max_size=4))
def test_nothing_is_stripped_or_added(
    description: str, sep: str, block: str, lit: str, pairs: list[tuple[str, str]]
) -> None:
    template = lit.replace("{", "{{").replace("}", "}}") + "{input}"
    examples = tuple(Example({"input": a}, b, "t:1") for a, b in pairs)
    item = Item({"input": "{x}"}, "y", (), (), "t:1")
    file = PromptFile(Path("t"), description, template, sep, block, examples, (item,), ())
    parts = [description] if description else []
    parts += [lit + a + sep + b for a, b in pairs]
    assert render(file, examples, item) == [Prompt(block.join([*parts, lit + "{x}"]), (sep + "y",))]
    assert render(file, examples, item)[0].text == prefix(file, examples) + fill(
        template, item.fields
    )


def test_first_ignores_the_seed() -> None:
    file = make("abcd", "first")
    assert choose_examples(file, 3, 0) == choose_examples(file, 3, 9) == list(file.examples[:3])


@pytest.mark.parametrize("pick", ["random", "balanced"])
@given(st.text("abc", min_size=1, max_size=12), st.integers(0, 2**64 - 1))
def test_each_example_once_and_more_shots_begin_alike(pick: Pick, answers: str, seed: int) -> None:
    file = make(answers, pick)
    whole = choose_examples(file, len(answers), seed)
    assert sorted(e.where for e in whole) == sorted(e.where for e in file.examples)
    for n in range(len(answers)):
        assert choose_examples(file, n, seed) == whole[:n]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20), st.integers(0, 99))
def test_balanced_gives_each_answer_its_turn(answers: list[str], seed: int) -> None:
    file = make("".join(answers), "balanced")
    available, shown = Counter(answers), Counter[str]()
    for example in choose_examples(file, len(answers), seed):
        left = [a for a in available if shown[a] < available[a]]
        assert shown[example.answer] == min(shown[a] for a in left)
        shown[example.answer] += 1


@pytest.mark.parametrize("pick", ["random", "balanced"])
def test_seeds_change_choice_and_order(pick: Pick) -> None:
    file = make("aabbccdd", pick)
    orders = [tuple(e.where for e in choose_examples(file, 4, seed)) for seed in range(50)]
    assert len({frozenset(order) for order in orders}) > 10
    whole = {tuple(e.answer for e in choose_examples(file, 8, seed)) for seed in range(50)}
    assert len(whole) > 40


def test_the_order_of_a_seed_is_for_ever() -> None:
    assert [e.fields["input"] for e in choose_examples(make("aabbb"), 5, 1)] == list("43012")
    assert [e.fields["input"] for e in choose_examples(make("aabbb", "balanced"), 5, 1)] == list(
        "40312"
    )


def test_every_example_comes_first_as_often() -> None:
    counts = Counter(choose_examples(make("abcd"), 1, seed)[0].where for seed in range(4000))
    assert all(abs(count - 1000) < 120 for count in counts.values())  # 4.4 standard deviations


def test_too_many_shots_and_no_such_item() -> None:
    file = make("ab")
    with pytest.raises(
        PromptError, match=r"^t: shots\.n: is 3, but the number of examples is 2; add some$"
    ):
        choose_examples(file, 3, 0)
    with pytest.raises(PromptError, match=r"^t: items: there is no item 1; give one from 0 to 0$"):
        render_text(file, 0, 0, 1)

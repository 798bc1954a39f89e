"""The text of a prompt, as GPT-3's evaluation laid it out (Brown et al. 2020): description, examples, the item.

    description + block_sep + block + block_sep + ... + the item's block

A block is the filled template, then answer_sep + answer; the item's has no answer. Nothing is stripped or added;
without a description there is no separator before the first block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minigen.evaluation.fewshot.file import Example, Fields, Item, PromptError, PromptFile
from minigen.evaluation.fewshot.template import field_names, fill
from minigen.sampling.uniforms import LIMIT, uniforms


@dataclass(frozen=True)
class Prompt:
    """A text, and what may follow it: each answer begins with the separator, and is scored with it."""

    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class ChoicePrompts:
    """All prompts whose answers are scored for one item."""

    own: list[Prompt]  # the item's: one with all choices, or one for each context
    content_free: list[Prompt]  # one for each text of score.calibrate
    unconditional: list[Prompt]  # one where score.normalize is "uncond"


def choose_examples(file: PromptFile, n: int, seed: int) -> list[Example]:
    """The `n` examples that stand before the items, in their order.

    first: the first n as they are given; the seed does nothing. random: the first n of a permutation that the
    seed gives. balanced: the same, but the answers take turns, in an order drawn anew for each turn, as long as
    they have examples left. More shots with the same seed begin with the same examples.

    Raises PromptError where there are fewer than n.
    """
    if n > len(file.examples):
        raise PromptError(
            f"{file.path}: shots.n: is {n}, but there are {len(file.examples)} examples; add some"
        )
    if file.shots.pick == "first":
        return list(file.examples[:n])
    shuffled = [file.examples[i] for i in _permutation(len(file.examples), seed, 0)]
    if file.shots.pick == "random":
        return shuffled[:n]
    left = {
        example.answer: [e for e in shuffled if e.answer == example.answer]
        for example in file.examples
    }
    chosen: list[Example] = []
    turn = 0
    while len(chosen) < n:
        turn += 1
        answers = [answer for answer, examples in left.items() if examples]
        chosen += [left[answers[i]].pop(0) for i in _permutation(len(answers), seed, turn)]
    return chosen[:n]


def _permutation(size: int, seed: int, turn: int) -> list[int]:
    """An order of `size` things that depends on the seed and the turn alone, in every version of NumPy.

    The sequences are counted from the top, away from those that draw tokens.
    """
    return [int(i) for i in np.argsort(uniforms(seed, LIMIT - 1 - turn, 0, size), kind="stable")]


def prefix(file: PromptFile, examples: Sequence[Example]) -> str:
    """What stands before the block of every item: the same text for all of them."""
    blocks = [fill(file.template, e.fields) + file.answer_sep + e.answer for e in examples]
    parts = [file.description, *blocks] if file.description else blocks
    return "".join(part + file.block_sep for part in parts)


def render(file: PromptFile, examples: Sequence[Example], item: Item) -> list[Prompt]:
    """The prompts of an item: one with all choices or the known answer, or one for each context."""
    before = prefix(file, examples)
    return [_prompt(file, before, fields, _answers(item)) for fields in item.variants]


def render_content_free(file: PromptFile, examples: Sequence[Example], item: Item) -> list[Prompt]:
    """The item's prompt with each text of score.calibrate in place of every field (Zhao et al. 2021)."""
    before, names = prefix(file, examples), field_names(file.template)
    return [
        _prompt(file, before, dict.fromkeys(names, text), item.choices)
        for text in file.score.calibrate
    ]


def render_unconditional(file: PromptFile, item: Item) -> Prompt:
    """What follows the item's prompts, after score.uncond_context alone: the divisor of normalize = "uncond"."""
    return Prompt(
        file.score.uncond_context, tuple(file.answer_sep + answer for answer in _answers(item))
    )


def render_choices(file: PromptFile, examples: Sequence[Example], item: Item) -> ChoicePrompts:
    """Everything that is scored for an item with choices or contexts.

    White space at the end of the item's prompt is scored with each answer (see stretch.py). It is kept where another
    text stands for the prompt, unless that ends in white space itself: so the same continuations are scored there.
    """
    own = render(file, examples, item)
    content_free = render_content_free(file, examples, item) if file.score.calibrate else []
    unconditional = [render_unconditional(file, item)] if file.score.normalize == "uncond" else []
    white_space = own[0].text[len(own[0].text.rstrip()) :]

    def alike(prompts: list[Prompt]) -> list[Prompt]:
        return [
            p if p.text[-1:].isspace() else replace(p, text=p.text + white_space) for p in prompts
        ]

    return ChoicePrompts(own, alike(content_free), alike(unconditional))


def render_text(
    file: PromptFile, n: int, seed: int, item_index: int, with_answer: bool = False
) -> str:
    """The prompt of one item as a text, of the right context where it has several.

    Raises PromptError where there are too few examples, or no such item.
    """
    if not 0 <= item_index < len(file.items):
        raise PromptError(
            f"{file.path}: items: there is no item {item_index}; they go from 0 to {len(file.items) - 1}"
        )
    item = file.items[item_index]
    prompts = render(file, choose_examples(file, n, seed), item)
    text = prompts[item.gold or 0].text if item.contexts else prompts[0].text
    return text + file.answer_sep + item.answer if with_answer and item.answer is not None else text


def _answers(item: Item) -> tuple[str, ...]:
    """What may follow the item's prompts: its choices, else the known answer."""
    if item.choices:
        return item.choices
    return () if item.answer is None else (item.answer,)


def _prompt(file: PromptFile, before: str, fields: Fields, answers: Sequence[str]) -> Prompt:
    return Prompt(
        before + fill(file.template, fields), tuple(file.answer_sep + answer for answer in answers)
    )

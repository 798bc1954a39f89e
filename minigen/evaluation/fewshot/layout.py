"""The text of a prompt: description, examples, the item, as GPT-3's evaluation (Brown et al. 2020).

    description + block_sep + block + block_sep + ... + the item's block

A block is the filled template, then answer_sep + answer; the item's block has no answer. Nothing is
stripped or added. Without a description there is no separator before the first block.
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
    """A text, and its possible answers: each begins with the separator and is scored with it."""

    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class ChoicePrompts:
    """All prompts whose answers are scored for one item."""

    own: list[Prompt]  # the item's: one with all choices, or one for each context
    content_free: list[Prompt]  # one for each text of score.calibrate
    unconditional: list[Prompt]  # one where score.normalize is "uncond"


def run_seeds(file: PromptFile, shots: int) -> Sequence[int]:
    """The seeds with which `shots` shots are run: all where examples are drawn, else the first."""
    drawn = shots > 0 and file.shots.pick != "first"
    return file.shots.seeds if drawn else file.shots.seeds[:1]


def choose_examples(file: PromptFile, n: int, seed: int) -> list[Example]:
    """The `n` examples that stand before the items, in their order.

    first: the first n of the file; the seed has no effect. random: the first n of a permutation
    that depends on the seed. balanced: the same, but in rounds: each round takes one example of
    every answer that has some left, in an order that is drawn for the round. More shots with the
    same seed begin with the same examples.

    Raises PromptError if there are fewer than n.
    """
    if n > len(file.examples):
        raise PromptError(
            f"{file.path}: shots.n: is {n}, but the number of examples is {len(file.examples)}; "
            "add some"
        )
    if file.shots.pick == "first":
        return list(file.examples[:n])
    shuffled = [file.examples[i] for i in _permutation(len(file.examples), seed, 0)]
    if file.shots.pick == "random":
        return shuffled[:n]
    left: dict[str, list[Example]] = {example.answer: [] for example in file.examples}
    for example in shuffled:
        left[example.answer].append(example)
    chosen: list[Example] = []
    round_number = 0
    while len(chosen) < n:
        round_number += 1
        answers = [answer for answer, examples in left.items() if examples]
        for i in _permutation(len(answers), seed, round_number):
            chosen.append(left[answers[i]].pop(0))
    return chosen[:n]


def _permutation(size: int, seed: int, number: int) -> list[int]:
    """Permutation `number` of a seed, of `size` things; the same in every version of NumPy.

    The numbers of sequences are counted down from the last, away from those that draw tokens.
    """
    keys = uniforms(seed, LIMIT - 1 - number, 0, size)
    return [int(i) for i in np.argsort(keys, kind="stable")]


def prefix(file: PromptFile, examples: Sequence[Example]) -> str:
    """The text before the block of every item, the same for all of them."""
    parts: list[str] = []
    if file.description:
        parts.append(file.description)
    for example in examples:
        parts.append(fill(file.template, example.fields) + file.answer_sep + example.answer)
    return "".join(part + file.block_sep for part in parts)


def render(file: PromptFile, examples: Sequence[Example], item: Item) -> list[Prompt]:
    """The prompts of an item: one with all choices or the known answer, or one for each context."""
    before = prefix(file, examples)
    return [_prompt(file, before, fields, _answers(item)) for fields in item.variants]


def render_content_free(file: PromptFile, examples: Sequence[Example], item: Item) -> list[Prompt]:
    """The item's prompt with every field replaced by each text of score.calibrate (Zhao et al.

    2021).
    """
    before = prefix(file, examples)
    names = field_names(file.template)
    prompts: list[Prompt] = []
    for text in file.score.calibrate:
        prompts.append(_prompt(file, before, dict.fromkeys(names, text), item.choices))
    return prompts


def render_unconditional(file: PromptFile, item: Item) -> Prompt:
    """The item's answers after score.uncond_context alone, the divisor of normalize = "uncond"."""
    return Prompt(file.score.uncond_context, _with_separator(file, _answers(item)))


def render_choices(file: PromptFile, examples: Sequence[Example], item: Item) -> ChoicePrompts:
    """All prompts that are scored for an item with choices or contexts.

    White space at the end of the item's prompt is scored with each answer (see stretch.py). The
    content-free and unconditional prompts get the same white space, unless they have their own, so
    that the same continuations are scored after them.
    """
    own = render(file, examples, item)
    content_free: list[Prompt] = []
    unconditional: list[Prompt] = []
    if file.score.calibrate:
        content_free = render_content_free(file, examples, item)
    if file.score.normalize == "uncond":
        unconditional = [render_unconditional(file, item)]
    white_space = own[0].text[len(own[0].text.rstrip()) :]
    return ChoicePrompts(
        own,
        [_ending_in(white_space, prompt) for prompt in content_free],
        [_ending_in(white_space, prompt) for prompt in unconditional],
    )


def _ending_in(white_space: str, prompt: Prompt) -> Prompt:
    """The prompt with this white space at its end, unless it ends in white space already."""
    if prompt.text[-1:].isspace():
        return prompt
    return replace(prompt, text=prompt.text + white_space)


def render_text(
    file: PromptFile, n: int, seed: int, item_index: int, with_answer: bool = False
) -> str:
    """The prompt of one item as a text, with the right context if it has several.

    Raises PromptError if there are too few examples, or no such item.
    """
    if not 0 <= item_index < len(file.items):
        raise PromptError(
            f"{file.path}: items: there is no item {item_index}; give one from 0 to "
            f"{len(file.items) - 1}"
        )
    item = file.items[item_index]
    prompts = render(file, choose_examples(file, n, seed), item)
    text = prompts[0].text
    if item.contexts and item.gold is not None:
        text = prompts[item.gold].text
    if with_answer and item.answer is not None:
        text += file.answer_sep + item.answer
    return text


def _answers(item: Item) -> tuple[str, ...]:
    """The answers of the item's prompts: its choices, else the known answer."""
    if item.choices:
        return item.choices
    return () if item.answer is None else (item.answer,)


def _prompt(file: PromptFile, before: str, fields: Fields, answers: Sequence[str]) -> Prompt:
    return Prompt(before + fill(file.template, fields), _with_separator(file, answers))


def _with_separator(file: PromptFile, answers: Sequence[str]) -> tuple[str, ...]:
    return tuple(file.answer_sep + answer for answer in answers)

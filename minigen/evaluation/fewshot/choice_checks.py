"""Checks of choices: is the right one among them, how often is each right, how are they worded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from minigen.evaluation.fewshot.file import Example, Item, PromptFile
from minigen.evaluation.fewshot.finding import Problems
from minigen.evaluation.fewshot.layout import choose_examples, render_choices
from minigen.evaluation.fewshot.source import short
from minigen.evaluation.fewshot.template import fill
from minigen.generation.shared_text import common_length


def gold_missing(file: PromptFile) -> Problems:
    for item in file.items:
        if item.choices and item.answer is not None and item.gold is None:
            yield (
                item.where,
                f"the answer {short(item.answer)} is not among the choices; correct it, or add "
                "it to them",
            )
    for example in file.examples:
        if file.choices and example.answer not in file.choices:
            answer = short(example.answer)
            yield example.where, f"the answer {answer} is not among the choices; correct it"


def same_choices(file: PromptFile) -> Problems:
    """Two equal choices that are both right: a tie that no model can break."""
    for item in file.items:
        if item.answer is not None and item.choices.count(item.answer) > 1:
            count = item.choices.count(item.answer)
            yield (
                item.where,
                f"the right choice {short(item.answer)} is given {count} times; keep one",
            )
        prompts = [fill(file.template, fields) for fields in item.contexts]
        if len(set(prompts)) < len(prompts):
            yield item.where, "two contexts give the same prompt; the template may lack a field"


def same_wrong_choices(file: PromptFile) -> Problems:
    """Equal wrong choices, as some published data sets have them.

    The answer stays unique, but guessing is right more often than once in len(choices).
    """
    for item in file.items:
        for choice, count in Counter(item.choices).items():
            if count > 1 and choice != item.answer:
                yield item.where, f"the choice {short(choice)} is given {count} times; keep one"
                break


def example_balance(file: PromptFile) -> Problems:
    """Among the examples that are shown, one choice is the answer more than twice as often."""
    shots = max((n for n in file.shots.n if n <= len(file.examples)), default=0)
    if not file.choices or shots < len(file.choices) or file.shots.pick == "balanced":
        return
    shown: Sequence[Example] = file.examples
    if file.shots.pick == "first":
        shown = choose_examples(file, shots, 0)
    counts = Counter(dict.fromkeys(file.choices, 0))
    counts.update(example.answer for example in shown)
    if _uneven(counts):
        yield (
            str(file.path),
            f"examples: {_listed(counts)}: a model may copy the more frequent answer; use pick "
            '= "balanced"',
        )


def item_balance(file: PromptFile) -> Problems:
    """Among the items, one choice is the answer more than twice as often as another."""
    if not file.choices:
        return
    counts = Counter(dict.fromkeys(file.choices, 0))
    for item in file.items:
        if item.choices == file.choices and item.gold is not None and item.answer is not None:
            counts[item.answer] += 1
    if counts.total() >= len(file.choices) and _uneven(counts):
        answer, most = counts.most_common(1)[0]
        yield (
            str(file.path),
            f"items: {_listed(counts)}: always answering {short(answer)} "
            f"is right for {100 * most / counts.total():.0f} %; compare the accuracy with that",
        )


def _uneven(counts: Counter[str]) -> bool:
    return max(counts.values()) > 2 * min(counts.values())


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{short(name)} {count}" for name, count in counts.most_common(8))


def contained_choices(file: PromptFile) -> Problems:
    """A choice that another one begins with."""
    for where, choices in choice_sets(file):
        for a, b in combinations(sorted(set(choices), key=len), 2):
            if a and b.startswith(a):
                yield (
                    where,
                    f"the choice {short(a)} is the beginning of {short(b)}: "
                    "the shorter is often likelier only because it is short; "
                    "reword, or set normalize",
                )


def shared_beginnings(file: PromptFile, encode: Callable[[str], list[int]] | None) -> Problems:
    """Two choices that begin with the same word; with `encode`, by how many tokens."""
    for where, choices in choice_sets(file):
        for a, b in combinations(dict.fromkeys(choices), 2):
            if a.split()[:1] != b.split()[:1] or a.startswith(b) or b.startswith(a):
                continue
            tokens = ""
            if encode is not None:
                a_ids, b_ids = encode(file.answer_sep + a), encode(file.answer_sep + b)
                shared = common_length(a_ids, b_ids)
                tokens = f" by {shared} of {len(a_ids)} and {len(b_ids)} tokens"
            yield (
                where,
                f"the choices {short(a)} and {short(b)} begin alike{tokens}: only the rest "
                "distinguishes them, which normalize = token or byte dilutes; reword if you can",
            )
            break


def is_scored(item: Item) -> bool:
    """Whether the item is answered by log-likelihood."""
    return bool(item.choices or item.contexts)


def starts_with_item(file: PromptFile) -> bool:
    """Whether some prompts have neither description nor examples before the item."""
    return not file.description and 0 in file.shots.n


def nothing_before(file: PromptFile) -> Problems:
    """Choices that are scored after an empty text, for which not every tokenizer has a token."""
    for item in file.items:
        if not is_scored(item):
            continue
        rendered = render_choices(replace(file, description=""), [], item)
        prompts = list(rendered.unconditional)
        if starts_with_item(file):
            prompts += rendered.own + rendered.content_free
        if any(not prompt.text.strip() for prompt in prompts):
            yield (
                item.where,
                "no text before the choices: they are scored after the model's start token, or "
                "the token between its documents; give a model to check that it has one",
            )


def choice_sets(file: PromptFile) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(where, choices) of each set of choices once: at the first item that has it, or the file."""
    first: dict[tuple[str, ...], str] = {}
    for item in file.items:
        if item.choices == file.choices:
            first.setdefault(item.choices, str(file.path))
        else:
            first.setdefault(item.choices, item.where)
    first.pop((), None)
    for choices, where in first.items():
        yield where, choices

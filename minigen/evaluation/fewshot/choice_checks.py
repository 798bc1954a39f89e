"""The checks of choices: the right one among them, how often each is right, and how they are worded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations

from minigen.evaluation.fewshot.file import Item, PromptFile
from minigen.evaluation.fewshot.finding import Found
from minigen.evaluation.fewshot.layout import choose_examples, render_choices
from minigen.evaluation.fewshot.source import short
from minigen.evaluation.fewshot.template import fill
from minigen.generation.shared_text import common_length


def gold_missing(file: PromptFile) -> Found:
    for item in file.items:
        if item.choices and item.answer is not None and item.gold is None:
            yield (
                item.where,
                f"the answer {short(item.answer)} is not among the choices; correct it, or add it to them",
            )
    for example in file.examples:
        if file.choices and example.answer not in file.choices:
            yield (
                example.where,
                f"the answer {short(example.answer)} is not among the choices; correct it",
            )


def same_choices(file: PromptFile) -> Found:
    """Two that are the same where one of them is right: a tie that no model can break."""
    for item in file.items:
        if item.answer is not None and item.choices.count(item.answer) > 1:
            count = item.choices.count(item.answer)
            yield (
                item.where,
                f"the choice {short(item.answer)}, the right one, is there {count} times; keep one",
            )
        texts = [fill(file.template, fields) for fields in item.contexts]
        if len(set(texts)) < len(texts):
            yield item.where, "two contexts give the same prompt; the template may lack a field"


def same_wrong_choices(file: PromptFile) -> Found:
    """Published sets have some: the answer stays unique, but a guess is right more often than 1 in all."""
    for item in file.items:
        twice = [
            choice
            for choice, count in Counter(item.choices).items()
            if count > 1 and choice != item.answer
        ]
        if twice:
            yield (
                item.where,
                f"the choice {short(twice[0])} is there {item.choices.count(twice[0])} times; keep one",
            )


def example_balance(file: PromptFile) -> Found:
    shots = max((n for n in file.shots.n if n <= len(file.examples)), default=0)
    if not file.choices or shots < len(file.choices) or file.shots.pick == "balanced":
        return
    shown = choose_examples(file, shots, 0) if file.shots.pick == "first" else file.examples
    counts = Counter(dict.fromkeys(file.choices, 0))
    counts.update(example.answer for example in shown)
    if _uneven(counts):
        yield (
            str(file.path),
            f'examples: {_listed(counts)}: a model may copy the commoner; use pick = "balanced"',
        )


def item_balance(file: PromptFile) -> Found:
    if not file.choices:
        return
    counts = Counter(dict.fromkeys(file.choices, 0))
    known = (item for item in file.items if item.gold is not None and item.choices == file.choices)
    counts.update(item.answer for item in known if item.answer is not None)
    if counts.total() >= len(file.choices) and _uneven(counts):
        answer, most = counts.most_common(1)[0]
        share = f"always {short(answer)} is right for {100 * most / counts.total():.0f} %"
        yield str(file.path), f"items: {_listed(counts)}: {share}; compare the accuracy with that"


def _uneven(counts: Counter[str]) -> bool:
    return max(counts.values()) > 2 * min(counts.values())


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{short(name)} {count}" for name, count in counts.most_common(8))


def contained_choices(file: PromptFile) -> Found:
    for where, choices in choice_sets(file):
        for a, b in combinations(sorted(set(choices), key=len), 2):
            if b.startswith(a) and a:
                effect = "the shorter is often likelier for its length alone"
                yield (
                    where,
                    f"the choice {short(a)} is the beginning of {short(b)}: {effect}; reword, or set normalize",
                )


def shared_beginnings(file: PromptFile, encode: Callable[[str], list[int]] | None) -> Found:
    for where, choices in choice_sets(file):
        for a, b in combinations(dict.fromkeys(choices), 2):
            if a.split()[:1] != b.split()[:1] or a.startswith(b) or b.startswith(a):
                continue
            count = ""
            if encode is not None:
                one, two = encode(file.answer_sep + a), encode(file.answer_sep + b)
                same = common_length(one, two)
                count = f" by {same} of {len(one)} and {len(two)} tokens"
            message = f"the choices {short(a)} and {short(b)} begin alike{count}: only the rest tells them apart"
            yield where, f"{message}, which normalize = token or byte dilutes; reword if you can"
            break


def is_scored(item: Item) -> bool:
    """Whether the item is answered by log-likelihood."""
    return bool(item.choices or item.contexts)


def stands_alone(file: PromptFile) -> bool:
    """Whether some run begins with the item itself: no description, no examples."""
    return not file.description and 0 in file.shots.n


def nothing_before(file: PromptFile) -> Found:
    """Empty texts that choices are scored after: not every tokenizer has a token that can stand there."""
    for item in file.items:
        if is_scored(item):
            prompts = render_choices(replace(file, description=""), [], item)
            own = [*prompts.own, *prompts.content_free] if stands_alone(file) else []
            if not all(prompt.text.strip() for prompt in (*own, *prompts.unconditional)):
                after = (
                    "they are scored after the model's start token, or what separates its documents"
                )
                yield (
                    item.where,
                    f"no text stands before choices: {after}; give a model to see if it has one",
                )


def choice_sets(file: PromptFile) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each set of choices once, with the first item that has it."""
    first: dict[tuple[str, ...], str] = {}
    for item in file.items:
        if item.choices:
            first.setdefault(
                item.choices, str(file.path) if item.choices == file.choices else item.where
            )
    for choices, where in first.items():
        yield where, choices

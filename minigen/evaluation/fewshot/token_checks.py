"""The checks that need a tokenizer: where prompt and answer meet, and whether all of it fits the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from minigen.evaluation.fewshot.choice_checks import is_scored, stands_alone
from minigen.evaluation.fewshot.file import Item, PromptFile
from minigen.evaluation.fewshot.finding import Finding, Found, gather
from minigen.evaluation.fewshot.layout import (
    Prompt,
    choose_examples,
    prefix,
    render,
    render_choices,
)
from minigen.evaluation.fewshot.source import short
from minigen.evaluation.fewshot.stretch import Encode, Stretch, stretch, unequal_ends
from minigen.generation.shared_text import common_length

STAND_IN = (
    0  # a prefix token for prompts that a run never begins with: something stands before them
)

Scored = tuple[Item, list[Stretch]]  # an item and its own prompts, with nothing before them

# Two texts encoded apart may have a few tokens more or fewer than together. What is this near to the limit is
# encoded whole; encoding every item behind all of its examples would take minutes for nothing.
SLACK = 16


def check_tokens(
    file: PromptFile,
    encode: Encode,
    context: int | None,
    max_new: int | None,
    prefix_id: int | None,
) -> list[Finding]:
    """See `check`. Raises what `encode` raises for a text for which the tokenizer has no ids."""
    own = [
        (item, [stretch(encode, p) for p in _alone(file, item)])
        for item in file.items
        if is_scored(item)
    ]
    findings = gather("error", _unscored(file, own, encode, prefix_id))
    findings += gather("warning", _joins(file, encode))
    findings += gather("warning", _melted(own))
    if context is not None:
        new = max_new if max_new is not None else file.generate.get("max_tokens") or 1
        for n in file.shots.n:
            findings += gather("error", _too_long(file, encode, context, new, n))
    return findings


def _unscored(
    file: PromptFile, own: Sequence[Scored], encode: Encode, prefix_id: int | None
) -> Found:
    """Choices that a run would refuse: without a token, with nothing before it, or without a stretch in common."""
    before = prefix_id if stands_alone(file) else STAND_IN
    seen: set[tuple[Prompt, int | None]] = (
        set()
    )  # what stands for the prompt is the same for most items
    for item, stretches in own:
        prompts = render_choices(replace(file, description=""), [], item)
        others = [(p, before) for p in prompts.content_free] + [
            (p, prefix_id) for p in prompts.unconditional
        ]
        new = [pair for pair in dict.fromkeys(others) if pair not in seen]
        seen.update(new)
        problems = chain(
            *(one.problems(before) for one in stretches),
            unequal_ends(stretches),
            *(stretch(encode, prompt).problems(token) for prompt, token in new),
        )
        for problem in problems:
            yield item.where, problem
            break


def _melted(own: Sequence[Scored]) -> Found:
    """Choices that change the prompt's last tokens: scored alike, but each pays for the prompt's end as well."""
    for item, stretches in own:
        for found in stretches:
            if found.melted:
                join = f"{found.prompt.text[-12:]!r} + {short(found.melting)}"
                what = f"the prompt's tokens are not the first of prompt + choice, at {join}"
                count = len(found.melted)
                last = "token is" if count == 1 else f"{count} tokens are"
                yield (
                    item.where,
                    f"{what}: its last {last} scored with each; end the template or begin answer_sep elsewhere",
                )
                break


def _joins(file: PromptFile, encode: Encode) -> Found:
    for item in file.items:
        if is_scored(item):
            continue
        for text, answer in ((p.text, a) for p in _alone(file, item) for a in p.answers):
            apart, whole = encode(text), encode(text + answer)
            at = common_length(apart, whole)
            if at < len(apart):
                join = f"{text[-12:]!r} + {short(answer)}"
                ids = f"token {apart[at]} becomes {whole[at] if at < len(whole) else 'none'}"
                cause = "the prompt's tokens are not the first of prompt + answer"
                yield (
                    item.where,
                    f"{cause}, at {join}: {ids}; end the template or begin answer_sep elsewhere",
                )
                break


def _too_long(file: PromptFile, encode: Encode, context: int, new: int, n: int) -> Found:
    """Every item of `n` shots that does not fit, the first with its exact count; more shots than examples: none."""
    if n > len(file.examples):
        return
    scored = file.score.metric == "accuracy"
    new = 0 if scored else new
    sizes = [_size(_alone(file, item), encode, scored) for item in file.items]
    first = True
    for seed in file.shots.seeds if n and file.shots.pick != "first" else file.shots.seeds[:1]:
        examples = choose_examples(file, n, seed)
        before = len(encode(prefix(file, examples)))
        for number, (item, size) in enumerate(zip(file.items, sizes, strict=True), 1):
            over = before + size + new - context
            if over > -SLACK and (first or over <= SLACK):
                size = _size(render(file, examples, item), encode, scored)
                over = size + new - context
            if over > 0:
                tokens = f"{size} tokens and {new} new" if new else f"{size} tokens"
                what = f"item {number} with {n} shots (seed {seed}) has {tokens}, and the context is {context}"
                yield (
                    item.where,
                    f"{what}; use fewer shots, shorter texts, or a model with a longer context",
                )
                first = False


def _alone(file: PromptFile, item: Item) -> list[Prompt]:
    """The item's prompts with nothing before them: not the examples, not the description."""
    return render(replace(file, description=""), [], item)


def _size(prompts: list[Prompt], encode: Encode, scored: bool) -> int:
    """The tokens of the longest of an item's prompts, with the answer where that is scored."""
    return max(
        len(encode(p.text + a))
        for p in prompts
        for a in ((p.answers or ("",)) if scored else ("",))
    )

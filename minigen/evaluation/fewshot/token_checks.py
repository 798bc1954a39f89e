"""The checks that need a tokenizer: where prompt and answer meet, and whether all of it fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from minigen.evaluation.fewshot.choice_checks import is_scored, starts_with_item
from minigen.evaluation.fewshot.file import Item, PromptFile
from minigen.evaluation.fewshot.finding import Finding, Problems, gather
from minigen.evaluation.fewshot.layout import (
    Prompt,
    choose_examples,
    prefix,
    render,
    render_choices,
    run_seeds,
)
from minigen.evaluation.fewshot.source import short
from minigen.evaluation.fewshot.stretch import Encode, Stretch, stretch, unequal_ends
from minigen.generation.shared_text import common_length

STAND_IN = 0  # a prefix token for prompts that never begin a text: something stands before them

ScoredItem = tuple[Item, list[Stretch]]  # with the stretches of its prompts, nothing before them

# Two texts encoded apart may have a few tokens more or fewer than encoded together. Only a size
# this near to the limit is counted exactly: to encode every item after all of its examples would
# take minutes.
SLACK = 16


def check_tokens(
    file: PromptFile,
    encode: Encode,
    context: int | None,
    max_new: int | None,
    prefix_id: int | None,
) -> list[Finding]:
    """The findings of `check` that need tokens; arguments as there. Raises what `encode` raises."""
    scored: list[ScoredItem] = []
    for item in file.items:
        if is_scored(item):
            scored.append((item, [stretch(encode, prompt) for prompt in _item_alone(file, item)]))
    findings = gather("error", _cannot_be_scored(file, scored, encode, prefix_id))
    findings += gather("warning", _merged_answers(file, encode))
    findings += gather("warning", _merged_choices(scored))
    if context is not None:
        if max_new is None:
            max_new = file.generate.get("max_tokens") or 1
        for n in file.shots.n:
            findings += gather("error", _too_long(file, encode, context, max_new, n))
    return findings


def _cannot_be_scored(
    file: PromptFile, scored: Sequence[ScoredItem], encode: Encode, prefix_id: int | None
) -> Problems:
    """Choices that a run refuses: no token, nothing before them, or no common stretch."""
    item_prefix = prefix_id if starts_with_item(file) else STAND_IN
    seen: set[tuple[Prompt, int | None]] = set()  # most items share the prompts without content
    for item, stretches in scored:
        rendered = render_choices(replace(file, description=""), [], item)
        others = [(prompt, item_prefix) for prompt in rendered.content_free]
        others += [(prompt, prefix_id) for prompt in rendered.unconditional]
        problems: list[Iterator[str]] = [one.problems(item_prefix) for one in stretches]
        problems.append(unequal_ends(stretches))
        for prompt, token in others:
            if (prompt, token) not in seen:
                seen.add((prompt, token))
                problems.append(stretch(encode, prompt).problems(token))
        for problem in chain.from_iterable(problems):
            yield item.where, problem
            break


def _merged_choices(scored: Sequence[ScoredItem]) -> Problems:
    """Choices that change the prompt's last tokens, so that the prompt's end is scored as well."""
    for item, stretches in scored:
        for one in stretches:
            if not one.merged:
                continue
            last = "token is"
            if len(one.merged) > 1:
                last = f"{len(one.merged)} tokens are"
            yield (
                item.where,
                "the prompt's tokens are not the first of prompt + choice, "
                f"at {one.prompt.text[-12:]!r} + {short(one.merging_answer)}: its last {last} "
                "scored with each choice; end the template or begin answer_sep elsewhere",
            )
            break


def _merged_answers(file: PromptFile, encode: Encode) -> Problems:
    """Known answers that merge with the end of the prompt, so that a run cannot match them."""
    for item in file.items:
        if is_scored(item):
            continue
        for prompt in _item_alone(file, item):
            problem = _merge_problem(encode, prompt)
            if problem is not None:
                yield item.where, problem
                break


def _merge_problem(encode: Encode, prompt: Prompt) -> str | None:
    for answer in prompt.answers:
        apart = encode(prompt.text)
        together = encode(prompt.text + answer)
        shared = common_length(apart, together)
        if shared < len(apart):
            becomes = str(together[shared]) if shared < len(together) else "none"
            return (
                "the prompt's tokens are not the first of prompt + answer, "
                f"at {prompt.text[-12:]!r} + {short(answer)}: token {apart[shared]} becomes "
                f"{becomes}; end the template or begin answer_sep elsewhere"
            )
    return None


def _too_long(file: PromptFile, encode: Encode, context: int, max_new: int, n: int) -> Problems:
    """Every item with `n` shots that does not fit; the first has an exact count."""
    if n > len(file.examples):
        return  # an error of its own
    with_answers = file.score.metric == "accuracy"
    new = 0 if with_answers else max_new
    alone = [_size(_item_alone(file, item), encode, with_answers) for item in file.items]
    reported = False
    for seed in run_seeds(file, n):
        examples = choose_examples(file, n, seed)
        before = len(encode(prefix(file, examples)))
        for number, item in enumerate(file.items, 1):
            size = before + alone[number - 1]
            excess = size + new - context
            if excess > -SLACK and (not reported or excess <= SLACK):
                size = _size(render(file, examples, item), encode, with_answers)
                excess = size + new - context
            if excess > 0:
                tokens = f"{size} tokens"
                if new:
                    tokens += f" and {new} new"
                yield (
                    item.where,
                    f"item {number} with {n} shots (seed {seed}) has {tokens}, and the context is "
                    f"{context}; use fewer shots, shorter texts, or a model with a longer context",
                )
                reported = True


def _item_alone(file: PromptFile, item: Item) -> list[Prompt]:
    """The item's prompts with nothing before them: neither the examples nor the description."""
    return render(replace(file, description=""), [], item)


def _size(prompts: list[Prompt], encode: Encode, with_answers: bool) -> int:
    """The tokens of the longest of an item's prompts, including its answer where that is scored."""
    longest = 0
    for prompt in prompts:
        answers: Sequence[str] = ("",)
        if with_answers and prompt.answers:
            answers = prompt.answers
        for answer in answers:
            longest = max(longest, len(encode(prompt.text + answer)))
    return longest

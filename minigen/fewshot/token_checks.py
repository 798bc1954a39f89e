"""The checks that need a tokenizer: where prompt and answer meet, and whether all of it fits the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from minigen.fewshot.file import Item, PromptFile
from minigen.fewshot.finding import Finding, Found, common, gather
from minigen.fewshot.layout import Prompt, choose_examples, prefix, render
from minigen.fewshot.source import short

Encode = Callable[[str], list[int]]

# Two texts encoded apart may have a few tokens more or fewer than together. What is this near to the limit is
# encoded whole; encoding every item behind all of its examples would take minutes for nothing.
SLACK = 16


def check_tokens(file: PromptFile, encode: Encode, context: int | None, max_new: int | None) -> list[Finding]:
    """See `check`. Raises what `encode` raises for a text for which the tokenizer has no ids."""
    findings = gather("warning", _joins(file, encode))
    if context is not None:
        new = max_new if max_new is not None else file.generate.get("max_tokens") or 1
        for n in file.shots.n:
            findings += gather("error", _too_long(file, encode, context, new, n))
    return findings


def _joins(file: PromptFile, encode: Encode) -> Found:
    for item in file.items:
        for text, answer in ((p.text, a) for p in _alone(file, item) for a in p.answers):
            apart, whole = encode(text), encode(text + answer)
            at = common(apart, whole)
            if at < len(apart):
                join = f"{text[-12:]!r} + {short(answer)}"
                ids = f"token {apart[at]} becomes {whole[at] if at < len(whole) else 'none'}"
                cause = "the prompt's tokens are not the first of prompt + answer"
                yield item.where, f"{cause}, at {join}: {ids}; end the template or begin answer_sep elsewhere"
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
                yield item.where, f"{what}; use fewer shots, shorter texts, or a model with a longer context"
                first = False


def _alone(file: PromptFile, item: Item) -> list[Prompt]:
    """The item's prompts with nothing before them: not the examples, not the description."""
    return render(replace(file, description=""), [], item)


def _size(prompts: list[Prompt], encode: Encode, scored: bool) -> int:
    """The tokens of the longest of an item's prompts, with the answer where that is scored."""
    return max(len(encode(p.text + a)) for p in prompts for a in ((p.answers or ("",)) if scored else ("",)))

"""How well a model predicts a text: log-probabilities of its tokens, perplexity, bits per byte.

The protocol. A text is encoded once, without what the tokenizer's files put before every text (`<s>`, say; the start
tokens), and read in windows of the model's context. Each window begins from nothing with the start tokens, and the last
token in it is only predicted, so it holds at most as many tokens as the context. By default every token is scored once,
and windows overlap only where there are no start tokens: then the last token of a window is also the first of the next,
or that one would have nothing to be predicted from. With a stride S the windows begin S tokens apart, and each scores
what the ones before have not; the last one ends with the text. A recurrent model has no windows: its state goes on from
the beginning of the text to the end.

Where there are no start tokens, the first token of a text is context alone: it is neither scored nor are its bytes
counted. In all other cases the bytes are those of the text in UTF-8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigen.errors import ContextError, MinigenError, UsageError
from minigen.evaluation.scoring import token_logprobs
from minigen.generation.reader import BLOCK, Runner
from minigen.generation.rows import check_ids
from minigen.model import Model
from minigen.reading.settings import Range
from minigen.tokenizer import Tokenizer

Progress = Callable[
    [int, int], None
]  # told after each pass: tokens read so far, tokens to read in all


@dataclass(frozen=True)
class TextScore:
    """The scored tokens of a text or of several, each with its log-probability in nats, and their bytes."""

    ids: list[int]
    logprobs: npt.NDArray[np.float64]
    bytes: int

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def nats(self) -> float:
        return -float(self.logprobs.sum())

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(nats per token); infinite where that is beyond a float."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 709 else math.inf

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes if self.bytes else math.inf


class Window(NamedTuple):
    """Tokens `begin` to `end` of a text, of which those from `first` on are scored."""

    begin: int
    end: int
    first: int


def score_text(
    model: Model,
    text: str,
    *,
    stride: int | None = None,
    window: int | None = None,
    split: str | None = None,
    progress: Progress = lambda done, total: None,
) -> TextScore:
    """Scores a text by the protocol above; `window` is a smaller one than the model's context, in tokens.

    With `split` the text is several, between occurrences of that string, which is itself no part of any: white space
    at the ends of each is taken off, empty ones are dropped, each is scored from nothing, and the sums are added up.
    Raises UsageError for a text with nothing to score or a setting out of range, ContextError for a context that is
    too small, TokenizerError for a text that has no ids, MinigenError where the model produces NaN.
    """
    tokenizer, config = model.needed_tokenizer, model.architecture
    start = list(tokenizer.start_ids)
    size = window_size(window, config.context, len(start))
    stride = check_stride(stride, size, len(start))
    if split == "":
        raise UsageError("the text to split at is empty: give the separator of the documents")
    texts = (
        [text] if split is None else [part for part in map(str.strip, text.split(split)) if part]
    )
    documents = [tokenizer.encode(part, bos=False) for part in texts]
    plans = [windows(len(ids), size, stride, len(start)) for ids in documents]
    if not any(plans):
        raise UsageError(
            "the text has nothing to score: it needs two tokens, or one where the model has a start token"
        )
    total = sum(len(start) + w.end - w.begin - 1 for plan in plans for w in plan)
    done = 0

    def read(tokens: int) -> None:
        nonlocal done
        done += tokens
        progress(done, total)

    scored: list[int] = []
    found: list[npt.NDArray[np.float64]] = []
    count = 0
    for part, ids, plan in zip(texts, documents, plans, strict=True):
        for w in plan:
            line = start + ids[w.begin : w.end]
            found.append(line_logprobs(model.runner, line, len(start) + w.first - w.begin, read))
            scored += ids[w.first : w.end]
        count += count_bytes(tokenizer, part, ids) if plan else 0
    return TextScore(scored, np.concatenate(found), count)


def window_size(window: int | None, context: int | None, start: int) -> int | None:
    """Tokens in a window, or None for the whole text."""
    if window is not None:
        Range(whole=True, least=1, most=context).check("window", window)
    size = context if window is None else window
    if size is not None and size < 2:
        raise ContextError(f"a window of {size} token leaves none to predict from: it takes 2")
    if size is not None and size <= start:
        raise ContextError(
            f"a window of {size} tokens has no room beside the {start} that begin every text"
        )
    return size


def check_stride(stride: int | None, size: int | None, start: int) -> int | None:
    """The stride to take; without one, that by which no token is scored twice or left out."""
    if size is None:
        if stride is not None:
            raise UsageError(
                f"stride is {stride}: this model reads a text in one go; drop it, or give a window"
            )
        return None
    longest = size - max(start, 1)
    if stride is None:
        return longest
    Range(whole=True, least=1, most=longest).check("stride", stride)
    return stride


def windows(tokens: int, size: int | None, stride: int | None, start: int) -> list[Window]:
    """The windows over a text of so many tokens, after `start` start tokens each; none where nothing can be scored."""
    first = 0 if start else 1
    if tokens <= first:
        return []
    if size is None or stride is None:
        return [Window(0, tokens, first)]
    room, plan = size - start, list[Window]()
    for begin in range(0, tokens, stride):
        end = min(begin + room, tokens)
        plan.append(Window(begin, end, first))
        first = end
        if end == tokens:
            break
    return plan


def line_logprobs(
    runner: Runner,
    ids: Sequence[int],
    first: int = 1,
    read: Callable[[int], None] = lambda tokens: None,
) -> npt.NDArray[np.float64]:
    """Log-probabilities (len(ids) - first,) in nats of the tokens from `first` on, each given all before it.

    The tokens are read from an empty state in blocks, and of a block's logits only what is asked for leaves the device,
    so that a text of any length takes the memory of one block beside its state. `read` is told the tokens of each.
    """
    assert 1 <= first < len(ids)
    check_ids(ids, runner.architecture.vocab_size)
    ops, last = runner.ops, len(ids) - 1  # the last token predicts nothing that is asked for
    state: Any = runner.architecture.new_state(ops, 1, last)
    found: list[npt.NDArray[Any]] = []
    for begin in range(0, last, BLOCK):
        end = min(begin + BLOCK, last)
        at = range(max(begin, first - 1), end)  # the tokens whose next one is scored
        logits = runner.read([list(ids[begin:end])], state, [i - begin for i in at] or (-1,))[0]
        if at:
            found.append(token_logprobs(ops, logits, range(len(at)), ids[at.start + 1 : end + 1]))
        else:
            ops.sync(logits)
        read(end - begin)
    logprobs = np.concatenate(found).astype(np.float64)
    if np.isnan(logprobs).any():
        raise MinigenError(
            "the model produced NaN as a logit: check its weights, or run it in float32"
        )
    return logprobs


def count_bytes(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> int:
    """Bytes of the scored tokens: all of the text's, less those of a first token that nothing predicts."""
    raw = text.encode("utf-8")
    if tokenizer.start_ids:
        return len(raw)
    first = tokenizer.token_bytes(ids[0])
    if not raw.startswith(first):
        first = first.lstrip(b" ")  # many tokenizers put a space before a text that has none
    return max(len(raw) - len(first), 0)

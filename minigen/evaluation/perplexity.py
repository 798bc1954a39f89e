"""How well a model predicts a text: log-probabilities of its tokens, perplexity, bits per byte.

The protocol. A text is encoded once, without the start tokens that a tokenizer puts before every
text (`<s>`, say), and read in windows of the model's context. Each window starts from an empty
state with the start tokens. Its last token is only predicted, never read, so a window holds at most
as many tokens as the context.

By default every token is scored once. Windows overlap only where there are no start tokens: the
last token of a window is then also the first of the next, which would otherwise have nothing to be
predicted from. With a stride S the windows begin S tokens apart, and each scores the tokens that
the windows before it did not; the last window ends with the text. A recurrent model has no windows:
its state runs from the beginning of the text to the end.

Where there are no start tokens, the first token of a text is only context: neither the token nor
its bytes are counted. In all other cases the bytes are those of the text in UTF-8.
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

Progress = Callable[[int, int], None]  # called after each pass: tokens read so far, tokens in all


@dataclass(frozen=True)
class TextScore:
    """The scored tokens of one or several texts, their log-probabilities in nats, their bytes."""

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
        """exp(nats per token); infinite where a float cannot hold it."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 709 else math.inf

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes if self.bytes else math.inf


class Window(NamedTuple):
    """Tokens `begin` to `end` of a text, of which those from `first` on are scored."""

    begin: int
    end: int
    first: int


class Document(NamedTuple):
    """A text, its token ids, and its windows; without windows it has nothing to score."""

    text: str
    ids: list[int]
    windows: list[Window]


def score_text(
    model: Model,
    text: str,
    *,
    stride: int | None = None,
    window: int | None = None,
    split: str | None = None,
    progress: Progress | None = None,
) -> TextScore:
    """Scores a text by the protocol of this module.

    Args:
        model: the model that predicts the text.
        text: the text, or several texts if `split` is given.
        stride: tokens between the beginnings of two windows; None: every token is scored once.
        window: tokens in a window, at most the model's context; None: the context.
        split: a string that separates documents and belongs to none of them. Each document is
            stripped of white space at its ends, dropped if it is empty, and scored from an empty
            state; their sums are added up.
        progress: called after each pass with the tokens read so far and the tokens to read in all.

    Raises UsageError: the text has nothing to score, or a setting is out of range.
    Raises ContextError: the context is too small.
    Raises TokenizerError: the text cannot be encoded.
    Raises MinigenError: the model produced NaN.
    """
    tokenizer = model.needed_tokenizer
    start = list(tokenizer.start_ids)
    size = window_size(window, model.architecture.context, len(start))
    stride = check_stride(stride, size, len(start))
    documents: list[Document] = []
    total = 0  # tokens to read
    for part in split_text(text, split):
        ids = tokenizer.encode(part, bos=False)
        document = Document(part, ids, windows(len(ids), size, stride, len(start)))
        documents.append(document)
        for w in document.windows:
            total += len(start) + w.end - w.begin - 1
    if not any(document.windows for document in documents):
        raise UsageError(
            "the text has nothing to score: it needs at least two tokens, or one if the model has "
            "a start token"
        )
    done = 0

    def on_read(tokens: int) -> None:
        nonlocal done
        done += tokens
        if progress is not None:
            progress(done, total)

    scored_ids: list[int] = []
    logprobs: list[npt.NDArray[np.float64]] = []
    byte_count = 0
    for document in documents:
        for w in document.windows:
            ids = start + document.ids[w.begin : w.end]
            first = len(start) + w.first - w.begin
            logprobs.append(line_logprobs(model.runner, ids, first, on_read))
            scored_ids += document.ids[w.first : w.end]
        if document.windows:
            byte_count += count_bytes(tokenizer, document.text, document.ids)
    return TextScore(scored_ids, np.concatenate(logprobs), byte_count)


def split_text(text: str, separator: str | None) -> list[str]:
    """The documents of a text: all of it, or the stripped, non-empty parts between separators."""
    if separator is None:
        return [text]
    if separator == "":
        raise UsageError(
            "the string to split at is empty: give the separator between the documents"
        )
    parts = [part.strip() for part in text.split(separator)]
    return [part for part in parts if part]


def window_size(window: int | None, context: int | None, start: int) -> int | None:
    """Tokens in a window with `start` start tokens, or None for the whole text."""
    if window is not None:
        Range(whole=True, least=1, most=context).check("window", window)
    size = context if window is None else window
    if size is not None and size < 2:
        raise ContextError(
            f"a window of {size} token leaves no token to predict from: it must have at least 2"
        )
    if size is not None and size <= start:
        raise ContextError(
            f"a window of {size} tokens has no room after the {start} that begin every text"
        )
    return size


def check_stride(stride: int | None, size: int | None, start: int) -> int | None:
    """The stride to use; the default is the one by which every token is scored exactly once."""
    if size is None:
        if stride is not None:
            raise UsageError(
                f"stride is {stride}: this model reads a text in one piece; drop it, or give a "
                "window"
            )
        return None
    longest = size - max(start, 1)
    if stride is None:
        return longest
    Range(whole=True, least=1, most=longest).check("stride", stride)
    return stride


def windows(tokens: int, size: int | None, stride: int | None, start: int) -> list[Window]:
    """The windows over a text of `tokens` tokens; none if it has nothing to score.

    `size` includes the `start` start tokens at the beginning of each window.
    """
    first = 0 if start else 1
    if tokens <= first:
        return []
    if size is None or stride is None:
        return [Window(0, tokens, first)]
    result: list[Window] = []
    for begin in range(0, tokens, stride):
        end = min(begin + size - start, tokens)
        result.append(Window(begin, end, first))
        first = end
        if end == tokens:
            break
    return result


def line_logprobs(
    runner: Runner,
    ids: Sequence[int],
    first: int = 1,
    on_read: Callable[[int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Log-probabilities (len(ids) - first,) in nats of the tokens from `first` on, in order.

    Each is given all tokens before it. The tokens are read from an empty state in blocks, and only
    the log-probabilities leave the device: whatever the length of the text, it takes the memory of
    its state and of the logits of one block. `on_read` is called with the tokens of each block.
    """
    assert 1 <= first < len(ids)
    check_ids(ids, runner.architecture.vocab_size)
    ops = runner.ops
    to_read = len(ids) - 1  # the last token predicts nothing that is scored
    state: Any = runner.architecture.new_state(ops, 1, to_read)
    blocks: list[npt.NDArray[Any]] = []
    for begin in range(0, to_read, BLOCK):
        end = min(begin + BLOCK, to_read)
        scored_from = max(begin, first - 1)  # tokens of this block whose next token is scored
        positions = [i - begin for i in range(scored_from, end)]
        logits = runner.read([list(ids[begin:end])], state, positions or (-1,))[0]
        if positions:
            next_ids = ids[scored_from + 1 : end + 1]
            blocks.append(token_logprobs(ops, logits, range(len(positions)), next_ids))
        else:
            ops.sync(logits)
        if on_read is not None:
            on_read(end - begin)
    logprobs = np.concatenate(blocks).astype(np.float64)
    if np.isnan(logprobs).any():
        raise MinigenError(
            "the model produced NaN as a logit: check its weights, or run it in float32"
        )
    return logprobs


def count_bytes(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> int:
    """Bytes of the scored tokens: those of the text, less a first token that nothing predicts."""
    encoded = text.encode("utf-8")
    if tokenizer.start_ids:
        return len(encoded)
    first = tokenizer.token_bytes(ids[0])
    if not encoded.startswith(first):
        first = first.lstrip(b" ")  # many tokenizers put a space before a text that has none
    return max(len(encoded) - len(first), 0)

"""What every tokenizer offers, and text that comes out token by token.

No tokenizer library is imported here. A tokenizer that can say which bytes a token stands for gets exact
decoding and streaming from this file; one that cannot overrides `decode` and `stream` (see huggingface.py).
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from minigen.errors import TokenizerError, UsageError

SEPARATOR = "<|endoftext|>"  # what many tokenizers call the token between documents, whatever else ends an answer


@dataclass(frozen=True)
class Controls:
    """The control tokens of a tokenizer, and which of them begin and end a text."""

    special_tokens: dict[str, int] = field(default_factory=dict)  # text -> id
    bos_id: int | None = None
    eos_id: int | None = None
    start_ids: tuple[int, ...] = ()  # what the tokenizer's own files put before every text


class StreamDecoder(ABC):
    """Text from tokens that come one at a time: never half a character, never a lost leading space."""

    @abstractmethod
    def push(self, token_id: int) -> str:
        """The text that is certain now and was not given before; often empty inside a character."""

    @abstractmethod
    def finish(self) -> str:
        """What was held back; an incomplete character comes as U+FFFD. Push nothing after it."""


class ByteStream(StreamDecoder):
    """Exact: each token stands for some bytes, so an incremental UTF-8 decoder is all the state there is."""

    def __init__(self, token_bytes: Callable[[int], bytes], prompt_ids: Iterable[int], strip: int) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = strip  # spaces that may still be taken from the very beginning of the text
        for token_id in prompt_ids:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        return self._begin(self._utf8.decode(self._token_bytes(token_id)))

    def finish(self) -> str:
        return self._begin(self._utf8.decode(b"", final=True))

    def _begin(self, text: str) -> str:
        if self._strip and text:
            kept = strip_spaces(text, self._strip)
            self._strip = 0 if kept else self._strip - len(text)
            return kept
        return text


class Tokenizer(ABC):
    """Text to ids and back.

    `encode` and `decode` are not each other's inverse at the edges: a tokenizer's files may put a token
    before the text and may take a space from its beginning, and bytes that are no UTF-8 become U+FFFD.
    """

    kind: str  # "tiktoken" | "tokenizers" | "characters" | "bytes"

    def __init__(self, vocab_size: int, controls: Controls, *, strip: int = 0) -> None:
        self.vocab_size = vocab_size  # every id is below it
        self.special_tokens = dict(controls.special_tokens)
        self.bos_id = controls.bos_id
        self.eos_id = controls.eos_id
        self.start_ids = controls.start_ids
        self._special_ids = frozenset(self.special_tokens.values())
        self._strip = strip  # how many leading spaces the decoder takes from the whole text

    def encode(self, text: str, *, bos: bool = True, special: bool = False) -> list[int]:
        """The ids of `text`, after what the tokenizer's files put before every text unless `bos` is False.

        Nothing is ever added at the end. The text of a control token becomes that token only with `special`
        (for text that the program wrote, such as a chat template); otherwise it is text like any other. A text that
        begins with the start tokens, written out, gets no second ones.

        Raises TokenizerError: the text is not valid Unicode, or this tokenizer has no ids for it.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise TokenizerError(
                f"the text is not valid Unicode: lone surrogate U+{code:04X} at position {error.start}; "
                "was it read from a file or argument that is not UTF-8?"
            ) from None
        ids = self._encode_with_special(text) if special else self._encode_plain(text)
        has_start = special and tuple(ids[: len(self.start_ids)]) == self.start_ids
        return [*self.start_ids, *ids] if bos and not has_start else ids

    @property
    def begin_id(self) -> int | None:
        """The token after which a text begins that has nothing before it; None where this tokenizer has none.

        That is bos, from which transformers begins an empty input and lm-evaluation-harness an empty context. Without
        one it is the token that separates documents: `<|endoftext|>` where it is a control token, as a chat model's
        eos ends answers, else eos.
        """
        known = (self.bos_id, self.special_tokens.get(SEPARATOR), self.eos_id)
        return next((token for token in known if token is not None), None)

    def encode_prompt(self, text: str, *, special: bool = False) -> list[int]:
        """The ids that a model goes on from: those of `encode`, or for an empty text where a document begins.

        That is after the start tokens or, where the tokenizer's files put none before a text, after `begin_id`.

        Raises TokenizerError: as `encode`.
        Raises UsageError: the text is empty, and there is no such token.
        """
        ids = self.encode(text, special=special)
        if ids or text:
            return ids
        if self.begin_id is not None:
            return [self.begin_id]
        raise UsageError(
            "the prompt is empty, and this model's tokenizer has no token that begins texts or separates them: give "
            "some text"
        )

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of `ids`. Bytes that are no UTF-8 become U+FFFD; an id that stands for nothing (a model's
        vocabulary is often padded) gives nothing, as do control tokens unless `skip_special` is False.
        """
        token_bytes = self._text_bytes if skip_special else self.token_bytes
        text = b"".join(map(token_bytes, ids)).decode("utf-8", "replace")
        return strip_spaces(text, self._strip)

    def stream(self, prompt_ids: Sequence[int] = ()) -> StreamDecoder:
        """A decoder for what follows `prompt_ids`: all it gives is what `decode` has beyond the prompt's
        text.
        """
        return ByteStream(self._text_bytes, prompt_ids, self._strip)

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; for a control token those of its name."""

    @abstractmethod
    def _encode_plain(self, text: str) -> list[int]: ...

    def _encode_with_special(self, text: str) -> list[int]:
        return self._encode_plain(text)

    def _text_bytes(self, token_id: int) -> bytes:
        return b"" if token_id in self._special_ids else self.token_bytes(token_id)


def strip_spaces(text: str, count: int) -> str:
    """`text` without its leading spaces, but at most `count` of them."""
    spaces = len(text) - len(text.lstrip(" "))
    return text[min(spaces, count) :]


@contextmanager
def library_errors(doing: str) -> Iterator[None]:
    """Turns what the tokenizer libraries raise into one line: they are Rust, raise plain Exception, and
    panic.
    """
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        # A Rust panic is a BaseException whose class cannot be imported; only its name tells.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{doing}: {reason or type(error).__name__}") from None

"""What every tokenizer offers, and text that is produced token by token.

No tokenizer library is imported here. A tokenizer that knows the bytes of each token gets exact
decoding and streaming from this file; others override `decode` and `stream` (see huggingface.py).
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from minigen.errors import TokenizerError, UsageError

SEPARATOR = "<|endoftext|>"  # the token between documents in many tokenizers


@dataclass(frozen=True)
class Controls:
    """The control tokens of a tokenizer, and which of them begin and end a text.

    Fields:
        special_tokens: The id of each control token, by its text.
        bos_id: The token that begins a text.
        eos_id: The token that ends a text.
        start_ids: What the tokenizer's files put before every text.
    """

    special_tokens: dict[str, int] = field(default_factory=dict)
    bos_id: int | None = None
    eos_id: int | None = None
    start_ids: tuple[int, ...] = ()


class StreamDecoder(ABC):
    """Text from tokens that arrive one at a time, in whole characters, with leading spaces kept."""

    @abstractmethod
    def push(self, token_id: int) -> str:
        """The text that is certain now and was not returned before; "" inside a character."""

    @abstractmethod
    def finish(self) -> str:
        """The remaining text; an incomplete character is U+FFFD. Push nothing after it."""


class ByteStream(StreamDecoder):
    """For tokens that stand for bytes: an incremental UTF-8 decoder is all the state it needs."""

    def __init__(
        self, token_bytes: Callable[[int], bytes], prompt_ids: Iterable[int], strip: int
    ) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = strip  # spaces that may still be removed from the beginning of the text
        for token_id in prompt_ids:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        return self._begin(self._utf8.decode(self._token_bytes(token_id)))

    def finish(self) -> str:
        return self._begin(self._utf8.decode(b"", final=True))

    def _begin(self, text: str) -> str:
        """`text` without the spaces that are removed from the beginning of the whole text."""
        if not self._strip or not text:
            return text
        rest = strip_spaces(text, self._strip)
        self._strip = 0 if rest else self._strip - len(text)
        return rest


class Tokenizer(ABC):
    """Text to ids and back.

    `encode` and `decode` are not exact inverses: a tokenizer's files may put a token before the
    text and may remove a space from its beginning, and bytes that are not UTF-8 become U+FFFD.

    Attributes:
        kind: "tiktoken", "tokenizers", "characters" or "bytes".
        vocab_size: Every id is below it.
        special_tokens, bos_id, eos_id, start_ids: As in `Controls`.
    """

    kind: str

    def __init__(self, vocab_size: int, controls: Controls, *, strip: int = 0) -> None:
        """`strip` is how many leading spaces `decode` removes from the whole text."""
        self.vocab_size = vocab_size
        self.special_tokens = dict(controls.special_tokens)
        self.bos_id = controls.bos_id
        self.eos_id = controls.eos_id
        self.start_ids = controls.start_ids
        self._special_ids = frozenset(self.special_tokens.values())
        self._strip = strip

    def encode(self, text: str, *, bos: bool = True, special: bool = False) -> list[int]:
        """The ids of `text`. Nothing is ever added at the end.

        Args:
            text: The text.
            bos: Whether to put before it what the tokenizer's files put before every text. With
                `special`, a text that begins with these tokens gets them only once.
            special: Whether the text of a control token becomes that token, for text that the
                program wrote, such as a chat template. Otherwise it is ordinary text.

        Raises TokenizerError: the text is not valid Unicode, or this tokenizer has no ids
        for it.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise TokenizerError(
                f"the text is not valid Unicode: lone surrogate U+{code:04X} at position "
                f"{error.start}; was it read from a file or argument that is not UTF-8?"
            ) from None
        if special:
            ids = self._encode_with_special(text)
            has_start = tuple(ids[: len(self.start_ids)]) == self.start_ids
        else:
            ids = self._encode_plain(text)
            has_start = False
        if not bos or has_start:
            return ids
        return [*self.start_ids, *ids]

    @property
    def begin_id(self) -> int | None:
        """The token to generate from if there is no text; None if this tokenizer has none.

        It is bos, as in transformers for an empty input and in lm-evaluation-harness for an empty
        context. Without bos it is the token between documents: `<|endoftext|>` if that is a control
        token, since a chat model's eos ends answers, else eos.
        """
        for token in (self.bos_id, self.special_tokens.get(SEPARATOR), self.eos_id):
            if token is not None:
                return token
        return None

    def encode_prompt(self, text: str, *, special: bool = False) -> list[int]:
        """The ids that a model continues: those of `encode`, or the start of a document.

        For an empty text these are the start tokens or, if there are none, `begin_id`.

        Raises TokenizerError: as `encode`.
        Raises UsageError: the text is empty, and there is no such token.
        """
        ids = self.encode(text, special=special)
        if ids or text:
            return ids
        if self.begin_id is not None:
            return [self.begin_id]
        raise UsageError(
            "the prompt is empty, and this model's tokenizer has no token that begins or separates "
            "texts: give some text"
        )

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of `ids`.

        Bytes that are not UTF-8 become U+FFFD. Ids without a token are skipped (a model's
        vocabulary is often padded), and so are control tokens unless `skip_special` is False.
        """
        token_bytes = self._text_bytes if skip_special else self.token_bytes
        data = b"".join(token_bytes(token_id) for token_id in ids)
        text = data.decode("utf-8", "replace")
        return strip_spaces(text, self._strip)

    def stream(self, prompt_ids: Sequence[int] = ()) -> StreamDecoder:
        """A decoder for the tokens after `prompt_ids`.

        It returns what `decode` of all tokens has beyond the text of the prompt.
        """
        return ByteStream(self._text_bytes, prompt_ids, self._strip)

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; for a control token, those of its name."""

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
    """Turns errors of the tokenizer libraries into a TokenizerError of one line.

    They are written in Rust: they raise Exception itself, and panic.
    """
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        # A Rust panic is a BaseException whose class cannot be imported, only recognized by name.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{doing}: {reason or type(error).__name__}") from None

"""Any tokenizer.json, run by the `tokenizers` library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from minigen.errors import TokenizerError
from minigen.tokenizer.base import ByteStream, Controls, StreamDecoder, Tokenizer, library_errors
from minigen.tokenizer.limits import MOST_GROWTH, growth, has_own_patterns, without_panics
from minigen.tokenizer.proof import name_to_bytes
from minigen.tokenizer.special import AddedToken

CONTEXT = 6  # how many tokens before the new ones a decoder may depend on
WAITING = (
    8  # how many tokens may wait for their text to be certain; a character has at most 4 bytes
)
PARTS_WITH_PATTERNS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")

BYTE_TOKENS = {f"<0x{byte:02X}>": bytes((byte,)) for byte in range(256)}
BYTE_TOKENS |= {f"<0x{byte:02x}>": bytes((byte,)) for byte in range(256)}

TokenBytes = Callable[[str], bytes]


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer run by the `tokenizers` library."""

    kind = "tokenizers"

    def __init__(
        self,
        text: str,
        spec: Mapping[str, Any],
        size: int,
        controls: Controls,
        added: Iterable[AddedToken],
        *,
        source: str,
    ) -> None:
        """Creates it.

        Args:
            text: A tokenizer.json.
            spec: Its content.
            size: The number of ids.
            controls: The control tokens; they are among the added ones.
            added: All added tokens.
            source: The file, for messages.

        Raises TokenizerError: the library cannot load it, or it could make text huge.
        """
        import tokenizers

        rule, strip = bytes_rule(spec.get("decoder")) or (None, 0)
        super().__init__(size, controls, strip=strip)
        for part in ("normalizer", "decoder"):
            if growth(spec.get(part)) > MOST_GROWTH:
                raise TokenizerError(
                    f"{source}: its {part} can make more than {MOST_GROWTH:.0f} characters "
                    "from one: use another model"
                )
        self._may_panic = has_own_patterns([spec.get(name) for name in PARTS_WITH_PATTERNS])
        with library_errors(f"{source}: the tokenizers library cannot load it"), without_panics():
            self._library = tokenizers.Tokenizer.from_str(text)
            self._library.no_truncation()
            self._library.no_padding()
            ids = controls.special_tokens | {token.content: token.id for token in added}
            for name, token_id in ids.items():
                if self._library.token_to_id(name) != token_id:
                    kind = "control" if name in controls.special_tokens else "added"
                    raise TokenizerError(
                        f"{source}: the {kind} token {name!r:.60} cannot have the id {token_id}"
                    )
        self._rule = rule
        self._bytes: dict[int, bytes] = {}  # of tokens that were asked for
        # Whether control tokens are recognized is a setting of the library's object, not of a call.
        self._lock = threading.Lock()
        unknown = None
        if isinstance(spec.get("model"), dict):
            unknown = spec["model"].get("unk_token")
        self._forbidden = self._special_ids - {self.special_tokens.get(str(unknown))}

    def token_bytes(self, token_id: int) -> bytes:
        if token_id in self._bytes:
            return self._bytes[token_id]
        if not 0 <= token_id < self.vocab_size:
            return b""
        name = self._library.id_to_token(token_id)
        if name is None:
            return b""
        data: bytes = self._rule(name) if self._rule else name.encode("utf-8")
        self._bytes[token_id] = data
        return data

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        if self._rule:
            return super().decode(ids, skip_special=skip_special)
        if skip_special:
            ids = [token_id for token_id in ids if self._has_text(token_id)]
        return self._library_decode(list(ids))

    def stream(self, prompt_ids: Sequence[int] = ()) -> StreamDecoder:
        if self._rule:
            return ByteStream(self._text_bytes, prompt_ids, self._strip)
        return WindowStream(self._library_decode, self._has_text, prompt_ids)

    def _has_text(self, token_id: int) -> bool:
        """Whether a token is shown: it exists and is not a control token."""
        return 0 <= token_id < self.vocab_size and token_id not in self._special_ids

    def _library_decode(self, ids: Sequence[int]) -> str:
        known = [token_id for token_id in ids if 0 <= token_id < self.vocab_size]
        with library_errors("the tokenizers library cannot decode these ids"), self._quietly():
            return self._library.decode(known, skip_special_tokens=False)

    def _quietly(self) -> AbstractContextManager[None]:
        """A context for calls that may panic: their engine may fail on a regular expression."""
        if self._may_panic:
            return without_panics()
        return nullcontext()

    def _encode_plain(self, text: str) -> list[int]:
        ids = self._library_encode(text, special=False)
        # Some models (Unigram, WordLevel) find control tokens in their own vocabulary.
        forbidden = self._forbidden.intersection(ids)
        if forbidden:
            first = min(forbidden, key=ids.index)
            raise TokenizerError(
                f"this tokenizer would make the control token {self._library.id_to_token(first)!r} "
                "from the text: remove those characters"
            )
        return ids

    def _encode_with_special(self, text: str) -> list[int]:
        return self._library_encode(text, special=True)

    def _library_encode(self, text: str, *, special: bool) -> list[int]:
        errors = library_errors("the tokenizers library cannot encode this text")
        with self._lock, errors, self._quietly():
            self._library.encode_special_tokens = not special  # True: they are ordinary text
            return self._library.encode(text, add_special_tokens=False).ids


class WindowStream(StreamDecoder):
    """For tokens without bytes of their own: decodes the last few with and without the new one.

    It is exact if the text of a token depends only on its neighbors and on whether it is the
    first, as in WordPiece and Metaspace. While the text ends in U+FFFD it waits for the rest of a
    character, for up to WAITING tokens.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        has_text: Callable[[int], bool],
        prompt_ids: Sequence[int],
    ) -> None:
        self._decode = decode
        self._has_text = has_text
        prompt = [token_id for token_id in prompt_ids if has_text(token_id)]
        self._window = prompt[-CONTEXT - WAITING :]
        self._returned = 0  # how many tokens of the window were returned as text
        self._shrink()

    def push(self, token_id: int) -> str:
        if not self._has_text(token_id):
            return ""
        self._window.append(token_id)
        return self._new_text(wait=len(self._window) - self._returned < WAITING)

    def finish(self) -> str:
        return self._new_text(wait=False)

    def _new_text(self, *, wait: bool) -> str:
        """The text that was not returned yet; "" to `wait` for the rest of a character."""
        before, now = self._decode(self._window[: self._returned]), self._decode(self._window)
        if wait and now.endswith("\ufffd"):
            return ""
        self._shrink()
        return now[len(before) :]

    def _shrink(self) -> None:
        """Keeps CONTEXT tokens, and a few more if those begin inside a character."""
        count = CONTEXT
        while count < CONTEXT + 3 and "\ufffd" in self._decode(self._window[-count:]):
            count += 1
        del self._window[:-count]
        self._returned = len(self._window)


def bytes_rule(decoder: Any) -> tuple[TokenBytes, int] | None:
    """The rule for the bytes of a token, where the decoder has one.

    Two kinds of decoder work token by token, and nearly all models have one of them: GPT-2's byte
    alphabet, and SentencePiece's, [Replace a string]* [ByteFallback] [Fuse] [Strip]. The result
    differs from the library's in one case: in invalid UTF-8 from <0x..> tokens, the library
    replaces every byte of the run, even of valid characters, which cannot be known before the run
    ends.

    Returns:
        A function from a token's name to its bytes, and how many spaces are removed from the
        beginning of the text; or None.
    """
    steps = [decoder]
    if isinstance(decoder, dict) and "decoders" in decoder:
        steps = decoder["decoders"]
    if not isinstance(steps, list) or not steps or not all(isinstance(x, dict) for x in steps):
        return None
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return name_to_bytes, 0
    replacements: list[tuple[str, str]] = []
    while kinds[:1] == ["Replace"]:
        replacement = _replacement(steps[len(replacements)])
        if replacement is None:
            return None
        replacements.append(replacement)
        del kinds[0]
    has_fallback = kinds[:1] == ["ByteFallback"]
    if has_fallback:
        del kinds[0]
    if kinds not in ([], ["Fuse"], ["Fuse", "Strip"]):
        return None
    strip = 0
    if "Strip" in kinds:
        last = steps[-1]
        if (
            last.get("content") != " "
            or last.get("stop") != 0
            or type(last.get("start")) is not int
        ):
            return None
        strip = last["start"]

    def rule(name: str) -> bytes:
        for old, new in replacements:
            name = name.replace(old, new)
        if has_fallback and name in BYTE_TOKENS:
            return BYTE_TOKENS[name]
        return name.encode("utf-8")

    return rule, strip


def _replacement(step: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a step replaces, and by what; None if it does not replace a string."""
    pattern, content = step.get("pattern"), step.get("content")
    if not isinstance(pattern, dict) or not isinstance(content, str):
        return None
    text = pattern.get("String")
    if not isinstance(text, str) or not text:
        return None
    return text, content

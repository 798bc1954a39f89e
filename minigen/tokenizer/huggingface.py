"""Any tokenizer.json, run by the `tokenizers` library."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from minigen.errors import TokenizerError
from minigen.tokenizer.base import ByteStream, Controls, StreamDecoder, Tokenizer, library_errors
from minigen.tokenizer.limits import MOST_GROWTH, growth, has_own_patterns, without_panics
from minigen.tokenizer.proof import name_to_bytes

CONTEXT = 6  # tokens before the new ones that a decoder may look at
CUTTERS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")  # the parts that may have a pattern
HELD = 8  # tokens without a certain text; a character has at most four bytes

BYTE_TOKENS = {form.format(byte): bytes((byte,)) for byte in range(256) for form in ("<0x{:02X}>", "<0x{:02x}>")}

TokenBytes = Callable[[str], bytes]


class HuggingFaceTokenizer(Tokenizer):
    """`spec` is the content of a tokenizer.json, where every token of `controls` is an added, special one."""

    kind = "tokenizers"

    def __init__(self, text: str, spec: Mapping[str, Any], size: int, controls: Controls, *, source: str) -> None:
        import tokenizers

        rule, strip = bytes_rule(spec.get("decoder")) or (None, 0)
        super().__init__(size, controls, strip=strip)
        for part in ("normalizer", "decoder"):
            if growth(spec.get(part)) > MOST_GROWTH:
                raise TokenizerError(
                    f"{source}: its {part} can make more than {MOST_GROWTH:.0f} characters of one: take another model"
                )
        self._watched = has_own_patterns({name: spec.get(name) for name in CUTTERS})
        with library_errors(f"{source}: the tokenizers library cannot load it"), without_panics():
            self._library = tokenizers.Tokenizer.from_str(text)
            self._library.no_truncation()
            self._library.no_padding()
            for name, token_id in controls.special_tokens.items():
                if self._library.token_to_id(name) != token_id:
                    raise TokenizerError(f"{source}: the control token {name!r} cannot have the id {token_id}")
        self._rule = rule
        self._known: dict[int, bytes] = {}
        self._lock = threading.Lock()  # encode_special_tokens belongs to the library's object, not to a call
        unknown = spec["model"].get("unk_token") if isinstance(spec.get("model"), dict) else None
        self._forbidden = self._special_ids - {self.special_tokens.get(str(unknown))}

    def token_bytes(self, token_id: int) -> bytes:
        known = self._known.get(token_id)
        if known is None:
            name = self._library.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None
            if name is None:
                return b""
            known = self._known[token_id] = self._rule(name) if self._rule else name.encode("utf-8")
        return known

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        if self._rule:
            return super().decode(ids, skip_special=skip_special)
        return self._library_decode([i for i in ids if self._shows(i) or not skip_special])

    def stream(self, prompt_ids: Sequence[int] = ()) -> StreamDecoder:
        if self._rule:
            return ByteStream(self._text_bytes, prompt_ids, self._strip)
        return WindowStream(self._library_decode, self._shows, prompt_ids)

    def _shows(self, token_id: int) -> bool:
        return 0 <= token_id < self.vocab_size and token_id not in self._special_ids

    def _library_decode(self, ids: Sequence[int]) -> str:
        with library_errors("the tokenizers library cannot decode these ids"), self._quietly():
            known = [i for i in ids if 0 <= i < self.vocab_size]
            return self._library.decode(known, skip_special_tokens=False)

    def _quietly(self) -> AbstractContextManager[None]:
        """Around a call that may panic: the regular expressions of the file may be too much for their engine."""
        return without_panics() if self._watched else nullcontext()

    def _encode_plain(self, text: str) -> list[int]:
        ids = self._library_encode(text, special=False)
        if not self._forbidden.isdisjoint(ids):
            # Some models (Unigram, WordLevel) find a control token in their own vocabulary, without its being
            # added.
            token_id = next(i for i in ids if i in self._forbidden)
            raise TokenizerError(
                f"this tokenizer would make the control token {self._library.id_to_token(token_id)!r} "
                "from the text; take those characters out of it"
            )
        return ids

    def _encode_with_special(self, text: str) -> list[int]:
        return self._library_encode(text, special=True)

    def _library_encode(self, text: str, *, special: bool) -> list[int]:
        with self._lock, library_errors("the tokenizers library cannot encode this text"), self._quietly():
            self._library.encode_special_tokens = not special  # True: encode them like other text
            return self._library.encode(text, add_special_tokens=False).ids


class WindowStream(StreamDecoder):
    """For decoders whose tokens have no bytes of their own: decode the last few tokens with and without the
    new one.

    Exact where a token's text depends on its neighbours and on its being the first only, as in WordPiece and
    Metaspace. While the text ends in U+FFFD it waits for the rest of a character, up to HELD tokens.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], shows: Callable[[int], bool], prompt_ids: Sequence[int]
    ) -> None:
        self._decode = decode
        self._shows = shows
        self._window = [i for i in prompt_ids if shows(i)][-CONTEXT - HELD :]
        self._given = 0  # so many of the window's tokens are out as text
        self._forget()

    def push(self, token_id: int) -> str:
        if not self._shows(token_id):
            return ""
        self._window.append(token_id)
        return self._give(wait=len(self._window) - self._given < HELD)

    def finish(self) -> str:
        return self._give(wait=False)

    def _give(self, *, wait: bool) -> str:
        before, now = self._decode(self._window[: self._given]), self._decode(self._window)
        if wait and now.endswith("\ufffd"):
            return ""
        self._forget()
        return now[len(before) :]

    def _forget(self) -> None:
        """Everything is out: keep CONTEXT tokens, and a few more where those begin inside a character."""
        keep = CONTEXT
        while keep < CONTEXT + 3 and "\ufffd" in self._decode(self._window[-keep:]):
            keep += 1
        del self._window[:-keep]
        self._given = len(self._window)


def bytes_rule(decoder: Any) -> tuple[TokenBytes, int] | None:
    """How a token's name becomes bytes, and how many spaces go from the beginning of the text; or None.

    Two kinds of decoder work token by token, and between them they serve nearly all models: GPT-2's byte
    alphabet, and SentencePiece's, [Replace a string]* [ByteFallback] [Fuse] [Strip]. Decoding by bytes
    differs from the library's in one place: of invalid UTF-8 from <0x..> tokens the library replaces every
    byte of the run, the valid characters in it too, which could not be known before the run ends.
    """
    steps = decoder.get("decoders") if isinstance(decoder, dict) and "decoders" in decoder else [decoder]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        return None
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return name_to_bytes, 0
    replaces = kinds.count("Replace")
    rest = kinds[replaces:]
    fallback = rest[:1] == ["ByteFallback"]
    if kinds[:replaces].count("Replace") != replaces or rest[fallback:] not in (
        [],
        ["Fuse"],
        ["Fuse", "Strip"],
    ):
        return None
    changes = []
    for step in steps[:replaces]:
        pattern, content = step.get("pattern"), step.get("content")
        text = pattern.get("String") if isinstance(pattern, dict) else None
        if not isinstance(text, str) or not text or not isinstance(content, str):
            return None
        changes.append((text, content))
    strip = 0
    if rest[-1:] == ["Strip"]:
        if steps[-1].get("content") != " " or steps[-1].get("stop") != 0 or type(steps[-1].get("start")) is not int:
            return None
        strip = steps[-1]["start"]

    def rule(name: str) -> bytes:
        for old, new in changes:
            name = name.replace(old, new)
        byte = BYTE_TOKENS.get(name) if fallback else None
        return name.encode("utf-8") if byte is None else byte

    return rule, strip


def dump(spec: Mapping[str, Any]) -> str:
    """`spec` as the text that the library reads."""
    return json.dumps(spec, ensure_ascii=False)

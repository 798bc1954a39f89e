"""Byte-level BPE, run by tiktoken."""

from __future__ import annotations

import re

from minigen.errors import TokenizerError
from minigen.tokenizer.base import Controls, Tokenizer, library_errors

# How a text is split before merging. These are properties of the models, so they must be exactly
# theirs. Each covers every character; tiktoken would drop what lies between two matches.
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s+(?!\S)|\s+"
_WORDS = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
_UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"

GPT2_PATTERN = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
CL100K_PATTERN = rf"{_WORDS}|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"  # also Llama 3
QWEN_PATTERN = rf"{_WORDS}|\p{{N}}|{_SIGNS}|{_SPACES}"
O200K_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_SPACES}"
)
PATTERNS = frozenset({GPT2_PATTERN, CL100K_PATTERN, QWEN_PATTERN, O200K_PATTERN})

# tiktoken's regex engine panics in a run of a million whitespace characters.
LONGEST_RUN = 500_000
_WHITE = r"[^\S\x1c-\x1f]"  # whitespace of that engine; Python's \s has four more characters
# The lookbehind makes every run be tried once, from its beginning.
_LONG_RUN = re.compile(rf"(?<!{_WHITE}){_WHITE}{{{LONGEST_RUN}}}")


class TiktokenTokenizer(Tokenizer):
    """A tokenizer run by tiktoken.

    tiktoken is not told about the control tokens: they are split off the text here, the longest
    first, because tiktoken tries them in no particular order.
    """

    kind = "tiktoken"

    def __init__(
        self, ranks: dict[bytes, int], pattern: str, controls: Controls, *, source: str
    ) -> None:
        """Creates it.

        Args:
            ranks: The id of each token, by its bytes. The lower the id, the earlier it is merged.
            pattern: The regular expression that splits a text before merging.
            controls: The control tokens.
            source: The file, for messages.
        """
        import tiktoken

        ids = [*ranks.values(), *controls.special_tokens.values()]
        super().__init__(max(ids, default=-1) + 1, controls)
        with library_errors(f"{source}: tiktoken cannot use these tokens"):
            self._encoding = tiktoken.Encoding(
                source, pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
            )
        self._special_bytes = {i: name.encode("utf-8") for name, i in self.special_tokens.items()}
        names = sorted(self.special_tokens, key=len, reverse=True)
        self._special_names: re.Pattern[str] | None = None
        if names:
            self._special_names = re.compile("(" + "|".join(map(re.escape, names)) + ")")

    def token_bytes(self, token_id: int) -> bytes:
        if token_id in self._special_bytes:
            return self._special_bytes[token_id]
        try:
            return self._encoding.decode_single_token_bytes(token_id)
        except (KeyError, OverflowError):  # no such id
            return b""

    def _encode_plain(self, text: str) -> list[int]:
        if len(text) >= LONGEST_RUN:
            run = _LONG_RUN.search(text)
            if run is not None:
                raise TokenizerError(
                    f"the text has {LONGEST_RUN} whitespace characters in a row from position "
                    f"{run.start()} on: remove some"
                )
        with library_errors("tiktoken cannot encode this text"):
            return self._encoding.encode_ordinary(text)

    def _encode_with_special(self, text: str) -> list[int]:
        if self._special_names is None:
            return self._encode_plain(text)
        ids: list[int] = []
        for index, part in enumerate(self._special_names.split(text)):
            if index % 2:  # the pattern is one group, so every second part is a match
                ids.append(self.special_tokens[part])
            elif part:
                ids += self._encode_plain(part)
        return ids

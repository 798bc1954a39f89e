"""Byte-level BPE, run by tiktoken."""

from __future__ import annotations

import re

from minigen.errors import TokenizerError
from minigen.tokenizer.base import Controls, Tokenizer, library_errors

# How a text is cut before the merges. These are facts about the models, so each must match to the letter; and
# each covers every character, or tiktoken would drop what lies between two matches.
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

# tiktoken's regex engine gives up, with a panic, in a run of a million whitespace characters.
LONGEST_RUN = 500_000
_WHITE = r"[^\S\x1c-\x1f]"  # white space as that engine has it; Python's \s has four characters more
_LONG_RUN = re.compile(rf"(?<!{_WHITE}){_WHITE}{{{LONGEST_RUN}}}")  # no run is looked at again from its middle


class TiktokenTokenizer(Tokenizer):
    """`ranks` gives the bytes and the id of each token; the lower the id, the earlier it is merged.

    tiktoken never hears of the control tokens: they are cut out of the text here, the longest first, because
    tiktoken takes them in no particular order.
    """

    kind = "tiktoken"

    def __init__(self, ranks: dict[bytes, int], pattern: str, controls: Controls, *, source: str) -> None:
        import tiktoken

        ids = [*ranks.values(), *controls.special_tokens.values()]
        super().__init__(max(ids, default=-1) + 1, controls)
        with library_errors(f"{source}: tiktoken cannot use these tokens"):
            self._encoding = tiktoken.Encoding(source, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self._special_bytes = {i: name.encode("utf-8") for name, i in self.special_tokens.items()}
        names = sorted(self.special_tokens, key=len, reverse=True)
        self._special_names = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None

    def token_bytes(self, token_id: int) -> bytes:
        if token_id in self._special_bytes:
            return self._special_bytes[token_id]
        try:
            return self._encoding.decode_single_token_bytes(token_id)
        except (KeyError, OverflowError):  # no such id
            return b""

    def _encode_plain(self, text: str) -> list[int]:
        if len(text) >= LONGEST_RUN and (run := _LONG_RUN.search(text)):
            raise TokenizerError(
                f"the text has {LONGEST_RUN} whitespace characters in a row from position {run.start()} on"
            )
        with library_errors("tiktoken cannot encode this text"):
            return self._encoding.encode_ordinary(text)

    def _encode_with_special(self, text: str) -> list[int]:
        if self._special_names is None:
            return self._encode_plain(text)
        ids: list[int] = []
        for place, part in enumerate(self._special_names.split(text)):
            if place % 2:  # the pattern is one group, so every second part is a match
                ids.append(self.special_tokens[part])
            elif part:
                ids += self._encode_plain(part)
        return ids

"""Changes to the wording of a finished story: contractions, and short sentences joined."""

from __future__ import annotations

import re

from minigen.weights.synthetic.grammar import Draw

_CONTRACTIONS = {
    "did not": "didn't",
    "could not": "couldn't",
    "do not": "don't",
    "was not": "wasn't",
    "will not": "won't",
    "cannot": "can't",
    "I am": "I'm",
    "It is": "It's",
    "You are": "You're",
    "That is": "That's",
    "Do not": "Don't",
    "I will": "I'll",
}
_CONTRACTIBLE = re.compile("|".join(rf"\b{words}\b(?=[ ])" for words in _CONTRACTIONS))
# A sentence that begins with a name or pronoun, and one after it with a pronoun or "But".
_SHORT_PAIR = re.compile(
    r"((?:(?<=[.!] )|(?<=\n)|^)([A-Z][a-z]+) [a-z][a-z ,']{6,60})\. "
    r"(He|She|They|It|But)( [a-z][^.!?\n\"]{4,60}[.!])"
)


def contract(text: str) -> str:
    """did not -> didn't, and so on."""
    return _CONTRACTIBLE.sub(lambda match: _CONTRACTIONS[match.group()], text)


def join_sentences(draw: Draw, text: str) -> str:
    """Some pairs of short sentences made into one, as in "He ran home, and he was glad."."""

    def joined(match: re.Match[str]) -> str:
        first, subject, word, rest = match.groups()
        keep = draw() < 0.4
        if keep or " and" in first or " and" in rest:
            return match.group()
        if subject in ("But", "Then", "When", "If", "Once"):
            return match.group()
        if word == "But":
            return f"{first}, but{rest}"
        if subject == word and word != "It":
            return f"{first} and{rest}"
        comma = "," if draw() < 0.6 else ""
        return f"{first}{comma} and {word.lower()}{rest}"

    return _SHORT_PAIR.sub(joined, text)

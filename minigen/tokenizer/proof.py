"""Whether tiktoken would give the same ids as a list of merges, and then the tokens as tiktoken wants them.

The two run different rules on a piece of text:

- listed merges (GPT-2, the `tokenizers` library): merge the adjacent pair that comes first in the list;
- tiktoken: merge the adjacent pair whose concatenation, listed or not, is the token of the lowest id; and
  a piece that is a token is taken whole.

They agree if (1) the products of the listed merges come in the order of their ids, and (2) each token t
longer than a byte is reachable: merging its bytes with only the merges whose product is below t ends at two
tokens a, b whose merge (a, b) -> t is listed. Why:

Tokens only grow. So where a stretch of text has a token boundary at both ends, no merge has ever crossed its
ends, and what happened inside is what happens to the stretch alone. (With several places for one merge the
leftmost goes first; a run of equal tokens cut at a boundary that held was cut after an even number, so this
is no exception.) Suppose both rules gave the same state after all products below t, and some c, d with the
bytes of t stand side by side. That stretch alone ends at a, b: so c = a and d = b, the listed pair. Hence at
t both rules merge the same pair at the same places. Nor can a later merge bring up a product below t again:
its stretch had its boundaries, so it was merged to that one token long ago. Other listed pairs for t
therefore never stand side by side (files made from tiktoken's list all of them), nor do pairs of which one
part has a higher id than t. And a piece that is a token is merged to it, so taking it whole changes nothing.

Reachability costs one step for each merge on the two spines that meet between a and b: (a, b) survives if, at
every time on the way, the token left of the middle and the one right of it were no pair that goes before what
took them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

# The bytes as GPT-2 writes them: printable ones as themselves, the others as the characters from U+0100 on.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(_OTHERS)}
# Bytes that no UTF-8 text has; some vocabularies leave them out.
_NEVER = {0xC0, 0xC1, *range(0xF5, 0x100)}
UTF8_BYTES = frozenset(character for character, byte in BYTE_OF.items() if byte not in _NEVER)

# For str.translate: a space, not in the alphabet, cuts two tokens; whatever else is not in it must fail.
_CUT, _WRONG = "\u0200", "\u0201"
_TO_BYTES = dict.fromkeys(range(256), _WRONG) | {ord(c): chr(b) for c, b in BYTE_OF.items()} | {0x20: _CUT}


def names_to_bytes(names: Collection[str]) -> list[bytes] | None:
    """The bytes of tokens in GPT-2's alphabet, or None where a token has another character."""
    parts = " ".join(names).translate(_TO_BYTES).split(_CUT)  # one call: 50 times faster than one a token
    if len(parts) != len(names):
        return None
    try:
        return [part.encode("latin-1") for part in parts]
    except UnicodeEncodeError:
        return None


def name_to_bytes(name: str) -> bytes:
    """The bytes of one token; one outside the alphabet (an added token) stands for its own text."""
    try:
        return bytes(BYTE_OF[character] for character in name)
    except KeyError:
        return name.encode("utf-8")


def mergeable_ranks(
    vocab: Mapping[str, int], merges: Iterable[tuple[str, str]], added: Collection[str]
) -> dict[bytes, int] | None:
    """`vocab` without the `added` tokens as tiktoken wants it, if tiktoken then does what `merges` say; else
    None.

    None also stands for broken input; finding out what is wrong is left to who needs to say it.
    """
    ids = {name: i for name, i in vocab.items() if name not in added}
    tokens = names_to_bytes(ids)
    if tokens is None or not ids or not ids.keys() >= UTF8_BYTES:
        return None
    if len(set(ids.values())) != len(ids) or min(ids.values()) < 0:
        return None
    age = {i: -1 for token, i in zip(tokens, ids.values(), strict=True) if len(token) == 1}
    try:
        reached = _reach(ids, merges, age)
    except KeyError:  # a merge of tokens that are not in the vocabulary, or are added ones
        return None
    if not reached or len(age) != len(ids):
        return None
    return dict(zip(tokens, ids.values(), strict=True))


def _reach(ids: Mapping[str, int], merges: Iterable[tuple[str, str]], age: dict[int, int]) -> bool:
    """Puts every reachable token into `age` (-1 for a byte, else its id); False where the order is wrong."""
    product: dict[tuple[int, int], int] = {}
    left: dict[int, int] = {}
    right: dict[int, int] = {}
    last = -1
    for first, second in merges:
        x, y, t = ids[first], ids[second], ids[first + second]
        if t < last:
            return False
        last = t
        if x not in age or y not in age:
            continue  # a part with a higher id: the pair never stands side by side
        product[x, y] = t
        if t in age:
            continue  # another pair for a token that is reached already
        a, b = x, y
        # Back in time from (a, b): undo the younger of the two, and see whether the pair that then met in the
        # middle goes before the merge that was undone. A tie on the right is a run of equal tokens, where the
        # leftmost pair goes first: that pair is the one across the middle.
        while True:
            if age[x] > age[y]:
                limit, x = x, right[x]
            elif age[y] >= 0:
                limit, y = y + 1, left[y]
            else:  # down to bytes, and nothing crossed
                left[t], right[t], age[t] = a, b, t
                break
            crossing = product.get((x, y))
            if crossing is not None and crossing < limit:
                break
    return True

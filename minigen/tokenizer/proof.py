"""Whether tiktoken gives the same ids as a list of merges, and if so, the tokens as it takes them.

The two apply different rules to a piece of text:

- listed merges (GPT-2, the `tokenizers` library): merge the adjacent pair that comes first in the
  list;
- tiktoken: merge the adjacent pair whose concatenation, listed or not, is the token with the lowest
  id; a piece that is a token is taken whole.

They agree if (1) the products of the listed merges are in the order of their ids, and (2) each
token t longer than a byte is reachable: merging its bytes with only the merges whose product is
below t ends with two tokens a, b whose merge (a, b) -> t is listed. The proof:

Tokens only grow. So if a stretch of text has a token boundary at both ends, no merge has ever
crossed its ends, and what happened inside is what happens to the stretch alone. (If one merge
applies in several places, the leftmost is first; a run of equal tokens that ends at a surviving
boundary was divided after an even number of them, so this is no exception.) Suppose both rules
are in the same state after all products below t, and some adjacent c, d have the bytes of t. That
stretch alone ends with a, b: so c = a and d = b, the listed pair. Hence at t both rules merge the
same pair in the same places. Nor can a later merge produce a product below t again: its stretch
had its boundaries, so it was merged to that one token before. Other listed pairs for t are
therefore never adjacent (files made from tiktoken's tokens list all of them), nor are pairs with
a part of a higher id than t. And a piece that is a token is merged to it, so taking it whole
changes nothing.

Reachability costs one step for each merge on the two spines that meet between a and b: (a, b)
survives if, at every time on the way, the token left of the middle and the one right of it were
not a pair that is merged before what took them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

# Bytes as GPT-2 writes them: printable ones as themselves, others as characters from U+0100 on.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_OF = {chr(byte): byte for byte in _PRINTABLE}
BYTE_OF |= {chr(256 + index): byte for index, byte in enumerate(_OTHERS)}
# Bytes that never occur in UTF-8; some vocabularies leave them out.
_NEVER = {0xC0, 0xC1, *range(0xF5, 0x100)}
UTF8_BYTES = frozenset(character for character, byte in BYTE_OF.items() if byte not in _NEVER)

# For str.translate: a space, which is not in the alphabet, separates two tokens; any other
# character that is not in it becomes one that cannot be encoded.
_CUT, _WRONG = "\u0200", "\u0201"
_TO_BYTES = dict.fromkeys(range(256), _WRONG)
_TO_BYTES |= {ord(character): chr(byte) for character, byte in BYTE_OF.items()}
_TO_BYTES |= {0x20: _CUT}


def names_to_bytes(names: Collection[str]) -> list[bytes] | None:
    """The bytes of tokens in GPT-2's alphabet; None if a token has another character."""
    # One call for all is 50 times faster than one per token.
    parts = " ".join(names).translate(_TO_BYTES).split(_CUT)
    if len(parts) != len(names):
        return None
    try:
        return [part.encode("latin-1") for part in parts]
    except UnicodeEncodeError:
        return None


def name_to_bytes(name: str) -> bytes:
    """The bytes of one token; one outside the alphabet, an added token, is its own text."""
    try:
        return bytes(BYTE_OF[character] for character in name)
    except KeyError:
        return name.encode("utf-8")


def mergeable_ranks(
    vocab: Mapping[str, int], merges: Iterable[tuple[str, str]], added: Collection[str]
) -> dict[bytes, int] | None:
    """The ids of tokens by their bytes, as tiktoken takes them, if it then does what `merges` say.

    Args:
        vocab: The ids of tokens by their names in GPT-2's alphabet.
        merges: The listed merges.
        added: Tokens of `vocab` to leave out.

    Returns:
        None if tiktoken would differ, and for broken input, which the caller reports if it must.
    """
    ids = {name: token_id for name, token_id in vocab.items() if name not in added}
    tokens = names_to_bytes(ids)
    if tokens is None or not ids or not ids.keys() >= UTF8_BYTES:
        return None
    if len(set(ids.values())) != len(ids) or min(ids.values()) < 0:
        return None
    ranks = dict(zip(tokens, ids.values(), strict=True))
    age = {token_id: -1 for token, token_id in ranks.items() if len(token) == 1}
    try:
        is_in_order = _reach(ids, merges, age)
    except KeyError:  # a merge of tokens that are not in the vocabulary, or are added ones
        return None
    if not is_in_order or len(age) != len(ids):
        return None
    return ranks


def _reach(ids: Mapping[str, int], merges: Iterable[tuple[str, str]], age: dict[int, int]) -> bool:
    """Adds reachable tokens to `age`: the id, or -1 for a byte. False if the order is wrong."""
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
            continue  # a part has a higher id, so the pair is never adjacent
        product[x, y] = t
        if t in age:
            continue  # another pair for a token that is reached already
        a, b = x, y
        # Back in time from (a, b): undo the younger of the two, and see whether the pair that
        # then met in the middle is merged before the one that was undone. A tie on the right is a
        # run of equal tokens, where the leftmost pair is first: that pair is the one across the
        # middle.
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

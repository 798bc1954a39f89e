"""The proof that tiktoken does what a list of merges says, against running the merges."""

import json
from itertools import pairwise

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers

from minigen.tokenizer import load_tokenizer
from minigen.tokenizer.bytelevel import (
    CL100K_PATTERN,
    GPT2_PATTERN,
    O200K_PATTERN,
    PATTERNS,
    QWEN_PATTERN,
)
from minigen.tokenizer.proof import BYTE_OF, UTF8_BYTES, mergeable_ranks, names_to_bytes

quick = settings(deadline=None, derandomize=True, max_examples=150)


def vocabulary(merges):
    vocab = dict(BYTE_OF)
    for a, b in merges:
        vocab.setdefault(a + b, len(vocab))
    return vocab


def listed(piece, merges):
    """The merges as GPT-2 runs them: again and again the pair that is first in the list, the leftmost one."""
    parts = list(piece)
    while True:
        places = [
            (merges.index(pair), i) for i, pair in enumerate(pairwise(parts)) if pair in merges
        ]
        if not places:
            return parts
        _, i = min(places)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def in_order_and_reachable(merges, vocab):
    ids = [vocab[a + b] for a, b in merges]
    if ids != sorted(ids):
        return False
    for token in {a + b for a, b in merges}:
        before = [(a, b) for a, b in merges if vocab[a + b] < vocab[token]]
        if tuple(listed(token, before)) not in [pair for pair in merges if "".join(pair) == token]:
            return False
    return True


@st.composite
def merge_lists(draw):
    tokens, merges = ["a", "b", "c"], []
    for _ in range(draw(st.integers(1, 9))):
        pair = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        if pair not in merges and len("".join(pair)) <= 9:
            merges.append(pair)
            tokens = list(dict.fromkeys([*tokens, "".join(pair)]))
    return merges


@quick
@given(merge_lists(), st.lists(st.text("abc", max_size=30), min_size=3, max_size=6))
def test_the_proof_finds_exactly_the_reachable_vocabularies(merges, texts):
    vocab = vocabulary(merges)
    ranks = mergeable_ranks(vocab, merges, ())
    assert (ranks is not None) == in_order_and_reachable(merges, vocab)
    if ranks is not None:
        encoding = tiktoken.Encoding("x", pat_str=".+", mergeable_ranks=ranks, special_tokens={})
        for text in texts:
            assert encoding.encode_ordinary(text) == [vocab[name] for name in listed(text, merges)]


@quick
@given(merge_lists())
def test_all_pairs_of_a_product_may_be_listed(merges):
    """Files made from tiktoken's ranks list every split of a token; only one of them ever happens."""
    vocab = vocabulary(merges)
    if mergeable_ranks(vocab, merges, ()) is None:
        return
    tokens = sorted((name for name in vocab if len(name) > 1), key=vocab.get)
    splits = [
        (t[:i], t[i:])
        for t in tokens
        for i in range(1, len(t))
        if t[:i] in vocab and t[i:] in vocab
    ]
    assert mergeable_ranks(vocab, splits, ()) == mergeable_ranks(vocab, merges, ())
    for t in tokens:
        assert listed(t * 2, splits) == listed(t * 2, merges)


UNREACHABLE = [
    ("a", "b"),
    ("b", "c"),
    ("a", "bc"),
]  # "abc" is cut as ab|c, so the last merge never happens


def spec_of(merges):
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    model = {"type": "BPE", "vocab": vocabulary(merges), "merges": [list(pair) for pair in merges]}
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": level,
        "decoder": level,
        "model": model,
    }


def test_a_vocabulary_where_tiktoken_differs_goes_to_the_tokenizers_library(folder):
    spec = spec_of(UNREACHABLE)
    vocab = spec["model"]["vocab"]
    tokens = dict(zip(names_to_bytes(vocab), vocab.values(), strict=True))
    other = tiktoken.Encoding("x", pat_str=GPT2_PATTERN, mergeable_ranks=tokens, special_tokens={})
    tokenizer = load_tokenizer(folder(tokenizer_json=spec))
    assert tokenizer.kind == "tokenizers"
    assert tokenizer.encode("abc") == [vocab["ab"], vocab["c"]]
    assert other.encode_ordinary("abc") == [vocab["abc"]]


@pytest.mark.parametrize(
    "change",
    [
        {"merges": [["b", "c"], ["a", "b"]]},  # not in the order of the ids
        {"merges": [["a", "b"]]},  # bc has no merge
        {"dropout": 0.1},
        {"end_of_word_suffix": "</w>", "merges": []},
        {
            "vocab": {c: b for c, b in BYTE_OF.items() if c != "z"},
            "merges": [],
        },  # a byte without a token
    ],
)
def test_each_condition_is_checked(folder, change):
    spec = spec_of(UNREACHABLE[:2])
    assert load_tokenizer(folder(tokenizer_json=spec)).kind == "tiktoken"
    spec["model"] |= change
    assert load_tokenizer(folder(tokenizer_json=spec)).kind == "tokenizers"


def test_bytes_that_are_in_no_text_may_be_missing():
    vocab = {name: i for i, name in enumerate(sorted(UTF8_BYTES))}
    assert len(vocab) == 243
    assert len(mergeable_ranks(vocab, [], ())) == 243


def test_the_alphabet_is_the_librarys():
    assert sorted(BYTE_OF) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert names_to_bytes(["Ġa", "é", "Ċ"]) == [b" a", b"\xe9", b"\n"]
    assert names_to_bytes(["a b"]) is names_to_bytes(["東"]) is names_to_bytes(["\u00a0"]) is None


# All that Unicode has given to somebody; of the planes that are empty or for private use, some.
ASSIGNED, OTHERS = range(0x40000), range(0x40000, 0x110000, 97)
EVERY = "".join(chr(code) for code in (*ASSIGNED, *OTHERS) if not 0xD800 <= code <= 0xDFFF)


@pytest.mark.parametrize(
    "name", [r"\p{L}", r"\p{N}", r"\s", r"\p{Lu}", r"\p{Lt}", r"\p{Lm}", r"\p{Lo}", r"\p{Ll}"]
)
def test_both_regex_engines_know_the_same_characters(name):
    """They have their own Unicode tables: this fails where an update brings one to a newer Unicode."""
    only = pre_tokenizers.Split(Regex(name), "removed", invert=True)
    library = "".join(piece for piece, _ in only.pre_tokenize_str(EVERY))
    ranks = {bytes((byte,)): byte for byte in range(256)}
    encoding = tiktoken.Encoding("x", pat_str=name, mergeable_ranks=ranks, special_tokens={})
    assert bytes(encoding.encode_ordinary(EVERY)).decode() == library


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_both_regex_engines_cut_alike(pattern, hard):
    """Each text's pieces are made tokens: tiktoken cuts as the library does if it finds these tokens."""
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    quotes = " ".join(f"x'{c}y 'l{c} '{c}e" for c in EVERY[:0x600] + "ſKﬆﬅ")
    for text in [*hard, "\n".join(hard), quotes]:
        library = [piece for piece, _ in split.pre_tokenize_str(text)]
        assert "".join(library) == text
        ranks = {bytes((byte,)): byte for byte in range(256)}
        for piece in library:
            ranks.setdefault(piece.encode(), len(ranks))
        encoding = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        got = encoding.decode_tokens_bytes(encoding.encode_ordinary(text))
        assert got == [piece.encode() for piece in library]


def test_the_patterns_are_the_published_ones():
    contractions = "'s|'t|'re|'ve|'m|'ll|'d"
    assert contractions + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+" == GPT2_PATTERN
    tail = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    head = rf"(?i:{contractions})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
    assert head + r"|\p{N}{1,3}" + tail == CL100K_PATTERN
    assert head + r"|\p{N}" + tail == QWEN_PATTERN
    assert (
        "|".join(
            [
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            ]
        )
        == O200K_PATTERN
    )


def test_the_reference_merges_are_the_librarys():
    """`listed` above is what the other tests trust."""
    merges = [("a", "b"), ("ab", "c"), ("c", "a")]
    model = models.BPE(vocabulary(merges), merges)
    tokenizer = tokenizers.Tokenizer(model)
    for text in ("abcabc", "cabcab", "aabbcc", "ccaab"):
        assert tokenizer.encode(text).tokens == listed(text, merges)
    assert json.loads(tokenizer.to_str())["model"]["type"] == "BPE"

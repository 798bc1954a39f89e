"""One token a character, and one a byte."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.errors import TokenizerError
from minigen.tokenizer import ByteTokenizer, load_tokenizer


def test_characters(folder):
    tokenizer = load_tokenizer(folder(vocab_json=["a", " ", "é", "🙂"]), {"tokenizer": "char"})
    assert (tokenizer.kind, tokenizer.vocab_size, tokenizer.special_tokens) == ("characters", 4, {})
    assert tokenizer.encode("é a🙂", special=True) == [2, 1, 0, 3]
    assert tokenizer.decode([3, 1, 0, 2, 4, -1]) == "🙂 aé"
    assert (
        load_tokenizer(folder(vocab_json=["b"])).kind == "characters"
    )  # a list can be nothing else


def test_an_unknown_character_is_named_with_its_place(folder):
    tokenizer = load_tokenizer(folder(vocab_json=["a", "b"]))
    with pytest.raises(
        TokenizerError, match=r"2 characters have no 'ß' \(U\+00DF, at position 2 of"
    ):
        tokenizer.encode("abßa")
    with pytest.raises(TokenizerError, match=r"'\\n' \(U\+000A"):
        tokenizer.encode("\n")


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ({"a": 0}, "must be a list of characters"),
        ([], "must be a list of characters"),
        (["a", "bc"], "entry 1 is 'bc', not one character"),
        (["a", 5], "entry 1 is 5"),
        (["a", "b", "a"], "'a' is listed twice, again as entry 2"),
        (["\ud800"], "not one character"),
        ("[1", "not valid JSON"),
    ],
)
def test_broken_character_lists(folder, vocab, message):
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(folder(vocab_json=vocab), {"tokenizer": "char"})
    assert "vocab.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_character_list(tmp_path):
    with pytest.raises(TokenizerError, match=r"vocab\.json: cannot be read: No such file"):
        load_tokenizer(tmp_path, {"tokenizer": "char"})


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.integers(0, 255)))
def test_bytes(text, ids):
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([*ids, 256, -1]) == bytes(ids).decode(errors="replace")


def test_bytes_need_no_file(tmp_path):
    tokenizer = load_tokenizer(tmp_path, {"tokenizer": "bytes"})
    assert (tokenizer.kind, tokenizer.vocab_size, tokenizer.eos_id) == ("bytes", 256, None)


@pytest.mark.parametrize("name", ["charrnn-bronte", "charrnn-shakespeare"])
def test_real_characters(shared, name):
    folder = shared(f"models/{name}")
    tokenizer = load_tokenizer(
        folder, json.loads((folder / "config.json").read_text(encoding="utf-8"))
    )
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    assert tokenizer.encode(reference["prompt"]) == reference["prompt_ids"]
    assert tokenizer.decode(reference["greedy_ids"]) == reference["greedy_text"]
    stream = tokenizer.stream(reference["prompt_ids"])
    assert "".join(map(stream.push, reference["greedy_ids"])) == reference["greedy_text"]

"""Which tokenizer a folder has, and one line for each way in which its files can be broken."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from minigen.errors import TokenizerError
from minigen.tokenizer import load_tokenizer
from minigen.tokenizer.proof import BYTE_OF


def test_importing_it_imports_no_library():
    names = "tiktoken tokenizers torch mlx transformers"
    code = (
        f"import sys, minigen.tokenizer; print([n for n in '{names}'.split() if n in sys.modules])"
    )
    here = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here
    )
    assert result.stdout.strip() == "[]"


def test_a_folder_without_files_has_none(tmp_path):
    assert load_tokenizer(tmp_path) is None
    assert load_tokenizer(tmp_path, {"model_type": "gpt2"}) is None
    assert load_tokenizer(tmp_path / "nowhere") is None
    with pytest.raises(TokenizerError, match="tokenizer is 'words': choose 'char' or 'bytes'"):
        load_tokenizer(tmp_path, {"tokenizer": "words"})


def gpt2_files(spec):
    """vocab.json and merges.txt from a tokenizer.json."""
    model = spec["model"]
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]) + "\n"
    return {"vocab_json": model["vocab"], "merges_txt": merges}


def test_gpt2_files(folder, byte_level_spec, hard):
    expected = load_tokenizer(folder(tokenizer_json=byte_level_spec))
    (folder() / "tokenizer.json").unlink()
    tokenizer = load_tokenizer(folder(**gpt2_files(byte_level_spec)))
    assert tokenizer.kind == "tiktoken"
    assert tokenizer.special_tokens == expected.special_tokens
    for text in hard:
        assert tokenizer.encode(text, special=True) == expected.encode(text, special=True)
    settings = {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}
    spaced = load_tokenizer(folder(tokenizer_config_json=settings))
    assert (spaced.kind, spaced.encode("the")) == ("tokenizers", expected.encode(" the"))
    qwen = load_tokenizer(folder(tokenizer_config_json={"tokenizer_class": "Qwen2Tokenizer"}))
    assert qwen.kind == "tokenizers"  # it has a normalizer
    assert qwen.decode(qwen.encode("12 e\u0301")) == "12 é"
    with pytest.raises(
        TokenizerError, match=r"minigen does not know how a CLIPTokenizer splits text"
    ):
        load_tokenizer(folder(tokenizer_config_json={"tokenizer_class": "CLIPTokenizer"}))


def rank_file(tokens):
    return "".join(f"{base64.b64encode(token).decode()} {i}\n" for i, token in enumerate(tokens))


BYTES = [bytes((byte,)) for byte in range(256)]


def test_rank_files(folder):
    text = rank_file([*BYTES, b"th", b"the"])
    tokenizer = load_tokenizer(folder(qwen_tiktoken=text))
    assert tokenizer.encode("the<|im_end|>", special=True) == [
        257,
        tokenizer.special_tokens["<|im_end|>"],
    ]
    assert tokenizer.special_tokens["<|endoftext|>"] == 258
    assert tokenizer.vocab_size == 258 + 3 + 205
    (folder() / "qwen.tiktoken").rename(folder() / "x.tiktoken")
    assert load_tokenizer(folder(), {"model_type": "qwen"}).kind == "tiktoken"
    with pytest.raises(
        TokenizerError, match=r"x.tiktoken: 258 ranks of an unknown model, without the pattern"
    ):
        load_tokenizer(folder())
    with pytest.raises(TokenizerError, match=r"several rank files \(x.tiktoken, y.tiktoken"):
        load_tokenizer(folder(y_tiktoken=text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AA== 0\nnot base64\n", "line 2 is not a token"),
        ("AA==\n", "line 1 is not a token"),
        (rank_file(BYTES[:200]), "no token for the byte 0xC8: is the file complete"),
        (rank_file(BYTES) + "AA== 256\n", "line 257 repeats a token"),
        (rank_file(BYTES) + "AAA= 255\n", "two tokens have the same rank"),
    ],
)
def test_broken_rank_files(folder, text, message):
    check(folder(qwen_tiktoken=text), "qwen.tiktoken", message)


def check(place, name, message, config=None):
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(place, config)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"model": {"vocab": {"a": 0', "not valid JSON"),
        ("[" * 100_000, "not usable JSON"),
        ("[]", "it has no model"),
        ('{"model": 5}', "it has no model"),
        ('{"model": {}}', "the model has no vocabulary"),
        ('{"model": {"vocab": {"a": "0"}}}', "the id of 'a' is '0', not a whole number"),
        ('{"model": {"vocab": {"a": true}}}', "not a whole number"),
        ('{"model": {"vocab": [5]}}', "not .piece, score."),
        ('{"model": {"vocab": {"a": 0}, "merges": 5}}', "merges must be a list of pairs"),
        ('{"model": {"vocab": {"a": 0}, "merges": [5]}}', "merges must be a list of pairs"),
        ('{"model": {"vocab": {"a": 0}, "merges": ["a"]}}', "merge 0 is not a pair of tokens: 'a'"),
        ('{"model": {"vocab": {"a": 0}, "merges": [["a", 1]]}}', "merge 0 is not a pair of tokens"),
        (
            '{"model": {"vocab": {"a": 0}, "merges": ["a b"]}}',
            "merge 0 needs 'b', which the vocabulary lacks",
        ),
        ('{"model": {"vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}', "merge 0 needs 'ab'"),
        ('{"model": {"vocab": {"a": 0}}, "added_tokens": {"x": 1}}', "added_tokens must be a list"),
        (
            '{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1}]}',
            "needs an id and a content",
        ),
        (
            '{"model": {"vocab": {"a": 5000000000}, "merges": [], "type": "BPE"}}',
            "library cannot load it",
        ),
        ('{"model": {"vocab": {"a": 0}, "merges": [], "type": "Magic"}}', "library cannot load it"),
        (
            '{"model": {"vocab": {"a": 0}, "merges": [], "type": "BPE"}, "pre_tokenizer": 5}',
            "library cannot load",
        ),
        (
            '{"model": {"vocab": {"a": 0}}, "post_processor": {"type": "TemplateProcessing"}}',
            "is not complete",
        ),
        (
            '{"model": {"vocab": {"a": 0}}, "post_processor": {"type": "BertProcessing", "cls": 1}}',
            "not complete",
        ),
    ],
)
def test_broken_tokenizer_json(folder, text, message):
    check(folder(tokenizer_json=text), "tokenizer.json", message)


def test_a_truncated_file_of_a_real_shape(folder, byte_level_spec):
    text = json.dumps(byte_level_spec)
    for part in (0.1, 0.5, 0.9):
        check(
            folder(tokenizer_json=text[: int(len(text) * part)]), "tokenizer.json", "not valid JSON"
        )


def test_files_that_are_not_text(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b'{"model": "\xff"}')
    check(tmp_path, "tokenizer.json", "not UTF-8: byte 0xFF at 11")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must be a JSON object, not list"),
        ("{", "not valid JSON"),
        ({"bos_token": 5}, "bos_token must be a string or an object with a content, not 5"),
        ({"add_bos_token": "yes"}, "add_bos_token must be true or false, not 'yes'"),
        ({"added_tokens_decoder": [1]}, "added_tokens_decoder must be an object"),
        (
            {"added_tokens_decoder": {"x": {"content": "y"}}},
            "an added token needs an id and a content",
        ),
    ],
)
def test_broken_settings(folder, byte_level_spec, content, message):
    check(
        folder(tokenizer_json=byte_level_spec, tokenizer_config_json=content),
        "tokenizer_config.json",
        message,
    )


def test_half_a_pair_of_files(folder):
    check(folder(merges_txt=""), "merges.txt", "its vocabulary, vocab.json, is missing")
    (folder() / "merges.txt").unlink()
    check(folder(vocab_json={"a": 0}), "vocab.json", "its merges, merges.txt, are missing")
    (folder() / "vocab.json").unlink()
    check(folder(encoder_json={"a": 0}), "encoder.json", "its merges, vocab.bpe, are missing")


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ("a b c\n", "line 1 is not a pair of tokens: 'a b c'"),
        ("#version: 0.2\na b\n", "line 2 needs 'ab', not in vocab.json"),
        ("a 東\n", "line 1 needs '東'"),
    ],
)
def test_broken_merges(folder, merges, message):
    check(folder(merges_txt=merges, vocab_json=BYTE_OF), "merges.txt", message)


def test_a_vocabulary_that_is_not_of_bytes(folder):
    check(folder(merges_txt="", vocab_json={"a": 0}), "vocab.json", "not a byte-level vocabulary")


def test_sentencepiece_is_named_with_the_way_out(folder):
    check(
        folder(tokenizer_model="x"),
        "tokenizer.model",
        "read SentencePiece models; convert it to a tokenizer.json",
    )


def test_bos_and_eos_from_the_models_configuration(folder, byte_level_spec):
    config = {"bos_token_id": 0, "eos_token_id": [1, 0]}
    tokenizer = load_tokenizer(folder(tokenizer_json=byte_level_spec), config)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.start_ids) == (0, 1, ())
    tokenizer = load_tokenizer(folder(generation_config_json={"eos_token_id": 0}), config)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 0)
    tokenizer = load_tokenizer(
        folder(tokenizer_config_json={"bos_token": None}), {"bos_token_id": 0}
    )
    assert tokenizer.bos_id is None
    assert load_tokenizer(folder(), {"eos_token_id": 10**6, "bos_token_id": "0"}).bos_id is None


@pytest.mark.parametrize("normalizer", [None, {"type": "NFC"}])
def test_text_that_is_not_unicode(folder, byte_level_spec, normalizer):
    tokenizer = load_tokenizer(folder(tokenizer_json={**byte_level_spec, "normalizer": normalizer}))
    with pytest.raises(TokenizerError, match=r"lone surrogate U\+DC80 at position 2"):
        tokenizer.encode("ab\udc80")

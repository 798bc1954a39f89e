"""What runs on the `tokenizers` library: control tokens in text, post-processors, and decoding by bytes."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from minigen.errors import TokenizerError
from minigen.tokenizer import load_tokenizer
from minigen.tokenizer.huggingface import bytes_rule


def test_control_tokens_are_made_only_when_asked(folder, llama_spec):
    tokenizer = load_tokenizer(folder(tokenizer_json=llama_spec), {"eos_token_id": 2})
    assert tokenizer.kind == "tokenizers"
    assert tokenizer.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}
    ids = tokenizer.encode("a</s>b", bos=False)
    assert not {1, 2} & set(ids)
    assert tokenizer.decode(ids) == "a</s>b"
    assert 2 in tokenizer.encode("a</s>b", bos=False, special=True)
    assert tokenizer.encode("a</s>b", bos=False) == ids  # asking once does not change what follows


def test_the_start_is_added_and_the_end_is_not(folder, llama_spec):
    tokenizer = load_tokenizer(folder(tokenizer_json=llama_spec))  # its files say <s> $A </s>
    ids = tokenizer.encode("the ball")
    assert ids[0] == 1
    assert ids[1:] == tokenizer.encode("the ball", bos=False)
    assert 2 not in ids
    assert tokenizer.encode("") == [1]


@pytest.mark.parametrize(("add", "start"), [(True, (1,)), (False, ()), (None, (1,))])
def test_add_bos_token_has_the_last_word(folder, llama_spec, add, start):
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
    place = folder(
        tokenizer_json=llama_spec, tokenizer_config_json={**settings, "add_bos_token": add}
    )
    tokenizer = load_tokenizer(place)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.start_ids) == (1, 2, start)
    place = folder(tokenizer_json={**llama_spec, "post_processor": None})
    assert load_tokenizer(place).start_ids == ((1,) if add else ())


def test_other_post_processors(folder, llama_spec):
    for kind in ("RobertaProcessing", "BertProcessing"):
        processor = {"type": kind, "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True}
        spec = {**llama_spec, "post_processor": {**processor, "add_prefix_space": False}}
        assert load_tokenizer(folder(tokenizer_json=spec)).start_ids == (1,)
        level = {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": False,
            "use_regex": True,
        }
        spec["post_processor"] = {
            "type": "Sequence",
            "processors": [level, llama_spec["post_processor"]],
        }
        assert load_tokenizer(folder(tokenizer_json=spec)).start_ids == (1,)


def test_a_stop_token_not_marked_as_special_becomes_a_control_token(folder, byte_level_spec):
    spec = json.loads(json.dumps(byte_level_spec))
    for token in spec["added_tokens"]:
        token["special"] = False
    plain = load_tokenizer(folder(tokenizer_json=spec))
    end = spec["added_tokens"][0]["id"]
    assert end in plain.encode("a<|end|>")  # an added token like any other: part of the text
    assert plain.decode([end]) == "<|end|>"
    for files in (
        {"tokenizer_config_json": {"eos_token": "<|end|>"}},
        {
            "special_tokens_map_json": {"eos_token": {"content": "<|end|>"}},
            "tokenizer_config_json": {},
        },
    ):
        tokenizer = load_tokenizer(folder(tokenizer_json=spec, **files))
        assert tokenizer.eos_id == end
        assert end not in tokenizer.encode("a<|end|>")
        assert tokenizer.decode([end]) == ""


def test_added_tokens_decoder_brings_what_the_file_lacks(folder, byte_level_spec):
    size = 1 + max(byte_level_spec["model"]["vocab"].values())
    decoder = {
        str(size): {"content": "<|user|>", "special": True},
        "0": {"content": "<|end|>", "special": True},
    }
    place = folder(
        tokenizer_json=byte_level_spec, tokenizer_config_json={"added_tokens_decoder": decoder}
    )
    for kind, normalizer in (("tiktoken", None), ("tokenizers", {"type": "NFC"})):
        folder(tokenizer_json={**byte_level_spec, "normalizer": normalizer})
        tokenizer = load_tokenizer(place)
        assert tokenizer.kind == kind
        assert tokenizer.vocab_size == size + 1
        assert tokenizer.encode("<|user|>", special=True) == [size]
        assert size not in tokenizer.encode("<|user|>")


def test_a_control_token_that_the_model_itself_finds_is_refused(folder):
    vocab = [
        ["<unk>", 0.0],
        ["</s>", 0.0],
        ["▁", -3.0],
        ["a", -3.0],
        ["<", -4.0],
        ["/", -4.0],
        ["s", -4.0],
        [">", -4.0],
    ]
    library = tokenizers.Tokenizer(models.Unigram([tuple(entry) for entry in vocab], 0))
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    library.add_special_tokens(["<unk>", "</s>"])
    tokenizer = load_tokenizer(folder(tokenizer_json=library.to_str()))
    assert tokenizer.decode(tokenizer.encode("a </ s>")) == "a </ s>"
    with pytest.raises(TokenizerError, match="would make the control token '</s>' from the text"):
        tokenizer.encode("a </s>")
    assert tokenizer.encode("</s>", special=True)[-1] == 1


def test_truncation_and_padding_of_the_file_do_not_apply(folder, llama_spec):
    library = tokenizers.Tokenizer.from_str(json.dumps(llama_spec))
    library.enable_truncation(3)
    library.enable_padding(length=50)
    tokenizer = load_tokenizer(folder(tokenizer_json=library.to_str()))
    assert tokenizer.encode("the ball") == load_tokenizer(folder(tokenizer_json=llama_spec)).encode(
        "the ball"
    )


def test_decoding_by_bytes_is_what_the_library_does(folder, llama_spec, byte_level_spec, hard):
    for spec in (llama_spec, {**byte_level_spec, "normalizer": {"type": "NFC"}}):
        tokenizer = load_tokenizer(folder(tokenizer_json=spec))
        library = tokenizers.Tokenizer.from_str(json.dumps(spec))
        for text in hard:
            ids = tokenizer.encode(text, special=True)
            for skip in (True, False):
                assert tokenizer.decode(ids, skip_special=skip) == library.decode(
                    ids, skip_special_tokens=skip
                )


@pytest.mark.parametrize("name", ["wordpiece_spec", "metaspace_spec"])
def test_other_decoders_are_the_librarys(request, folder, name):
    spec = request.getfixturevalue(name)
    tokenizer = load_tokenizer(folder(tokenizer_json=spec))
    library = tokenizers.Tokenizer.from_str(json.dumps(spec))
    ids = tokenizer.encode("the dog, a red ball")
    assert tokenizer.decode(ids) == library.decode(ids) == "the dog, a red ball"
    assert tokenizer.decode([*ids, 10**9, -1]) == library.decode(ids)


def test_which_decoders_work_token_by_token():
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    fallback, fuse = {"type": "ByteFallback"}, {"type": "Fuse"}

    def rule(*steps):
        return bytes_rule({"type": "Sequence", "decoders": list(steps)})

    convert, strips = rule(replace, fallback, fuse, strip)
    assert (convert("▁a"), convert("<0xE6>"), convert("<0xE>"), strips) == (
        b" a",
        b"\xe6",
        b"<0xE>",
        1,
    )
    assert rule(replace, fallback, fuse)[1] == 0
    assert rule(replace)[0]("<0xE6>") == b"<0xE6>"
    assert bytes_rule({"type": "ByteLevel"})[0]("Ġa") == b" a"
    for steps in (
        (fallback, replace),
        (replace, strip),
        (replace, fallback, fuse, {**strip, "stop": 1}),
        (replace, fallback, fuse, {**strip, "content": "x"}),
        ({**replace, "pattern": {"Regex": "▁"}}, fallback),
        ({"type": "Metaspace"},),
        (),
    ):
        assert rule(*steps) is None
    assert bytes_rule(None) is None

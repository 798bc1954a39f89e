"""Text that comes token by token is the text that comes at once, never cut inside a character."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models

from minigen.tokenizer import ByteTokenizer, CharacterTokenizer, load_tokenizer

quick = settings(deadline=None, derandomize=True, max_examples=60)
KINDS = ["tiktoken", "neox", "llama", "window", "wordpiece", "metaspace", "characters", "bytes"]
SCRIPTS = st.text(
    st.sampled_from("ab Z.'\n\t0½ée\u0301東京שלام🙂👩‍👦🇫🇷\u200d\ufe0f▁Ġ\ufffd")
    | st.characters(exclude_categories=["Cs"]),
    max_size=25,
)


def window_decoder():
    """Llama's, with a regex, and two spaces taken: not one whose tokens have bytes of their own for us."""
    steps = [
        decoders.Replace(Regex("▁"), " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 2, 0),
    ]
    library = Tokenizer(models.BPE())
    library.decoder = decoders.Sequence(steps)
    return json.loads(library.to_str())["decoder"]


@pytest.fixture(scope="module")
def made(
    tmp_path_factory, corpus, hard, byte_level_spec, llama_spec, wordpiece_spec, metaspace_spec
):
    """A tokenizer of each kind, and whether it can encode any text."""

    def load(spec):
        folder = tmp_path_factory.mktemp("made")
        (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
        return load_tokenizer(folder)

    everything = sorted(set("".join([*corpus, *hard])))
    tokenizers = {
        "tiktoken": load(byte_level_spec),
        "neox": load(
            {**byte_level_spec, "normalizer": {"type": "NFC"}}
        ),  # bytes, but in the other library
        "llama": load(llama_spec),
        "window": load({**llama_spec, "decoder": window_decoder()}),
        "wordpiece": load(wordpiece_spec),
        "metaspace": load(metaspace_spec),
        "characters": CharacterTokenizer(everything),
        "bytes": ByteTokenizer(),
    }
    assert tokenizers["tiktoken"].kind == "tiktoken"
    assert tokenizers["neox"].kind == "tokenizers"
    return tokenizers


def streamed(tokenizer, prompt, ids):
    """The text of `ids` after `prompt`, checked against decoding all at once."""
    stream = tokenizer.stream(prompt)
    given, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt, *ids])
    for token_id in ids:
        given += stream.push(token_id)
        assert whole.startswith(given)  # nothing is ever taken back
    rest = stream.finish()
    assert given + rest == whole
    return whole[len(tokenizer.decode(prompt)) :]


# Of invalid UTF-8 in byte tokens the library replaces a whole run, which no stream could know in time.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "window"])
@quick
@given(data=st.data())
def test_random_ids_stream_as_they_decode(made, kind, data):
    tokenizer = made[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=40))
    streamed(tokenizer, [], ids)
    prompt = tokenizer.encode("the ball")
    streamed(tokenizer, prompt, ids)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "characters"])
@quick
@given(prompt=SCRIPTS, text=SCRIPTS)
def test_any_text_streams_as_it_decodes(made, kind, prompt, text):
    tokenizer = made[kind]
    start, ids = tokenizer.encode(prompt), tokenizer.encode(text, bos=False)
    after = streamed(tokenizer, start, ids)
    if kind in ("tiktoken", "bytes"):
        assert after == text


@pytest.mark.parametrize("kind", KINDS)
def test_hard_texts_stream_from_every_place(made, kind, hard):
    tokenizer = made[kind]
    for text in hard:
        ids = tokenizer.encode(text, special=True)
        for place in range(0, len(ids) + 1, 3):
            prompt = ids[:place]
            if tokenizer.decode(prompt).endswith("\ufffd"):
                continue  # inside a character: the next test
            streamed(tokenizer, prompt, ids[place:])


@pytest.mark.parametrize("kind", ["tiktoken", "neox", "bytes", "llama"])
def test_a_prompt_may_end_inside_a_character(made, kind):
    tokenizer = made[kind]
    ids = tokenizer.encode("x\U0001f9a4y")  # no merge made this bird: four tokens
    cut = next(i for i in range(len(ids)) if tokenizer.decode(ids[: i + 1]).endswith("\ufffd")) + 1
    stream = tokenizer.stream(ids[:cut])
    assert "".join(map(stream.push, ids[cut:])) + stream.finish() == "\U0001f9a4y"


def test_an_incomplete_character_is_given_at_the_end(made):
    stream = made["bytes"].stream()
    assert [stream.push(byte) for byte in (0xE6, 0x9D)] == ["", ""]
    assert stream.finish() == "\ufffd"


def test_invalid_bytes_keep_the_valid_characters_beside_them(made):
    """The library replaces the whole run of byte tokens here, which no stream could know in time."""
    tokenizer = made["llama"]
    ids = [3 + byte for byte in (*"東".encode(), 0xFF, *"京".encode(), 0xE6)]
    assert tokenizer.decode(ids) == "東\ufffd京\ufffd"
    assert streamed(tokenizer, [], ids) == "東\ufffd京\ufffd"


def test_the_memory_is_bounded(made):
    for kind in ("wordpiece", "metaspace"):
        tokenizer = made[kind]
        stream = tokenizer.stream(list(range(5, 50)) * 100)
        for _ in range(50):
            for token_id in range(5, 50):
                stream.push(token_id)
            assert len(stream._window) <= 16


def test_stories_keep_the_space_after_the_prompt(shared):
    folder = shared("models/stories260K")
    tokenizer = load_tokenizer(
        folder, json.loads((folder / "config.json").read_text(encoding="utf-8"))
    )
    cases = json.loads((folder / "reference.json").read_text(encoding="utf-8"))["cases"]
    assert cases
    for case in cases:
        assert tokenizer.encode(case["prompt"]) == case["prompt_ids"]
        after = streamed(tokenizer, case["prompt_ids"], case["greedy_ids"])
        if case["prompt"] == "One day, a dog named Max":
            assert after.startswith(" went")
        if "text" in case:
            assert case["prompt"] + after == case["text"]

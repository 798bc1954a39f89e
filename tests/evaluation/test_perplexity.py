"""Scores of texts: every number against NumPy on the model's plain logits, and against a reference."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import minigen
from minigen.errors import ContextError, MinigenError, TokenizerError, UsageError
from minigen.evaluation import perplexity
from minigen.evaluation.perplexity import Window, line_logprobs, score_text, windows
from minigen.model import Model

TEXT = (
    "Rain falls, and it falls; the small snail that lives below the déjà-vu tree says: more, more, MORE rain! "
    * 2
)
Load = Callable[..., Model]
Make = Callable[..., Path]


@pytest.fixture
def load(backend: str, device: str) -> Load:
    return lambda folder: minigen.load(folder, backend=backend, device=device, dtype="float32")


@pytest.fixture
def with_start(make_model: Make) -> Path:
    """A model over the characters of TEXT whose tokenizer puts <s> before every text."""
    characters = sorted(set(TEXT) - {"\ufffd"})
    vocab = {"<unk>": 0, "<s>": 1} | {
        character: i for i, character in enumerate(characters, start=2)
    }
    added = [{"id": i, "content": name, "special": True} for i, name in enumerate(("<unk>", "<s>"))]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [entry | flags for entry in added],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "[\\s\\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    }
    folder = make_model("llama", tokenizer=None, max_position_embeddings=24)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "add_bos_token": True})
    )
    return folder


def plain(model: Model, ids: list[int]) -> np.ndarray:
    """Log-probabilities of ids[1:], from the logits of the whole."""
    logits = model.logits([ids[:-1]])[0].astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logprobs[np.arange(len(ids) - 1), ids[1:]]


def by_hand(model: Model, ids: list[int], start: list[int], size: int, stride: int) -> np.ndarray:
    """The strided protocol in its plainest form: for each token, the first window that can score it."""
    found = []
    for i in range(0 if start else 1, len(ids)):
        begin = next(
            b for b in range(0, len(ids), stride) if i < b + size - len(start) and (b < i or start)
        )
        found.append(plain(model, [*start, *ids[begin : i + 1]])[-1])
    return np.array(found)


@pytest.mark.parametrize("name", ["gpt2", "llama", "lstm", "lfm2"])
def test_a_short_text_and_its_numbers(load: Load, tiny: Callable[[str], Path], name: str) -> None:
    model = load(tiny(name))
    text = TEXT[:50]
    score = score_text(model, text)
    wanted = plain(model, list(text.encode()))
    assert np.abs(score.logprobs - wanted).max() < 1e-4
    assert score.ids == list(text.encode())[1:]
    assert (score.tokens, score.bytes) == (49, 49)  # the first byte is context alone
    assert score.nats_per_token == pytest.approx(-wanted.mean(), rel=1e-5)
    assert score.perplexity == pytest.approx(math.exp(-wanted.mean()), rel=1e-4)
    assert score.bits_per_byte == pytest.approx(-wanted.sum() / math.log(2) / 49, rel=1e-5)


@pytest.mark.parametrize("stride", [None, 1, 7, 63])
def test_windows_of_a_long_text(
    load: Load, tiny: Callable[[str], Path], stride: int | None
) -> None:
    model = load(tiny("gpt2"))
    ids = list(TEXT[:130].encode())
    calls: list[tuple[int, int]] = []
    score = score_text(
        model, TEXT[:130], stride=stride, progress=lambda done, total: calls.append((done, total))
    )
    assert score.ids == ids[1:]
    assert np.abs(score.logprobs - by_hand(model, ids, [], 64, stride or 63)).max() < 1e-4
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1][0] == calls[-1][1]


@pytest.mark.parametrize("stride", [None, 5, 23])
def test_each_window_begins_with_the_start_token(
    load: Load, with_start: Path, stride: int | None
) -> None:
    model = load(with_start)
    tokenizer = model.needed_tokenizer
    ids = tokenizer.encode(TEXT[:70], bos=False)
    assert tokenizer.encode(TEXT[:70]) == [1, *ids]
    score = score_text(model, TEXT[:70], stride=stride)
    assert score.ids == ids
    assert score.bytes == len(TEXT[:70].encode()) > len(ids)
    assert np.abs(score.logprobs - by_hand(model, ids, [1], 24, stride or 23)).max() < 1e-4
    assert score_text(model, "R").tokens == 1


def test_windows() -> None:
    assert windows(10, 4, 4 - 1, 0) == [Window(0, 4, 1), Window(3, 7, 4), Window(6, 10, 7)]
    assert windows(9, 4, 3, 1) == [Window(0, 3, 0), Window(3, 6, 3), Window(6, 9, 6)]
    assert windows(9, 5, 2, 0) == [Window(0, 5, 1), Window(2, 7, 5), Window(4, 9, 7)]
    assert windows(8, 5, 2, 0)[-1] == Window(4, 8, 7)
    assert windows(3, 4, 1, 0) == [Window(0, 3, 1)]
    assert windows(10**6, None, None, 0) == [Window(0, 10**6, 1)]
    assert windows(1, 4, 3, 0) == windows(0, None, None, 1) == []


@pytest.mark.parametrize("name", ["llama", "lstm"])
def test_blocks_change_nothing(
    load: Load, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = load(tiny(name))
    ids = list(TEXT.encode()[:60])
    whole = line_logprobs(model.runner, ids)
    monkeypatch.setattr(perplexity, "BLOCK", 7)
    read: list[int] = []
    assert np.abs(line_logprobs(model.runner, ids, 20, read.append) - whole[19:]).max() < 1e-4
    assert read == [7] * 8 + [3]


def test_a_recurrent_model_reads_on(
    load: Load, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perplexity, "BLOCK", 50)
    model = load(tiny("lstm"))
    score = score_text(model, TEXT)
    assert np.abs(score.logprobs - plain(model, list(TEXT.encode()))).max() < 1e-4
    windowed = score_text(model, TEXT, window=30, stride=4)
    assert np.abs(windowed.logprobs - by_hand(model, list(TEXT.encode()), [], 30, 4)).max() < 1e-4
    with pytest.raises(
        UsageError, match=r"^stride is 4: this model reads a text in one piece; drop it, or give"
    ):
        score_text(model, TEXT, stride=4)


def test_documents_are_scored_from_nothing(load: Load, tiny: Callable[[str], Path]) -> None:
    model = load(tiny("llama"))
    texts = [TEXT[:30].strip(), "x", TEXT[3:90].strip()]
    whole = score_text(
        model, "|" + texts[0] + "\n|\n" + texts[1] + "| \n |" + texts[2] + "|\n", split="|"
    )
    each = [
        score_text(model, texts[i]) for i in (0, 2)
    ]  # one byte alone has nothing to be predicted from
    assert whole.ids == each[0].ids + each[1].ids
    assert np.abs(whole.logprobs - np.concatenate([e.logprobs for e in each])).max() < 1e-6
    assert whole.bytes == each[0].bytes + each[1].bytes == len("".join(texts).encode()) - 3
    assert score_text(model, texts[0], split="no such text").ids == each[0].ids


def test_the_reference_perplexity(load: Load, shared: Path, backend: str) -> None:
    if backend == "mlx":
        pytest.skip(
            "16,000 tokens are slow on this backend's CPU; the next test ties it to the other one"
        )
    folder = shared / "models" / "stories260K"
    reference = json.loads((folder / "reference.json").read_text())["perplexity"]
    model = load(folder)
    # Its stories are cut at 512 tokens with <s>, which is our first window.
    first = [score_text(model, story).logprobs[:511] for story in stories(shared, 40)]
    assert sum(map(len, first)) == reference["tokens"]
    assert -sum(part.sum() for part in first) == pytest.approx(reference["nll_sum"], rel=1e-6)
    found = math.exp(-np.concatenate(first).mean())
    assert found == pytest.approx(reference["perplexity"], rel=1e-6)


def test_both_backends_agree(shared: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx.core")
    folder = shared / "models" / "stories260K"
    text = "<|endoftext|>".join(stories(shared, 3))
    one, other = (
        score_text(minigen.load(folder, backend=name, device="cpu"), text, split="<|endoftext|>")
        for name in ("torch", "mlx")
    )
    assert (one.ids, one.bytes) == (other.ids, other.bytes)
    assert one.bytes == len(text.replace("<|endoftext|>", "").encode())
    assert np.abs(one.logprobs - other.logprobs).max() < 1e-3


def stories(shared: Path, count: int) -> list[str]:
    text = (shared / "corpora" / "tinystories" / "valid.txt").read_text()
    return [part.strip() for part in text.split("<|endoftext|>") if part.strip()][:count]


def test_the_reference_of_a_recurrent_model(load: Load, shared: Path) -> None:
    folder = shared / "models" / "charrnn-shakespeare"
    wanted = json.loads((folder / "reference.json").read_text())[
        "nats_per_char_on_20000_chars_of_its_training_text"
    ]
    text = (shared / "corpora" / "tinyshakespeare" / "input.txt").read_text()[:2500]
    score = score_text(load(folder), text)
    assert (score.tokens, score.bytes) == (2499, 2499)
    assert score.nats_per_token == pytest.approx(wanted, rel=0.1)  # of the same text, a part


def test_what_cannot_be_scored(load: Load, tiny: Callable[[str], Path], make_model: Make) -> None:
    model = load(tiny("llama"))
    for text, settings, message in (
        (
            "",
            {},
            r"the text has nothing to score: it needs at least two tokens, or one if the model has a start token",
        ),
        ("x", {}, r"the text has nothing to score: .*"),
        ("x|y|", {"split": "|"}, r"the text has nothing to score: .*"),
        (
            "xy",
            {"split": ""},
            r"the string to split at is empty: give the separator between the documents",
        ),
        ("xy", {"stride": 64}, r"stride is 64: it must be a whole number from 1 to 63"),
        ("xy", {"stride": 0}, r"stride is 0: it must be a whole number from 1 to 63"),
        ("xy", {"window": 65}, r"window is 65: it must be a whole number from 1 to 64"),
        (
            "xy",
            {"window": 10, "stride": 10},
            r"stride is 10: it must be a whole number from 1 to 9",
        ),
    ):
        with pytest.raises(UsageError, match=f"^{message}$"):
            score_text(model, text, **settings)
    with pytest.raises(
        ContextError,
        match=r"^a window of 1 token leaves no token to predict from: it must have at least 2$",
    ):
        score_text(model, "xy", window=1)
    with pytest.raises(TokenizerError, match="not valid Unicode"):
        score_text(model, "x\ud800")
    small = load(make_model("llama", vocab_size=100))
    with pytest.raises(
        UsageError, match=r"^token id 120 is outside the model's vocabulary of 100$"
    ):
        score_text(small, "ax")


def test_nan_is_an_error(load: Load, make_model: Make) -> None:
    model = load(make_model("llama"))
    ops = model.runner.ops
    model.runner.params["norm"]["weight"] = ops.asarray(np.full(32, np.nan))
    with pytest.raises(
        MinigenError, match=r"^the model produced NaN as a logit: check its weights, or run it in "
    ):
        score_text(model, "some text")


def test_a_hopeless_text_has_infinite_perplexity() -> None:
    score = perplexity.TextScore([1], np.array([-800.0]), 1)
    assert (score.perplexity, score.nats_per_token) == (math.inf, 800)
    assert perplexity.TextScore([1], np.array([-1.0]), 0).bits_per_byte == math.inf

"""Operations, bytes and limits against numbers worked out by hand from the papers' shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minigen.benchmark.plan import Case
from minigen.benchmark.shapes import SHAPES
from minigen.checkpoints.quantization import choose_packings
from minigen.families import HubConfig, find_family
from minigen.models.architecture import Architecture
from minigen.models.costs import Costs, limit, parameters, training_flops, weights_bytes

ROOT = Path(__file__).resolve().parents[2]


def build(config: dict[str, Any]) -> Architecture:
    return find_family(config).build(HubConfig(config))


# As the models' own cards and papers count them.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-xl", 1_557_611_200),
        ("smollm2-135m", 134_515_008),
        ("qwen2.5-0.5b", 494_032_768),
        ("llama-1b", 1_235_814_400),
        ("stories-3m", 3_049_920),
    ],
)
def test_shapes_are_the_true_ones(name: str, count: int) -> None:
    assert parameters(build(SHAPES[name])) == count


def test_the_shipped_shape_is_the_shipped_model() -> None:
    config = json.loads((ROOT / "weights" / "stories-3m" / "config.json").read_text())
    assert build(SHAPES["stories-3m"]) == build(config)


GPT2_USED = 124_439_808 - 1024 * 768  # all but the positions: the embedding is read as the head
GPT2_BODY = 12 * 12 * 768**2  # qkv 3, out 1, up and down 4 each
GPT2_HEAD = 50257 * 768


def test_gpt2_decodes_a_token() -> None:
    costs = Costs.of(build(SHAPES["gpt2"]))
    assert (costs.used, costs.body, costs.head) == (GPT2_USED, GPT2_BODY, GPT2_HEAD)
    assert GPT2_USED * 4 == 494_613_504
    # After 100 tokens it sees 101: keys and values of 12 layers, 768 wide.
    assert costs.bytes_read(100, 1, 1, "float32") == 494_613_504 + 4 * 12 * 2 * 768 * 101
    assert costs.bytes_read(100, 1, 8, "bfloat16") == 494_613_504 // 2 + 8 * 2 * 12 * 2 * 768 * 101
    assert costs.flops(100, 1, 1) == 2 * (GPT2_BODY + GPT2_HEAD) + 12 * 4 * 768 * 101
    assert costs.flops(100, 1, 8) == 8 * costs.flops(100, 1, 1)


def test_gpt2_reads_a_prompt() -> None:
    costs = Costs.of(build(SHAPES["gpt2"]))
    # The logits are those of the last token alone; token t of 512 sees t + 1 keys, after 256 others 256 more.
    attention = 12 * 4 * 768
    assert costs.flops(0, 512, 1) == 2 * (512 * GPT2_BODY + GPT2_HEAD) + attention * 512 * 513 // 2
    assert costs.flops(256, 512, 1) - costs.flops(0, 512, 1) == attention * 512 * 256
    assert costs.bytes_read(256, 512, 1, "float32") == 494_613_504 + 4 * 12 * 2 * 768 * 768


def test_what_else_a_model_may_have(tiny_llama: dict[str, Any], tiny_lstm: dict[str, Any]) -> None:
    untied = Costs.of(build(tiny_llama | {"tie_word_embeddings": False}))
    tied = Costs.of(build(tiny_llama))
    assert untied == tied  # the same matrix of the same size is read as the head
    assert (
        parameters(build(tiny_llama | {"tie_word_embeddings": False}))
        == parameters(build(tiny_llama)) + 256 * 32
    )
    window = Costs.of(build(tiny_llama | {"model_type": "mistral", "sliding_window": 8}))
    full = 2 * 2 * (2 * 8)  # layers, key and value, heads of a width
    assert tied.bytes_read(30, 1, 1, "float32") == 4 * (tied.used + full * 31)
    assert window.bytes_read(30, 1, 1, "float32") == 4 * (window.used + full * 8)
    assert window.flops(0, 10, 1) == 2 * (10 * window.body + window.head) + 2 * 4 * 32 * (
        36 + 8 + 8
    )
    lstm = Costs.of(build(tiny_lstm))
    gates = 4 * 24 * (16 + 24) + 4 * 24 * (24 + 24)
    assert (lstm.body, lstm.head) == (gates, 256 * 24)
    assert (
        lstm.used == gates + 4 * 2 * 4 * 24 // 2 + 256 * 24 + 256
    )  # and two biases a layer, and the head's
    assert lstm.bytes_read(30, 1, 4, "float32") == 4 * lstm.used


def test_quantized_weights() -> None:
    """A byte or half a byte a weight, and two numbers of the dtype for each 64."""
    gpt2 = build(SHAPES["gpt2"])
    plain, matrices = Costs.of(gpt2), GPT2_BODY + GPT2_HEAD
    vectors = GPT2_USED - matrices
    for quant, codes in (
        ("8", matrices),
        ("4", matrices // 2),
        ("mixed", GPT2_BODY // 2 + GPT2_HEAD),
    ):
        packings = choose_packings(quant, gpt2, {}, "gpt2")
        costs = Costs.of(gpt2, packings)
        assert (costs.codes, costs.used) == (codes, vectors + matrices // 32)
        assert (costs.body, costs.head, costs.flops(9, 3, 2)) == (
            GPT2_BODY,
            GPT2_HEAD,
            plain.flops(9, 3, 2),
        )
        cache = plain.bytes_read(100, 1, 8, "bfloat16") - 2 * GPT2_USED
        assert costs.bytes_read(100, 1, 8, "bfloat16") == codes + 2 * costs.used + cache
        assert weights_bytes(gpt2, packings, "float32") == codes + 4 * (costs.used + 1024 * 768)
    assert weights_bytes(gpt2, {}, "float32") == 4 * parameters(gpt2)


@pytest.fixture
def tiny_llama() -> dict[str, Any]:
    return {
        "model_type": "llama", "vocab_size": 256, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True,
    }  # fmt: skip


@pytest.fixture
def tiny_lstm() -> dict[str, Any]:
    return {
        "model_type": "lstm_lm",
        "vocab_size": 256,
        "embedding_size": 16,
        "hidden_size": 24,
        "num_layers": 2,
    }


def test_training_counts_as_papers_do() -> None:
    assert (
        training_flops(build(SHAPES["gpt2"]), 1024)
        == 6 * (GPT2_BODY + GPT2_HEAD) + 12 * 12 * 768 * 1024
    )


def test_the_limit_is_the_slower_of_the_two() -> None:
    costs = Costs.of(build(SHAPES["gpt2"]))
    decode = Case("tg", 3, depth=10)
    read = [costs.bytes_read(at, 1, 2, "float32") for at in (10, 11, 12)]
    flops = [costs.flops(at, 1, 2) for at in (10, 11, 12)]
    found = limit(costs, decode.passes(), 2, "float32", bandwidth=1e9, peak=1e15)
    assert (found.by, found.bytes_read, found.flops) == ("memory", sum(read), sum(flops))
    assert found.seconds == pytest.approx(sum(read) / 1e9)
    found = limit(costs, decode.passes(), 2, "float32", bandwidth=1e15, peak=1e9)
    assert (found.by, found.seconds) == ("compute", pytest.approx(sum(flops) / 1e9))

"""Operations and bytes of a decoding step, counted on tensors without numbers."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
NUMBERS = 2 * 2 * 2 * 64  # of keys and values that a token adds: layers, both, heads, width


def count(
    quant: str | None = None, kv_bits: int | None = None, keys: int = 2048, static: bool = True
) -> Any:
    from bench.counted import count_step

    return count_step(CONFIG, quant, kv_bits, keys, static)


def bytes_a_number(kv_bits: int | None, static: bool = True) -> float:
    """That a step moves for each number in the cache."""
    near, far = (count(None, kv_bits, keys, static).bytes.total() for keys in (1024, 2048))
    return (far - near) / (1024 * NUMBERS)


def test_a_step_reads_the_weights_once() -> None:
    from bench.counted import MetaBackend, params_without_values, size_of
    from minigen.families import HubConfig, find_family
    from minigen.tree import leaves

    architecture = find_family(CONFIG).build(HubConfig(CONFIG))
    weights = sum(
        map(size_of, leaves(params_without_values(MetaBackend("bfloat16"), architecture)))
    )
    moved = count(keys=16).bytes.total()
    assert weights < moved < 1.1 * weights


def test_a_product_is_one_operation() -> None:
    assert count().operations["linear"] == 2 * 4 + 1
    assert count().operations["scaled_dot_product_attention"] == 2


def test_bytes_of_a_cache() -> None:
    """In bfloat16 they are read; codes are read, and their numbers written and read; a code of 4 bits is taken out of
    its byte before. What scales and biases add is a sixteenth."""
    assert 2 <= bytes_a_number(None) < 2.1
    assert 5 <= bytes_a_number(8) < 5.3
    assert 8.5 <= bytes_a_number(4) < 9.3


def test_operations_of_a_cache() -> None:
    plain = count().operations.total()
    for bits, most in ((8, 40), (4, 50)):
        assert count(kv_bits=bits).operations.total() - plain <= 2 * most  # of two layers


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import counted

    monkeypatch.setattr(counted, "SHAPES", {"tiny": CONFIG})
    monkeypatch.setattr("sys.argv", ["counted.py", "--shapes", "tiny", "--keys", "64"])
    counted.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(counted.PRECISIONS)

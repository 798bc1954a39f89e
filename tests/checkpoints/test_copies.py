"""Nothing in a checkpoint is left out unless it was seen to be a copy: second heads, masks, frequencies."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minigen
from minigen.checkpoints.checkpoint import read_headers
from minigen.checkpoints.convert import convert
from minigen.checkpoints.fingerprint import fingerprint
from minigen.checkpoints.saving import write_tensors
from minigen.checkpoints.weight_files import INDEX, SINGLE
from minigen.errors import CheckpointError
from minigen.families import stored
from minigen.families.stored import same_values

LLAMA = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32,
}  # fmt: skip
GPT2 = {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16}
LSTM = {"vocab_size": 40, "embedding_size": 12, "hidden_size": 12, "num_layers": 1}
SHAPES = {"gpt2": GPT2, "lstm_lm": LSTM, "gru_lm": LSTM, "rnn_lm": LSTM}
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "lstm_lm", "gru_lm", "rnn_lm")
HEADS = dict.fromkeys(("lstm_lm", "gru_lm", "rnn_lm"), "decoder.weight")
EMBEDDINGS = dict.fromkeys(HEADS, "embedding.weight") | {"gpt2": "transformer.wte.weight"}
IDS = [[1, 5, 9, 33, 2]]

Make = Callable[..., Path]
Change = Callable[[dict[str, Any]], None]


def edit(folder: Path, **changes: Any) -> None:
    """In config.json; ... takes a key out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))


def change_tensors(folder: Path, change: Change) -> None:
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, folder / SINGLE)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make("llama"): a random model with a head of its own, whose config says that the head is the embedding."""
    from tests.conftest import write_checkpoint

    def model(
        family: str = "llama", name: str = "model", tied: Any = True, change: Change | None = None
    ) -> Path:
        config = {"model_type": family, "tokenizer": "bytes", **SHAPES.get(family, LLAMA)}
        folder = write_checkpoint(tmp_path / name, {**config, "tie_word_embeddings": False}, seed=3)
        if change is not None:
            change_tensors(folder, change)
        edit(folder, tie_word_embeddings=tied)
        return folder

    return model


def names(family: str) -> tuple[str, str]:
    """Of the head and of the embedding."""
    return HEADS.get(family, "lm_head.weight"), EMBEDDINGS.get(family, "model.embed_tokens.weight")


def copy_head(family: str = "llama") -> Change:
    head, embedding = names(family)

    def change(tensors: dict[str, Any]) -> None:
        tensors[head] = tensors[embedding].copy()

    return change


def has_head(model: minigen.Model) -> bool:
    return "weight" in model.runner.params.get("head", {})


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("minigen")]


# -- a second head --
@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_of_its_own_counts(
    make: Make, backend: str, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make(family)
    if family == "gpt2":
        edit(folder, tie_word_embeddings=...)  # what it is where nothing is said
    found = minigen.load(folder, backend, "cpu")
    head, embedding = names(family)
    assert said(caplog) == [
        f"{folder}/config.json ties the head to the embedding, but the stored {head} is not {embedding}: using "
        'the stored one; write "tie_word_embeddings": false there'
    ]
    caplog.clear()
    right = minigen.load(make(family, "right", tied=False), backend, "cpu")
    assert said(caplog) == []
    assert np.array_equal(found.logits(IDS), right.logits(IDS))
    assert found.config["tie_word_embeddings"] is False


def test_another_name_of_the_tie(
    make: Make, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make("lfm2", tied=...)
    edit(folder, tie_embedding=True)
    model = minigen.load(folder, backend, "cpu")
    assert has_head(model)
    assert [message.rsplit("; ", 1)[1] for message in said(caplog)] == [
        'write "tie_embedding": false there'
    ]
    edit(folder, tie_embedding=False)
    assert np.array_equal(model.logits(IDS), minigen.load(folder, backend, "cpu").logits(IDS))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_is_dropped(
    make: Make, backend: str, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    copied = minigen.load(make(family, change=copy_head(family)), backend, "cpu")
    assert said(caplog) == []
    assert not has_head(copied)

    def drop(tensors: dict[str, Any]) -> None:
        del tensors[names(family)[0]]

    assert np.array_equal(
        copied.logits(IDS),
        minigen.load(make(family, "alone", change=drop), backend, "cpu").logits(IDS),
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "lstm_lm"])
def test_as_transformers_has_it(make: Make, family: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    if family == "lstm_lm" or int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("not in transformers, or only from 5 on")
    folder = make(family)
    other = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        wanted = other(torch.tensor(IDS)).logits.numpy()
    assert np.abs(minigen.load(folder, "torch", "cpu").logits(IDS) - wanted).max() < 1e-4


@pytest.mark.parametrize("place", [0, 700, 1279])
def test_one_number_decides(make: Make, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    monkeypatch.setattr(stored, "AT_ONCE", 100)
    monkeypatch.setattr(stored.parts, "__defaults__", (100,))

    def change(tensors: dict[str, Any]) -> None:
        copy_head()(tensors)
        tensors["lm_head.weight"].flat[place] += 1

    assert has_head(minigen.load(make(change=change), device="cpu"))


def test_the_values_count_not_the_dtype(make: Make, tmp_path: Path) -> None:
    """A head in bfloat16 beside an embedding in float32 is a copy where the numbers are the same, and only there."""

    def rounded(tensors: dict[str, Any]) -> None:
        x = tensors["model.embed_tokens.weight"]
        x[:] = (x.view(np.uint32) & 0xFFFF0000).view(np.float32)

    folder = make(change=rounded)
    tensors = load_file(folder / SINGLE)
    del tensors["lm_head.weight"]
    write_tensors(folder / "model-00001-of-00002.safetensors", tensors)
    second = folder / "model-00002-of-00002.safetensors"
    places = dict.fromkeys(tensors, "model-00001-of-00002.safetensors") | {
        "lm_head.weight": second.name
    }
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / SINGLE).unlink()
    embedding = tensors["model.embed_tokens.weight"]
    for head, dtype, kept in (
        (embedding, "bfloat16", False),
        (embedding, "float32", False),
        (embedding, "float16", True),  # it has more bits for a number, but not for so small ones
        (embedding * np.float32(1.01), "bfloat16", True),
    ):
        head = head.copy()
        if dtype == "float16":
            head[0, 0] = 1e-9
        write_tensors(second, {"lm_head.weight": head}, dtype)
        assert has_head(minigen.load(folder, device="cpu")) == kept


def test_special_numbers(tmp_path: Path) -> None:
    x = np.array([0.0, np.nan, np.inf, 1.0], np.float32)
    other = {
        "same": x,
        "sign": x * np.float32(1),
        "bits": x.view(np.uint32),
        "wide": x.reshape(2, 2),
    }
    other["sign"] = np.array([-0.0, -np.nan, np.inf, 1.0], np.float32)
    save_file(
        {"x": x, **other, "not": np.array([0.0, np.nan, -np.inf, 1.0], np.float32)},
        tmp_path / SINGLE,
    )
    found = read_headers(tmp_path)
    alike = {name: same_values(found["x"], found[name]) for name in found}
    assert alike == {
        "x": True,
        "same": True,
        "sign": True,
        "bits": False,
        "wide": False,
        "not": False,
    }


def test_large_heads_are_compared_in_parts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no further than to the first difference."""
    read: list[int] = []
    chunks = stored.chunks

    def counted(*args: Any) -> Any:
        for data in chunks(*args):
            read.append(len(data))
            yield data

    monkeypatch.setattr(stored, "chunks", counted)
    monkeypatch.setattr(stored.parts, "__defaults__", (128,))
    minigen.load(make(change=copy_head()), device="cpu")
    assert max(read) == 512
    assert sum(read) == 2 * 40 * 32 * 4
    read.clear()
    minigen.load(make(name="other"), device="cpu")
    assert read == [512, 512]


@pytest.mark.parametrize("bits", ["4", "8"])
def test_quantized_heads(
    make: Make, tmp_path: Path, backend: str, bits: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In mlx-lm's layout: codes, scales and biases are a copy together."""
    for name, change, kept in (("copied", copy_head(), False), ("own", None, True)):
        folder = tmp_path / f"{name}-{bits}"
        convert(
            make(name=name, tied=False, change=change),
            folder,
            quant=bits,
            group=32,
            backend=backend,
        )
        assert "lm_head.scales" in read_headers(folder)
        right = minigen.load(folder, backend, "cpu").logits(IDS)
        edit(folder, tie_word_embeddings=True)
        caplog.clear()
        found = minigen.load(folder, backend, "cpu")
        assert np.array_equal(found.logits(IDS), right)
        assert has_head(found) == kept == bool(said(caplog))
        assert found.quant == f"q{bits}"


def test_quantized_heads_that_differ_in_a_part(make: Make, tmp_path: Path) -> None:
    convert(make(tied=False, change=copy_head()), tmp_path / "q", quant="4", group=32)
    edit(tmp_path / "q", tie_word_embeddings=True)
    for i, part in enumerate(("weight", "scales", "biases")):
        folder = tmp_path / f"q{i}"
        shutil.copytree(tmp_path / "q", folder)

        def change(tensors: dict[str, Any], part: str = part) -> None:
            tensors[f"lm_head.{part}"].flat[-1] += 1

        change_tensors(folder, change)
        assert has_head(minigen.load(folder, device="cpu"))
    # In floats beside a quantized embedding it is another matrix; so it is under another size of group.
    plain = tmp_path / "plain"
    shutil.copytree(tmp_path / "q", plain)

    def as_floats(tensors: dict[str, Any]) -> None:
        for part in ("weight", "scales", "biases"):
            del tensors[f"lm_head.{part}"]
        tensors["lm_head.weight"] = np.ones((40, 32), np.float32)

    change_tensors(plain, as_floats)
    assert has_head(minigen.load(plain, device="cpu"))


@pytest.mark.parametrize(
    ("name", "shape", "fault"),
    [
        (
            "lm_head.weight",
            (40, 16),
            r"lm_head\.weight is \(40, 16\), the config asks for \(40, 32\)",
        ),
        ("lm_head.weight", (39, 32), r"lm_head\.weight is \(39, 32\)"),
        (
            "lm_head.scales",
            (40, 1),
            r"1 missing: lm_head\.weight \(40, 32\); 1 unexpected: lm_head\.scales",
        ),
        ("lm_head.bias", (40,), r"1 unexpected: lm_head\.bias"),
    ],
)
def test_a_head_that_is_none(make: Make, name: str, shape: tuple[int, ...], fault: str) -> None:
    def change(tensors: dict[str, Any]) -> None:
        del tensors["lm_head.weight"]
        tensors[name] = np.zeros(shape, np.float32)

    with pytest.raises(CheckpointError, match=fault):
        minigen.load(make(change=change), device="cpu")


def test_convert_keeps_the_head(
    make: Make, tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    for family in ("llama", "gpt2", "lstm_lm"):
        folder, out = make(family, family), tmp_path / f"{family}-out"
        right = minigen.load(folder, backend, "cpu").logits(IDS)
        convert(folder, out, backend=backend)
        assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
        caplog.clear()
        assert np.array_equal(minigen.load(out, backend, "cpu").logits(IDS), right)
        assert said(caplog) == []
        convert(
            folder, tmp_path / f"{family}-q", quant="8", group=32, backend=backend
        ) if family != "lstm_lm" else None


def test_an_adapter_on_a_head_of_its_own(make: Make, tmp_path: Path, backend: str) -> None:
    base, folder = make(), tmp_path / "adapter"
    folder.mkdir()
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 32), (40, 2)))
    prefix = "base_model.model.lm_head"
    save_file(
        {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))

    def change(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] += b @ a

    merged = make(name="merged", change=change)
    found, wanted = (minigen.load(x, backend, "cpu").logits(IDS) for x in (folder, merged))
    assert np.abs(found - wanted).max() < 1e-5


def test_the_fingerprint_is_that_of_the_files(make: Make) -> None:
    folder = make()
    before = fingerprint(folder)
    minigen.load(folder, device="cpu")
    assert fingerprint(folder) == before


# -- what the model computes itself --
def mask(size: int, dtype: Any, **changes: float) -> Any:
    x = np.tril(np.ones((1, 1, size, size), dtype))
    for place, value in changes.items():
        row, column = map(int, place.strip("x").split("_"))
        x[0, 0, row, column] = value
    return x


@pytest.mark.parametrize(
    ("stored", "warned"),
    [
        ({"bias": mask(16, np.float32)}, False),
        ({"bias": mask(16, np.uint8)}, False),
        ({"bias": mask(16, np.bool_)}, False),
        ({"bias": mask(16, np.float16)}, False),
        ({"bias": mask(24, np.int64)}, False),
        ({"bias": mask(16, np.float32, x3_4=1)}, True),
        ({"bias": mask(16, np.float32, x15_0=0)}, True),
        ({"bias": mask(16, np.float32, x0_0=float("nan"))}, True),
        ({"bias": np.ones((1, 1, 16, 16), np.bool_)}, True),
        ({"bias": np.zeros((1, 1, 16, 16), np.uint8)}, True),
        ({"bias": np.ones((16, 16), np.float32)}, True),
        ({"bias": np.ones(32, np.float32)}, True),
        ({"masked_bias": np.array(-10000.0, np.float32)}, False),
        ({"masked_bias": np.array(-9984.0, np.float32)}, False),  # -10000 in bfloat16
        ({"masked_bias": np.array([-1e9], np.float32)}, False),
        ({"masked_bias": np.array(0.0, np.float32)}, True),
        ({"masked_bias": np.array(-1.0, np.float16)}, True),
        ({"masked_bias": np.full(2, -1e9, np.float32)}, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("bare", [False, True])
def test_masks(
    make: Make, bare: bool, stored: dict[str, Any], warned: bool, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("minigen.families.gpt2.AT_ONCE", 40)  # two rows and a half

    def change(tensors: dict[str, Any]) -> None:
        copy_head("gpt2")(tensors)
        tensors |= {f"transformer.h.1.attn.{name}": x for name, x in stored.items()}
        if bare:
            for name in [name for name in tensors if name.startswith("transformer.")]:
                tensors[name.removeprefix("transformer.")] = tensors.pop(name)

    minigen.load(make("gpt2", change=change), device="cpu")
    assert [
        ("h.1.attn." in line, line.endswith(": using the latter")) for line in said(caplog)
    ] == ([(True, True)] if warned else [])


def frequencies(theta: float = 10000.0, dims: int = 8) -> Any:
    return (1.0 / theta ** (np.arange(0, dims, 2) / dims)).astype(np.float32)


LINEAR = {"rope_scaling": {"type": "linear", "factor": 4.0}}


@pytest.mark.parametrize(
    ("config", "stored", "warned"),
    [
        ({}, frequencies(), False),
        ({}, frequencies().astype(np.float16), False),
        ({"rope_theta": 1e6}, frequencies(1e6).astype(np.float16), False),
        ({"rope_theta": 1e6}, frequencies(), True),
        ({}, frequencies(500.0), True),
        ({}, frequencies(dims=16), True),
        (LINEAR, frequencies() / 4, False),
        (LINEAR, frequencies(), False),  # where the positions were divided
        (LINEAR, frequencies() / 2, True),
        ({}, frequencies() * np.float32("nan"), True),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"]
)
def test_frequencies(
    make: Make,
    name: str,
    config: dict[str, Any],
    stored: Any,
    warned: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def change(tensors: dict[str, Any]) -> None:
        copy_head()(tensors)
        tensors[name] = stored

    folder = make(change=change)
    edit(folder, **config)
    minigen.load(folder, device="cpu")
    assert said(caplog) == (
        [
            f"{folder} has {name} with other values than the rotary frequencies of its config.json "
            "(rope_theta, rope_scaling): using the latter"
        ]
        if warned
        else []
    )


def test_frequencies_in_bfloat16(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    folder = make(change=copy_head())
    tensors = load_file(folder / SINGLE)
    write_tensors(
        folder / SINGLE, {**tensors, "model.rotary_emb.inv_freq": frequencies()}, "bfloat16"
    )
    minigen.load(folder, device="cpu")
    assert said(caplog) == []

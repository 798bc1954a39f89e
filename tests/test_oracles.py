"""Tiny models and real ones against outputs that other programs computed for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import minigen
from minigen.backends import Backend
from minigen.layers.cells import CELLS, RecurrentBlock
from minigen.layers.step import Step
from minigen.model import Model

WITH_KERNELS = True  # see conftest.py

DECODERS = (
    "gpt2",
    "gpt2_hubnames",
    "llama",
    "llama_rope_llama3",
    "llama_rope_linear",
    "llama_bf16_sharded",
    "mistral",
    "qwen2",
    "qwen3",
    "lfm2",
)
CHARACTER_MODELS = ("charrnn-shakespeare", "charrnn-bronte")


def reference(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return json.loads((folder / "reference.json").read_text()), load_file(
        folder / "reference.safetensors"
    )


def oracle(shared: Path, name: str) -> Path:
    """The folder of a model that was made for comparison."""
    return next(
        folder
        for folder in (shared / "oracles" / name, shared / "oracles2" / name)
        if folder.is_dir()
    )


def load(folder: Path, backend: str, device: str) -> Model:
    return minigen.load(folder, backend=backend, device=device, dtype="float32")


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_logits_and_greedy_tokens(
    shared: Path, backend: str, device: str, name: str
) -> None:
    folder = oracle(shared, name)
    facts, arrays = reference(folder)
    model = load(folder, backend, device)
    logits = model.logits(arrays["ids"])[:, facts["logit_positions"]]
    assert np.abs(logits - arrays["logits"]).max() <= 2e-4
    prompts = [case["prompt"] for case in facts["greedy"]]
    wanted = [case["continuation"] for case in facts["greedy"]]
    assert len({len(prompt) for prompt in prompts}) > 1  # so that the batch is padded
    greedy = {"max_tokens": len(wanted[0]), "temperature": 0, "ignore_eos": True}
    assert [model.generate_ids([prompt], **greedy)[0] for prompt in prompts] == wanted
    assert model.generate_ids(prompts, **greedy) == wanted


OLDER = ("gpt2", "llama", "mistral", "qwen3", "llama_rope_llama3", "llama_rope_linear", "lfm2")


@pytest.mark.parametrize(
    ("name", "config"),
    [*((name, "config_legacy.json") for name in OLDER), ("lfm2", "config_sparse.json")],
)
def test_older_config_gives_the_same_model(
    shared: Path, tmp_path: Path, backend: str, device: str, name: str, config: str
) -> None:
    folder = oracle(shared, name)
    for file in folder.glob("*.safetensors"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").write_text((folder / config).read_text())
    ids = np.arange(12)[None]
    new, old = load(folder, backend, device), load(tmp_path, backend, device)
    assert new.architecture == old.architecture
    assert np.array_equal(new.logits(ids), old.logits(ids))


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_penalties_and_beams(shared: Path, backend: str, device: str, name: str) -> None:
    folder = oracle(shared, name)
    extra = reference(folder)[0]["extra"]
    model = load(folder, backend, device)
    prompt = [extra["prompt"]]
    greedy = {"temperature": 0, "ignore_eos": True}
    penalised = model.generate_ids(prompt, max_tokens=32, repetition_penalty=1.3, **greedy)
    assert penalised == [extra["greedy_repetition_penalty_1_3"]]
    unrepeated = model.generate_ids(prompt, max_tokens=32, no_repeat_ngram_size=2, **greedy)
    assert unrepeated == [extra["greedy_no_repeat_ngram_2"]]
    beams = model.generate_ids(prompt, max_tokens=12, beams=3, ignore_eos=True)
    assert beams == [extra["beam3"]]


def test_stories_greedy_text_and_logits(shared: Path, backend: str, device: str) -> None:
    folder = shared / "models" / "stories260K"
    facts = json.loads((folder / "reference.json").read_text())
    arrays = load_file(folder / "reference_logits.safetensors")
    model = load(folder, backend, device)
    prompts = [case["prompt"] for case in facts["cases"]]
    for i, case in enumerate(facts["cases"]):
        assert model.needed_tokenizer.encode(case["prompt"]) == case["prompt_ids"]
        ids = case["prompt_ids"] + case["greedy_ids"]
        logits = model.logits([ids])[0, case["logit_positions"]]
        assert np.abs(logits - arrays[f"{i}.logits"]).max() <= 2e-4
        (greedy,) = model.generate_ids(
            [case["prompt_ids"]], max_tokens=200, temperature=0, ignore_eos=True
        )
        assert greedy == case["greedy_ids"]
    texts = model.generate(prompts, max_tokens=200, temperature=0)
    assert [p + t for p, t in zip(prompts, texts, strict=True)] == [
        case["full_text"] for case in facts["cases"]
    ]


@pytest.mark.parametrize("name", CHARACTER_MODELS)
def test_character_models(shared: Path, backend: str, device: str, name: str) -> None:
    folder = shared / "models" / name
    facts = json.loads((folder / "reference.json").read_text())
    wanted = load_file(folder / "reference_logits.safetensors")["logits"]
    model = load(folder, backend, device)
    assert model.needed_tokenizer.encode(facts["prompt"]) == facts["prompt_ids"]
    assert model.generate(facts["prompt"], max_tokens=200, temperature=0) == facts["greedy_text"]
    logits = model.logits([facts["prompt_ids"] + facts["greedy_ids"]])[0]
    at = [len(facts["prompt_ids"]) - 1 + n for n in facts["logits_after_n_greedy_tokens"]]
    assert np.abs(logits[at] - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())


def test_recurrent_language_model(shared: Path, backend: str, device: str) -> None:
    folder = shared / "oracles" / "lstm_lm"
    facts, arrays = reference(folder)
    model = load(folder, backend, device)
    logits = model.logits(arrays["ids"])[:, facts["logit_positions"]]
    assert np.abs(logits - arrays["logits"]).max() <= 1e-5
    prompts = [case["prompt"] for case in facts["greedy"]]
    wanted = [case["continuation"] for case in facts["greedy"]]
    assert model.generate_ids(prompts, max_tokens=len(wanted[0]), temperature=0) == wanted
    state = model.architecture.new_state(model.runner.ops, 2, 24)
    model.runner.read(arrays["ids"], state)
    for layer in range(len(model.architecture.blocks)):
        h, c = state.contents[layer, "h"], state.contents[layer, "c"]
        assert np.abs(model.runner.ops.numpy(h) - arrays["hn"][layer]).max() <= 1e-5
        assert np.abs(model.runner.ops.numpy(c) - arrays["cn"][layer]).max() <= 1e-5


@pytest.mark.parametrize("name", ["lstm_1layer", "lstm_2layer"])
@pytest.mark.parametrize("start", ["", "_zero_state"])
def test_lstm_layers(shared: Path, ops: Backend, name: str, start: str) -> None:
    folder = oracle(shared, name)
    arrays = load_file(folder / "reference.safetensors")
    weights = {key: ops.asarray(x) for key, x in load_file(folder / "model.safetensors").items()}
    x = ops.asarray(arrays["x"])
    for layer in range(len(arrays["h0"])):
        p = {
            key.removesuffix(f"_l{layer}"): w
            for key, w in weights.items()
            if key.endswith(f"_l{layer}")
        }
        first = [arrays["h0"][layer], arrays["c0"][layer]]
        state = tuple(ops.asarray(np.zeros_like(s) if start else s) for s in first)
        block = RecurrentBlock(CELLS["lstm"], x.shape[-1], state[0].shape[-1])
        x, (h, c) = block.run(ops, p, x, Step(0, x.shape[1]), state)
        assert np.abs(ops.numpy(h) - arrays[f"hn{start}"][layer]).max() <= 1e-5
        assert np.abs(ops.numpy(c) - arrays[f"cn{start}"][layer]).max() <= 1e-5
    assert np.abs(ops.numpy(x) - arrays[f"y{start}"]).max() <= 1e-5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_seed_gives_the_same_text_on_both_backends(shared: Path, seed: int) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx.core")
    drawn = {}
    for backend in ("torch", "mlx"):
        model = minigen.load(shared / "models" / "stories260K", backend=backend, device="cpu")
        settings = {
            "max_tokens": 200,
            "temperature": 0.8,
            "top_p": 0.95,
            "seed": seed,
            "ignore_eos": True,
        }
        drawn[backend] = model.generate_ids([[1, 403, 407], [1, 291, 280, 294, 262]], **settings)
        assert len(drawn[backend][0]) == 200
        if seed == 0:
            alone = [
                model.generate_ids([p], **settings)[0]
                for p in ([1, 403, 407], [1, 291, 280, 294, 262])
            ]
            assert drawn[backend] == alone
    assert drawn["torch"] == drawn["mlx"]

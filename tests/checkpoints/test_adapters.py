"""Adapters of PEFT, made elsewhere: either merged as PEFT does, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minigen
from minigen.checkpoints.adapters import is_adapter, read_adapter
from minigen.errors import MinigenError
from minigen.reading.patterns import Matcher

Make = Callable[..., Path]
IDS = np.arange(20).reshape(2, 10) * 7
MODULES = {
    "llama": {
        "model.layers.0.self_attn.q_proj": (32, 32),
        "model.layers.1.mlp.down_proj": (32, 48),
    },
    "gpt2": {"transformer.h.0.attn.c_attn": (96, 32), "transformer.h.1.mlp.c_fc": (128, 32)},
}


@pytest.fixture
def adapter(tiny: Callable[[str], Path], tmp_path: Path) -> Make:
    """adapter("llama", ranks=(3, 2), alpha_pattern=...): an adapter's folder, of random matrices."""

    def make(model: str = "llama", ranks: tuple[int, ...] = (3, 3), more: dict[str, Any] | None = None,
             **changes: Any) -> Path:  # fmt: skip
        rng, tensors = np.random.default_rng(5), {}
        for (module, (rows, columns)), rank in zip(MODULES[model].items(), ranks, strict=True):
            for half, shape in (("A", (rank, columns)), ("B", (rows, rank))):
                name = f"base_model.model.{module}.lora_{half}.weight"
                tensors[name] = rng.standard_normal(shape).astype(np.float32) * 0.3
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        config = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(tiny(model)), "r": 3,
            "lora_alpha": 6, "bias": "none", "target_modules": ["x"], "modules_to_save": None, "use_dora": False,
            "alpha_pattern": {}, "rank_pattern": {}, "loftq_config": {}, "layers_to_transform": None,
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))
        save_file(tensors | (more or {}), folder / "adapter_model.safetensors")
        return folder

    return make


def by_hand(adapter: Path, base: Path, out: Path, scales: tuple[float, float]) -> Path:
    """The base with the adapter added in NumPy."""
    shutil.copytree(base, out)
    tensors, pairs = (
        load_file(base / "model.safetensors"),
        load_file(adapter / "adapter_model.safetensors"),
    )
    modules = dict.fromkeys(name.rsplit(".", 2)[0] for name in pairs)
    for module, scale in zip(sorted(modules), scales, strict=True):
        name = module.removeprefix("base_model.model.") + ".weight"
        change = scale * pairs[f"{module}.lora_B.weight"] @ pairs[f"{module}.lora_A.weight"]
        tensors[name] = tensors[name] + (change.T if "transformer.h" in name else change)
    save_file(tensors, out / "model.safetensors")
    return out


@pytest.mark.parametrize(
    ("model", "ranks", "changes", "scales"),
    [
        ("llama", (3, 3), {}, (2.0, 2.0)),
        ("gpt2", (3, 3), {"fan_in_fan_out": True}, (2.0, 2.0)),
        ("llama", (3, 3), {"use_rslora": True}, (6 / 3**0.5, 6 / 3**0.5)),
        ("llama", (3, 2), {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"down_proj": 1}}, (2.0, 0.5)),
        ("gpt2", (1, 3), {"rank_pattern": {"h.0.attn.c_attn": 1}, "alpha_pattern": {"attn": 9, r"h\.1\..*": 3}},
         (6.0, 1.0)),
    ],
)  # fmt: skip
def test_merged_as_by_hand(
    adapter: Make, tiny: Callable[[str], Path], tmp_path: Path, backend: str, model: str, ranks: tuple[int, ...],
    changes: dict[str, Any], scales: tuple[float, float],
) -> None:  # fmt: skip
    folder = adapter(model, ranks, **changes)
    wanted = minigen.load(
        by_hand(folder, tiny(model), tmp_path / "wanted", scales), backend, "cpu"
    ).logits(IDS)
    found = minigen.load(folder, backend, "cpu")
    assert np.abs(found.logits(IDS) - wanted).max() < 1e-4
    assert np.abs(minigen.load(tiny(model), backend, "cpu").logits(IDS) - wanted).max() > 0.1
    assert found.tokenizer is not None  # its base's
    assert found.tokenizer.kind == "bytes"


def test_a_base_saved_without_its_prefix(
    adapter: Make, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny("gpt2"), bare)
    tensors = load_file(bare / "model.safetensors")
    save_file(
        {name.removeprefix("transformer."): x for name, x in tensors.items()},
        bare / "model.safetensors",
    )
    wanted = minigen.load(adapter("gpt2")).logits(IDS)
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(bare)})
    )
    assert np.array_equal(minigen.load(tmp_path / "adapter").logits(IDS), wanted)


def test_its_own_texts_come_first(adapter: Make) -> None:
    folder = adapter()
    assert minigen.load(folder).stop_ids == frozenset()
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    assert minigen.load(folder).stop_ids == {3, 4}


def half(module: str, which: str, *shape: int) -> dict[str, Any]:
    return {f"base_model.model.{module}.lora_{which}.weight": np.zeros(shape, np.float32)}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "kind": (
        {"peft_type": "IA3"},
        r"adapter_config\.json: peft_type is 'IA3': minigen reads plain LoRA adapters; ",
    ),
    "dora": (
        {"use_dora": True},
        r"use_dora is True: minigen reads plain LoRA adapters; merge this one with PEFT",
    ),
    "bias": ({"bias": "all"}, r"bias is 'all': "),
    "modules": ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]: "),
    "pissa": ({"init_lora_weights": "pissa"}, r"init_lora_weights is 'pissa': "),
    "future": ({"use_something_new": {"x": 1}}, r"use_something_new is \{'x': 1\}: "),
    "alpha": (
        {"lora_alpha": None},
        r"alpha of model\.layers\.0\.self_attn\.q_proj is None: it must be a number$",
    ),
    "pattern": (
        {"alpha_pattern": {"(": 3}},
        r"alpha_pattern is \{'\(': 3\}: it must map names to numbers$",
    ),
    "huge alpha": (
        {"lora_alpha": 10**400},
        r"alpha of model\.layers\.0\.self_attn\.q_proj is 10+\.\.\.: it must be a n",
    ),
    "no alpha": ({"lora_alpha": float("nan")}, r"alpha of .* is nan: it must be a number$"),
    "infinite alpha": (
        {"alpha_pattern": {"q_proj": float("inf")}},
        r"alpha of .* is inf: it must be a number$",
    ),
    "a list of alphas": (
        {"alpha_pattern": {"q_proj": [1]}},
        r"alpha of .* is \[1\]: it must be a number$",
    ),
    "no patterns": (
        {"alpha_pattern": [1]},
        r"alpha_pattern is \[1\]: it must map names to numbers$",
    ),
    "no ranks": ({"rank_pattern": "x"}, r"rank_pattern is 'x': it must map names to numbers$"),
    "rank": (
        {"r": 4},
        r"r of .*q_proj is 4, but its matrices have rank 3: one of the two files is from another ad",
    ),
    "rank by name": (
        {"rank_pattern": {"q_proj": 2}},
        r"r of .*q_proj is 2, but its matrices have rank 3",
    ),
    "root": ({"use_rslora": "x"}, r"use_rslora is 'x': it must be true or false$"),
    "nobody": (
        {"base_model_name_or_path": "~no-such-user/x", "revision": "main"},
        r"the base model of adapter .* \(no such",
    ),
    "long base": (
        {"base_model_name_or_path": "x" * 10**6},
        r"cannot load the base .* correct base_model_name_or_path",
    ),
    "base": (
        {"base_model_name_or_path": None},
        r"does not name its base model: correct base_model_name",
    ),
    "gone": (
        {"base_model_name_or_path": "/no/where"},
        r"the base model .* \(no such folder: /no/where\): correct",
    ),
    "embedding": (
        {
            "more": {
                "base_model.model.model.embed_tokens.lora_embedding_A": np.zeros(
                    (3, 256), np.float32
                )
            }
        },
        r"has 'base_model\.model\.model\.embed_tokens\.lora_embedding_A', F32 \(3, 256\): expected only float matrices",
    ),
    "head": (
        {"more": half("lm_head", "A", 3, 32) | half("lm_head", "B", 256, 3)},
        r"does not fit .*llama: the model has no weight lm_head: it was made for another model$",
    ),
    "one half": (
        {"more": half("x", "A", 3, 32)},
        r"x has lora_A \(3, 32\): expected lora_A \(rank, in\) and lora_B",
    ),
    "ranks": (
        {"more": half("x", "A", 3, 9) | half("x", "B", 9, 2)},
        r"x has lora_A \(3, 9\), lora_B \(9, 2\): expec",
    ),
    "shape": (
        {
            "more": half("model.layers.0.mlp.up_proj", "A", 3, 31)
            | half("model.layers.0.mlp.up_proj", "B", 48, 3)
        },
        r"does not fit .*llama: layers\.0\.mlp\.up_proj is \(48, 31\), the model's is \(48, 32\): it was made",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(adapter: Make, what: str) -> None:
    changes, message = REFUSED[what]
    folder = adapter(**changes)
    with pytest.raises(MinigenError, match=message) as caught:
        minigen.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["alpha_pattern", "rank_pattern"])
def test_a_pattern_takes_its_time(adapter: Make, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """The usual engine takes longer than anybody waits for these."""
    assert (
        read_adapter(adapter(**{key: {r"(([a-z0-9_.])+)+!": 1}}))
        .pairs["model.layers.0.self_attn.q_proj"]
        .scale
        == 2
    )
    monkeypatch.setattr("minigen.checkpoints.adapters.Matcher", lambda: Matcher(0.0))
    with pytest.raises(
        MinigenError, match=rf"{key} has .* takes more than 0 seconds to match: name the modules$"
    ):
        read_adapter(adapter(**{key: {"x": 1}}))


def test_files_that_are_missing(adapter: Make, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = adapter()
    assert is_adapter(folder)
    assert not is_adapter(tiny("llama"))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(
        MinigenError,
        match=r"has no adapter_model\.safetensors; .* only as a pickle \(adapter_model\.b",
    ):
        minigen.load(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(MinigenError, match=r"has no adapter_model\.safetensors, so it has no w"):
        minigen.load(folder)


@pytest.mark.parametrize("model", MODULES)
@pytest.mark.filterwarnings("ignore")  # PEFT's own
def test_peft_opens_it_alike(adapter: Make, tiny: Callable[[str], Path], model: str) -> None:
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    names = [name.rsplit(".", 1)[-1] for name in MODULES[model]]
    layers = {"layers_pattern": None, "layers_to_transform": None}
    folder = adapter(model, (3, 2), target_modules=names, rank_pattern={names[1]: 2}, alpha_pattern={names[1]: 5},
                     fan_in_fan_out=model == "gpt2", **layers)  # fmt: skip
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny(model), dtype=torch.float32)
    with torch.inference_mode():
        wanted = peft.PeftModel.from_pretrained(base, folder)(torch.from_numpy(IDS)).logits.numpy()
    assert np.abs(minigen.load(folder, "torch", "cpu").logits(IDS) - wanted).max() < 1e-4

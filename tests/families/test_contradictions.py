"""A config.json that says a thing twice: what counts, what is warned of, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.errors import CheckpointError
from minigen.families import HubConfig, find_family
from minigen.layers.positions import LinearScaling, Llama3Scaling, Rotary

LLAMA = {
    "model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 40,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
}
LINEAR, YARN = {"type": "linear", "factor": 2.0}, {"rope_type": "yarn", "factor": 4.0}
NEW_LINEAR = {"rope_type": "linear", "factor": 2.0}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip
BOTH = "rope_scaling and rope_parameters scale differently: using rope_scaling"
RARE = {"rope_type": "default", "rope_theta": 5e4}


def read(config: dict[str, Any], **changes: Any) -> tuple[Any, list[str]]:
    """The architecture and the warnings."""
    c = HubConfig({**config, **changes})
    built = find_family(c.values).build(c)
    return built, [line.removeprefix("config.json: ") for line in c.warnings]


def refused(config: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(config, **changes)
    return str(caught.value)


def rotation(theta: float = 1e4, scaling: Any = None) -> Rotary:
    return Rotary(8, theta, scaling)


HALF = LinearScaling(2.0)
SCALED = Llama3Scaling(4.0, 1.0, 4.0, 16)

# name: (what config.json has, what is computed, the warnings)
ROPE: dict[str, tuple[dict[str, Any], Rotary, list[str]]] = {
    "nothing": ({}, rotation(), []),
    "theta": ({"rope_theta": 500}, rotation(500.0), []),
    "old": ({"rope_theta": 500, "rope_scaling": LINEAR}, rotation(500.0, HALF), []),
    "old, the new spelling": ({"rope_scaling": NEW_LINEAR}, rotation(1e4, HALF), []),
    "both spellings": ({"rope_scaling": {**LINEAR, **NEW_LINEAR}}, rotation(1e4, HALF), []),
    "a null spelling": ({"rope_scaling": {**LINEAR, "rope_type": None}}, rotation(1e4, HALF), []),
    "another null": ({"rope_scaling": {**NEW_LINEAR, "type": None}}, rotation(1e4, HALF), []),
    "new": ({"rope_parameters": {**NEW_LINEAR, "rope_theta": 500}}, rotation(500.0, HALF), []),
    "new, the old spelling": ({"rope_parameters": {**LINEAR, "rope_theta": 500}}, rotation(500.0, HALF), []),
    "new, theta beside": ({"rope_parameters": NEW_LINEAR, "rope_theta": 500}, rotation(500.0, HALF), []),
    "null scaling": ({"rope_scaling": None, "rope_parameters": RARE}, rotation(5e4), []),
    "empty scaling": ({"rope_scaling": {}, "rope_parameters": RARE}, rotation(5e4), []),
    "null parameters": ({"rope_scaling": LINEAR, "rope_parameters": None}, rotation(1e4, HALF), []),
    "equal": ({"rope_scaling": LINEAR, "rope_parameters": NEW_LINEAR}, rotation(1e4, HALF), []),
    "equal, with one theta": (
        {"rope_scaling": LINEAR, "rope_parameters": {**NEW_LINEAR, "rope_theta": 500}, "rope_theta": 500},
        rotation(500.0, HALF), [],
    ),
    "equal, llama3": (
        {"rope_scaling": {**LLAMA3, "type": "llama3"}, "rope_parameters": {**LLAMA3, "rope_theta": 1e4}},
        rotation(1e4, SCALED), [],
    ),
    "added by hand": (
        {"rope_scaling": LINEAR, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        rotation(1e4, HALF), [BOTH],
    ),
    "other factors": (
        {"rope_scaling": LINEAR, "rope_parameters": {**LINEAR, "factor": 3}}, rotation(1e4, HALF), [BOTH],
    ),
    "switched off by hand": ({"rope_scaling": {"type": "default"}, "rope_parameters": LINEAR}, rotation(), [BOTH]),
    "other types": ({"rope_scaling": LLAMA3, "rope_parameters": LINEAR}, rotation(1e4, SCALED), [BOTH]),
    "theta of the new and beside it": (
        {"rope_parameters": RARE, "rope_theta": 500}, rotation(5e4),
        ["rope_theta is 50000, but 500 in config.json itself: using 50000"],
    ),
    "theta of the old and beside it": (
        {"rope_scaling": {**LINEAR, "rope_theta": 7e4}, "rope_theta": 500}, rotation(7e4, HALF),
        ["rope_theta is 70000, but 500 in config.json itself: using 70000"],
    ),
    "three thetas": (
        {"rope_scaling": {**LINEAR, "rope_theta": 7e4}, "rope_parameters": {**LINEAR, "rope_theta": 6e4},
         "rope_theta": 5}, rotation(7e4, HALF),
        ["rope_theta is 70000, but 60000 in rope_parameters: using 70000",
         "rope_theta is 70000, but 5 in config.json itself: using 70000"],
    ),
    "theta beside both": (
        {"rope_scaling": LINEAR, "rope_parameters": {**LINEAR, "rope_theta": 6e4}, "rope_theta": 500},
        rotation(500.0, HALF), ["rope_theta is 500, but 60000 in rope_parameters: using 500"],
    ),
    "no type": (
        {"rope_scaling": {"factor": 8.0}}, rotation(),
        ["rope_scaling has 'factor', which the type default does not use"],
    ),
    "a key of yarn": (
        {"rope_scaling": {**LINEAR, "beta_fast": 32, "attention_factor": None}}, rotation(1e4, HALF),
        ["rope_scaling has 'beta_fast', which the type linear does not use"],
    ),
    "two originals": (
        {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32}, "original_max_position_embeddings": 16},
        rotation(1e4, SCALED), ["original_max_position_embeddings is 16, but 32 inside: using 16"],
    ),
    "the original beside": (
        {"rope_scaling": {key: value for key, value in LLAMA3.items() if key != "original_max_position_embeddings"},
         "original_max_position_embeddings": 16},
        rotation(1e4, SCALED), [],
    ),
    "the whole head": ({"partial_rotary_factor": 1.0, "rope_scaling": {**LINEAR, "partial_rotary_factor": 1}},
                       rotation(1e4, HALF), []),
}  # fmt: skip


@pytest.mark.parametrize("name", ROPE)
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_rope(family: str, name: str) -> None:
    changes, wanted, warnings = ROPE[name]
    architecture, said = read(LLAMA, model_type=family, **changes)
    assert {block.attention.rotary for block in architecture.blocks} == {wanted}
    assert said == warnings


@pytest.mark.parametrize("name", ROPE)
def test_as_transformers_has_it(tmp_path: Path, name: str) -> None:
    """The frequencies that it computes of the same config.json."""
    transformers = pytest.importorskip("transformers")
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers reads rope_parameters from 5 on")
    changes, wanted, _ = ROPE[name]
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    if name in ("a null spelling", "the whole head"):
        pytest.skip("transformers fails, or computes it for other families")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    found = LlamaRotaryEmbedding(transformers.AutoConfig.from_pretrained(tmp_path)).inv_freq.numpy()
    assert np.allclose(found, wanted.frequencies(), rtol=1e-5, atol=0)


YARN_SAID = "config.json: unknown rope scaling 'yarn': minigen knows default, linear, llama3"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "yarn": ({"rope_scaling": YARN}, YARN_SAID),
    "yarn, the old spelling": ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, YARN_SAID),
    "yarn in the new": ({"rope_parameters": YARN}, YARN_SAID),
    "yarn by hand": ({"rope_scaling": YARN, "rope_parameters": RARE, "rope_theta": 5e4}, YARN_SAID),
    "yarn behind": ({"rope_scaling": LINEAR, "rope_parameters": YARN}, YARN_SAID),
    "yarn of a layer": ({"rope_parameters": {"full_attention": YARN, "sliding_attention": RARE}}, YARN_SAID),
    "a number": ({"rope_scaling": {"type": 5}}, "unknown rope scaling 5"),
    "a list": ({"rope_scaling": {"type": ["linear"]}}, "unknown rope scaling ['linear']"),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "unknown rope scaling 'dynamic'"),
    "by layer": (
        {"rope_parameters": {"full_attention": NEW_LINEAR, "sliding_attention": RARE}},
        "rope_parameters: full_attention is {'rope_type': 'linear', 'factor': 2.0}: minigen has one rotation",
    ),
    "by one layer": ({"rope_parameters": {"full_attention": NEW_LINEAR, "rope_theta": 5}}, "minigen has one rotation"),
    "no rotation": ({"rope_parameters": {"full_attention": None}}, "minigen has one rotation"),
    "spellings": (
        {"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 2.0}},
        "rope_scaling: rope_type is 'default': its other spelling, type, is 'linear': keep the right one",
    ),
    "spellings with yarn": ({"rope_scaling": {**YARN, "type": "linear"}}, "rope_type is 'yarn': its other"),
    "a theta that would be lost": (
        {"rope_scaling": LINEAR, "rope_parameters": RARE},
        "config.json: rope_scaling has no rope_theta, but rope_parameters has 50000: write the right one into",
    ),
    "no object": ({"rope_scaling": "linear"}, "rope_scaling is 'linear': it must be an object"),
    "no object behind": ({"rope_scaling": LINEAR, "rope_parameters": [1]}, "rope_parameters is [1]: it must be"),
    "no factor": ({"rope_scaling": {"type": "linear"}}, "rope_scaling: factor is missing"),
    "NaN": ({"rope_scaling": {**LINEAR, "factor": float("nan")}}, "factor is nan: it must be a number > 0"),
    "a part of the head": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5: minigen rotates whole heads"),
    "a part, inside": ({"rope_parameters": {**RARE, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
    "odd heads": ({"head_dim": 7}, "rotary positions need an even head width, not 7"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_rope_that_is_refused(name: str) -> None:
    changes, message = REFUSED[name]
    assert message in refused(LLAMA, **changes)


# -- windows --
SLIDING, FULL = "sliding_attention", "full_attention"
ON = {"use_sliding_window": True, "sliding_window": 4}
# name: (family, config, the window of each layer, the warnings)
WINDOWS: dict[str, tuple[str, dict[str, Any], list[int | None], list[str]]] = {
    "mistral": ("mistral", {"sliding_window": 4}, [4, 4], []),
    "mistral, none": ("mistral", {"sliding_window": None}, [None, None], []),
    "mistral by layers": ("mistral", {"sliding_window": 4, "layer_types": [SLIDING, FULL]}, [4, None], []),
    "mistral by layers, none": ("mistral", {"sliding_window": 4, "layer_types": [FULL, FULL]}, [None, None], []),
    "mistral with qwen's switch": (
        "mistral", {"sliding_window": 4, "use_sliding_window": False}, [4, 4],
        ["use_sliding_window is false, but Mistral models do not have that setting: using sliding_window 4"],
    ),
    "llama": ("llama", {"sliding_window": 4}, [None, None], []),
    "llama by layers": (
        "llama", {"sliding_window": 4, "layer_types": [SLIDING, FULL]}, [None, None],
        ["layer_types has sliding_attention, which Llama models do not have: using full attention in every layer"],
    ),
    "qwen2 off": ("qwen2", {"sliding_window": 4}, [None, None], []),
    "qwen2 off by layers": ("qwen2", {"sliding_window": 4, "layer_types": [FULL, FULL]}, [None, None], []),
    "qwen2 on": ("qwen2", {**ON, "max_window_layers": 1}, [None, 4], []),
    "qwen2 by layers": ("qwen2", {**ON, "layer_types": [SLIDING, FULL]}, [4, None], []),
    "qwen2 both alike": ("qwen2", {**ON, "layer_types": [FULL, SLIDING], "max_window_layers": 1}, [None, 4], []),
    "qwen3 both": (
        "qwen3", {**ON, "layer_types": [SLIDING, FULL], "max_window_layers": 1}, [4, None],
        ["layer_types and max_window_layers (1) differ: using layer_types"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str) -> None:
    family, changes, wanted, warnings = WINDOWS[name]
    architecture, said = read(LLAMA, model_type=family, **changes)
    assert [block.attention.window for block in architecture.blocks] == wanted
    assert said == warnings


def test_layers_with_a_window_where_there_is_none() -> None:
    types = {"layer_types": [SLIDING, FULL]}
    off = refused(LLAMA, model_type="qwen2", use_sliding_window=False, sliding_window=4, **types)
    assert off.endswith("use_sliding_window is False, sliding_window is 4: correct one")
    assert "use_sliding_window is not given: correct one" in refused(
        LLAMA, model_type="qwen3", **types
    )
    assert "sliding_window is None" in refused(
        LLAMA, model_type="mistral", sliding_window=None, **types
    )
    assert "it must be 2 of" in refused(
        LLAMA, model_type="mistral", layer_types=["chunked_attention"] * 2
    )


# -- one setting, two names --
def test_names_of_gpt2() -> None:
    wanted, _ = read(GPT2)
    general = {"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers",
               "n_positions": "max_position_embeddings"}  # fmt: skip
    renamed = {general.get(key, key): value for key, value in GPT2.items()}
    assert read(renamed) == (wanted, [])
    assert read({**renamed, **GPT2}) == (wanted, [])
    for name, other in general.items():
        message = refused(GPT2, **{other: 3})
        assert f"{name} is {GPT2[name]}: {other}, another name for it, is 3: correct one" in message
    assert read(GPT2, n_ctx=64) == (wanted, [])
    assert read(GPT2, n_ctx=32) == (wanted, ["n_ctx is 32, but n_positions is 64: using 64"])
    alone = {key: value for key, value in GPT2.items() if key != "n_positions"}
    assert read(alone, n_ctx=64) == (wanted, [])


# -- who is told --
def test_a_warning_comes_once(
    make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_model("llama", rope_scaling=LINEAR, rope_parameters={"rope_type": "default"})
    minigen.load(folder, device="cpu")
    assert [record.getMessage() for record in caplog.records] == [f"{folder}/config.json: {BOTH}"]


def test_the_command_says_it(
    make_model: Callable[..., Path], run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    folder = make_model("llama", rope_scaling=LINEAR, rope_parameters={"rope_type": "default"})
    code, _, err = run_cli("generate", str(folder), "-p", "abc", "-n", "2")
    assert (code, err) == (0, f"minigen: warning: {folder}/config.json: {BOTH}\n")

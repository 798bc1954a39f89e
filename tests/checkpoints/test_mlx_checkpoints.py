"""Checkpoints as mlx-lm writes them, in any mode and bits, alike or different by module: the same logits as the model
whose weights are the floats that MLX makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minigen
from minigen.backends.base import Quantized
from minigen.benchmark.plan import model_of
from minigen.benchmark.session import Subject
from minigen.checkpoints.convert import convert
from minigen.errors import CheckpointError, UsageError
from minigen.prompt_cache import load_prompt, save_prompt
from minigen.tree import flatten

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")

Make = Callable[..., Path]
Choice = bool | dict[str, Any]
IDS = np.arange(20).reshape(2, 10) * 7
LLAMA = {"hidden_size": 128, "intermediate_size": 256, "tie_word_embeddings": False}
AFFINE = [
    {"group_size": group, "bits": bits, "mode": "affine"}
    for bits in (2, 3, 5, 6)
    for group in (32, 64, 128)
]
MODES = [
    {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    {"group_size": 32, "bits": 8, "mode": "mxfp8"},
]
MODES += [{"group_size": 16, "bits": 4, "mode": "nvfp4"}]
NULLS = {"group_size": None, "bits": 4, "mode": "affine"}


def label(kind: Mapping[str, Any]) -> str:
    return "-".join(str(value) for value in kind.values())


@pytest.fixture
def calm(make_model: Make) -> Callable[..., Path]:
    """calm("llama", ...): a model of numbers so small that a recurrent one stays close to its own rounding."""

    def make(name: str, **changes: Any) -> Path:
        folder = make_model(name, **changes)
        found = load_file(folder / "model.safetensors")
        less = {name: x * np.float32(0.4 if x.ndim == 2 else 1) for name, x in found.items()}
        save_file(less, folder / "model.safetensors")
        return folder

    return make


def quantize(
    source: Path,
    out: Path,
    default: Mapping[str, Any],
    choices: Mapping[str, Choice] | None = None,
    dtype: str = "float32",
    keys: tuple[str, ...] = ("quantization", "quantization_config"),
) -> Path:
    """Writes to `out` what mlx-lm makes of a model; matrices whose rows do not fit stay as they are. Returns the folder
    of a float model with the numbers that MLX makes of it again."""
    choices = choices or {}
    packed, floats = dict[str, Any](), dict[str, Any]()
    for name, numbers in load_file(source / "model.safetensors").items():
        module, x = name.removesuffix(".weight"), mx.array(numbers).astype(getattr(mx, dtype))
        choice = choices.get(module, True)
        kind = dict(default) if choice is True else choice
        if numbers.ndim < 2 or kind is False or numbers.shape[1] % (kind.get("group_size") or 64):
            packed[name] = x
            floats[name] = np.array(x.astype(mx.float32))
            continue
        weight, *rest = mx.quantize(x, **kind)
        packed |= {name: weight} | {
            f"{module}.{part}": one for part, one in zip(("scales", "biases"), rest, strict=False)
        }
        wide = [one if one.dtype == mx.uint8 else one.astype(mx.float32) for one in rest]
        floats[name] = np.array(mx.dequantize(weight, *wide, **kind, dtype=mx.float32))
    config = json.loads((source / "config.json").read_text())
    declared = {
        **default,
        **{module: choice for module, choice in choices.items() if choice is not True},
    }
    for folder, more in (
        (out, dict.fromkeys(keys, declared)),
        (out.with_name(f"{out.name}-floats"), {}),
    ):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config | more))
    mx.save_safetensors(str(out / "model.safetensors"), packed)
    save_file(floats, out.with_name(f"{out.name}-floats") / "model.safetensors")
    return out.with_name(f"{out.name}-floats")


def check(folder: Path, floats: Path, backend: str) -> minigen.Model:
    model = minigen.load(folder, backend, "cpu", "float32")
    want = minigen.load(floats, backend, "cpu", "float32").logits(IDS)
    assert np.abs(model.logits(IDS) - want).max() <= 2e-5 * np.abs(want).max()
    return model


def held(model: minigen.Model) -> dict[str, Any]:
    """The mode and the bits of each matrix that is held quantized, by the end of its path."""
    tree = flatten(model.runner.params)
    return {path: (x.mode, x.bits) for path, x in tree.items() if isinstance(x, Quantized)}


# -- one kind for all -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", AFFINE + MODES, ids=label)
def test_alike(
    calm: Callable[..., Path],
    tmp_path: Path,
    backend: str,
    kind: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    floats = quantize(calm("llama", **LLAMA), tmp_path / "out", kind)
    model = check(tmp_path / "out", floats, backend)
    name = f"q{kind['bits']}" if kind["mode"] == "affine" else kind["mode"]
    assert model.precision == f"float32 {name}"
    if backend == "mlx":
        assert set(held(model).values()) == {(kind["mode"], kind["bits"])}
        assert caplog.records == []
        return
    if kind["mode"] == "mxfp8":
        now, more = "float32", 3.9
        assert held(model) == {}
    else:
        bits = 4 if kind["mode"] == "affine" and kind["bits"] < 4 else 8
        now, before = (
            f"q{bits}",
            kind["bits"] + (64 if kind["mode"] == "affine" else 8) / kind["group_size"],
        )
        more = (bits + 64 / kind["group_size"]) / before
        assert set(held(model).values()) == {("affine", bits)}
    said = f"torch holds weights in other codes ({name} as {now}): the same numbers, in {more:.1f} times the memory"
    assert [record.message for record in caplog.records] == [f"{tmp_path / 'out'}: {said}"]


@pytest.mark.parametrize(
    "kind", [{"group_size": 64, "bits": 3}, {"group_size": 32, "bits": 1}, *MODES[:1]], ids=label
)
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "llama",
            {"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 96},
        ),  # tied; biases of q, k and v
        ("llama", LLAMA | {"attention_bias": True, "mlp_bias": True}),
        ("lstm", {"embedding_size": 64, "hidden_size": 128}),
        (
            "gpt2",
            {"n_embd": 64},
        ),  # tied, with biases; quantized only under the names and in the layout of mlx-lm
    ],
    ids=["qwen2", "llama", "lstm", "gpt2"],
)
def test_families(
    calm: Callable[..., Path],
    tmp_path: Path,
    backend: str,
    name: str,
    changes: dict[str, Any],
    kind: dict[str, Any],
) -> None:
    source = calm(name, **changes)
    if name == "gpt2":
        tensors = load_file(source / "model.safetensors")
        turned = {
            k: np.ascontiguousarray(x.T) if ".h." in k and x.ndim == 2 else x
            for k, x in tensors.items()
        }
        renamed = {k.replace("transformer.", "model."): x for k, x in turned.items()}
        save_file(renamed, source / "model.safetensors")
    try:
        floats = quantize(source, tmp_path / "out", kind)
    except ValueError as error:  # an older MLX, which does not write 1 bit
        pytest.skip(str(error))
    model = check(tmp_path / "out", floats, backend)
    assert "embedding.weight" in held(model)
    assert ("head.weight" in held(model)) == (
        name != "gpt2" and changes.get("model_type") != "qwen2"
    )
    settings: dict[str, Any] = {"max_tokens": 12, "temperature": 0}
    texts = [
        minigen.load(x, backend, "cpu").generate_ids(IDS.tolist(), **settings)
        for x in (tmp_path / "out", floats)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", [AFFINE[4], *MODES], ids=label)
def test_in_half_precision(
    calm: Callable[..., Path], tmp_path: Path, backend: str, kind: dict[str, Any], dtype: str
) -> None:
    """Scales of 16 bits, computed with in float32 and in their own dtype, which is told from the model's floats."""
    from minigen.checkpoints.loading import stored_dtype
    from minigen.checkpoints.opening import open_stored

    floats = quantize(calm("llama", **LLAMA), tmp_path / "out", kind, dtype=dtype)
    check(tmp_path / "out", floats, backend)
    assert stored_dtype(open_stored(tmp_path / "out").tensors) == dtype
    got, want = (
        minigen.load(x, backend, "cpu", dtype).logits(IDS) for x in (tmp_path / "out", floats)
    )
    assert np.abs(got - want).max() <= 0.1 * np.abs(want).max()


@pytest.mark.parametrize("key", ["quantization", "quantization_config"])
def test_either_key(calm: Callable[..., Path], tmp_path: Path, backend: str, key: str) -> None:
    floats = quantize(calm("llama", **LLAMA), tmp_path / "out", AFFINE[1], keys=(key,))
    assert check(tmp_path / "out", floats, backend).quant == "q2"


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
def test_nothing_said_is_the_default_of_the_mode(
    calm: Callable[..., Path], tmp_path: Path, backend: str, mode: str
) -> None:
    nulls = {"group_size": None, "bits": None, "mode": mode}
    floats = quantize(
        calm("llama", **LLAMA),
        tmp_path / "out",
        nulls,
        {"lm_head": nulls, "model.embed_tokens": {}},
    )
    model = check(tmp_path / "out", floats, backend)
    assert model.quant == (
        "q4" if mode == "affine" else "mixed"
    )  # a module's mode is affine, if it does not say
    assert held(model)["embedding.weight"] == ("affine", 4)


# -- by module --------------------------------------------------------------------------------------------------------
def recipe(low: int, high: int) -> dict[str, Choice]:
    """As --quant-predicate writes it: the value, the down projection and the head of some layers in more bits."""
    layer = "model.layers.{}.{}"
    parts = [f"self_attn.{name}_proj" for name in "qkvo"] + [
        f"mlp.{name}_proj" for name in ("gate", "up", "down")
    ]
    wide = {layer.format(1, "self_attn.v_proj"), layer.format(1, "mlp.down_proj"), "lm_head"}
    modules = [layer.format(i, part) for i in range(2) for part in parts] + [
        "model.embed_tokens",
        "lm_head",
    ]
    return {name: NULLS | {"bits": high if name in wide else low} for name in modules}


@pytest.mark.parametrize(("low", "high"), [(2, 6), (3, 4), (3, 6), (4, 6)])
def test_recipes(
    calm: Callable[..., Path],
    tmp_path: Path,
    backend: str,
    low: int,
    high: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Projections that are joined have the most bits of one of them: none becomes floats."""
    default = {"group_size": 64, "bits": 4, "mode": "affine"}
    floats = quantize(calm("llama", **LLAMA), tmp_path / "out", default, recipe(low, high))
    model = check(tmp_path / "out", floats, backend)
    assert model.quant == "mixed"
    assert "in different ways" not in caplog.text
    codes = (lambda bits: bits) if backend == "mlx" else (lambda bits: 4 if bits <= 4 else 8)
    found = {path: bits for path, (_, bits) in held(model).items()}
    assert len(found) == 2 + 2 * 4
    wide = ("blocks.1.attention.qkv.weight", "blocks.1.feed_forward.down.weight", "head.weight")
    assert found == {path: codes(high if path in wide else low) for path in found}


def test_modes_side_by_side(
    calm: Callable[..., Path], tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A module's mode is affine unless it says otherwise; modules that are not there are let be."""
    choices: dict[str, Choice] = {
        "lm_head": {"group_size": 64, "bits": 5},
        "model.embed_tokens": {"mode": "nvfp4"},
        "model.layers.0.self_attn.v_proj": {"mode": "mxfp8"},
        "model.layers.0.mlp.down_proj": False,
        "model.layers.1.mlp.down_proj": {"bits": 2},
        "model.layers.7.mlp.down_proj": {"bits": 2, "group_size": 128},
        "model.vision": False,
    }
    floats = quantize(calm("llama", **LLAMA), tmp_path / "out", MODES[0], choices)
    model = check(tmp_path / "out", floats, backend)
    found = held(model)
    torch = backend == "torch"
    assert found["head.weight"] == ("affine", 8 if torch else 5)
    assert found["embedding.weight"] == (("affine", 8) if torch else ("nvfp4", 4))
    assert found["blocks.1.attention.qkv.weight"] == (("affine", 8) if torch else ("mxfp4", 4))
    assert found["blocks.1.feed_forward.down.weight"] == ("affine", 4 if torch else 2)
    assert {"blocks.0.attention.qkv.weight", "blocks.0.feed_forward.down.weight"}.isdisjoint(found)
    said = "has parts of blocks.0.attention.qkv.weight quantized in different ways: they are joined in float32"
    assert said in caplog.text


def test_rows_that_were_left_out(calm: Callable[..., Path], tmp_path: Path, backend: str) -> None:
    """mlx-lm does not say so in config.json."""
    source = calm("llama", hidden_size=64, intermediate_size=100)
    floats = quantize(source, tmp_path / "out", AFFINE[4])
    assert "blocks.0.feed_forward.down.weight" not in held(check(tmp_path / "out", floats, backend))


# -- what becomes of it -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [AFFINE[4], AFFINE[-1], *MODES], ids=label)
def test_floats_again(
    calm: Callable[..., Path], tmp_path: Path, backend: str, kind: dict[str, Any]
) -> None:
    """What convert writes is what MLX makes of it; torch rounds once where MLX multiplies and adds."""
    floats = quantize(calm("llama", **LLAMA), tmp_path / "out", kind)
    made = convert(tmp_path / "out", tmp_path / "plain", backend=backend)
    assert (made.quant, made.dtype) == ("", "float32")
    found, wanted = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "plain", floats)
    )
    assert set(found) == set(wanted)
    rounding = 1e-7 if (backend, kind["mode"]) == ("torch", "affine") else 0.0
    assert all(np.abs(found[name] - wanted[name]).max() <= rounding for name in found)
    assert "quantization" not in json.loads((tmp_path / "plain/config.json").read_text())
    convert(tmp_path / "plain", tmp_path / "again", quant="8", backend=backend)
    assert minigen.load(tmp_path / "again", backend, "cpu").quant == "q8"


@pytest.mark.parametrize(("kind", "name"), [(AFFINE[4], "q3"), (MODES[2], "nvfp4")])
def test_what_wants_floats(
    calm: Callable[..., Path],
    tmp_path: Path,
    kind: dict[str, Any],
    name: str,
    run_cli: Any,
    backend: str,
) -> None:
    quantize(calm("llama", **LLAMA), tmp_path / "out", kind)
    message = (
        rf"out is quantized already \({name}\): leave --quant out, or use the unquantized model$"
    )
    with pytest.raises(UsageError, match=message):
        minigen.load(tmp_path / "out", backend, "cpu", quant="4")
    with pytest.raises(UsageError, match=message):
        convert(tmp_path / "out", tmp_path / "new", quant="8", backend=backend)
    (tmp_path / "text.txt").write_text("some text to learn from\n" * 40)
    words = ("train", tmp_path / "text.txt", "--from", tmp_path / "out", "--out", tmp_path / "run")
    code, _, err = run_cli(*words, "--backend", backend)
    assert code == 2
    assert re.fullmatch(
        r"minigen: .*out is quantized, but training needs unquantized weights: .*\n", err
    )


def test_a_prompt_cache(calm: Callable[..., Path], tmp_path: Path, backend: str) -> None:
    source = calm("llama", **LLAMA)
    for name, kind in (("three", AFFINE[4]), ("four", MODES[0])):
        quantize(source, tmp_path / name, kind)
    three, four = (minigen.load(tmp_path / name, backend, "cpu") for name in ("three", "four"))
    save_prompt(three, [5, 6, 7], tmp_path / "c")
    assert load_prompt(three, tmp_path / "c")[1] == [5, 6, 7]
    with pytest.raises(CheckpointError, match=r"c was built "):
        load_prompt(four, tmp_path / "c")


def test_what_the_benchmark_counts(calm: Callable[..., Path], tmp_path: Path, backend: str) -> None:
    """What is stored gives the name, what is held the bytes."""
    for kind, torch, mlx in (
        (AFFINE[4], ("affine", 4), ("affine", 3)),
        (MODES[1], None, ("mxfp8", 8)),
    ):
        out = tmp_path / label(kind)
        quantize(calm("llama", **LLAMA), out, kind)
        subject = Subject(**model_of(str(out)), backend=backend)
        wanted = {"torch": torch, "mlx": mlx}[backend]
        assert {(x.mode, x.bits) for x in subject.packings().values()} == {
            (kind["mode"], kind["bits"])
        }
        now = {path: (x.mode, x.bits) for path, x in subject.packings_in_memory().items()}
        assert now == held(minigen.load(out, backend, "cpu"))
        assert set(now.values()) == ({wanted} if wanted else set())


def test_on_the_command_line(
    calm: Callable[..., Path], tmp_path: Path, run_cli: Any, backend: str
) -> None:
    quantize(calm("llama", **LLAMA), tmp_path / "out", AFFINE[1])
    code, out, err = run_cli(
        "generate", tmp_path / "out", "-p", "x", "-n", "3", "--backend", backend, "--device", "cpu"
    )
    assert code == 0
    assert out
    said = "out: torch holds weights in other codes (q2 as q4): the same numbers, in 1.7 times the memory\n"
    assert err.endswith(said if backend == "torch" else "")
    assert err.count("\n") == (backend == "torch")


def test_a_number_that_is_none(
    calm: Callable[..., Path], tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    quantize(calm("llama", **LLAMA), tmp_path / "out", MODES[2])
    tensors = load_file(tmp_path / "out/model.safetensors")
    tensors["lm_head.scales"][3, 2] = 127
    save_file(tensors, tmp_path / "out/model.safetensors")
    minigen.load(tmp_path / "out", backend, "cpu")
    assert (
        "weights that are NaN or infinite, in lm_head.weight: its text will be noise" in caplog.text
    )


# -- what cannot be read ----------------------------------------------------------------------------------------------
HEAD, WHERE = "lm_head", r"MODEL/config\.json: quantization"
FIT = r"the tensors in MODEL do not fit its config\.json; "
READ = "minigen reads mlx-lm's affine in 1 to 6 and 8 bits, mxfp4, mxfp8 and nvfp4"
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an unknown mode": ({"mode": "mxfp6"}, {}, rf"{WHERE} has the method 'mxfp6': {READ}; use the .*"),
    "no mode": ({"mode": ["affine"]}, {}, rf"{WHERE} has the method \['affine'\]: {READ}; .*"),
    "an unknown mode of a module": (
        {HEAD: {"mode": "nf4"}}, {}, rf"{WHERE}, lm_head: mode is 'nf4': minigen reads affine in 1 to 6 and 8 bits, .*",
    ),
    "no mode of a module": ({HEAD: {"mode": {}}}, {}, rf"{WHERE}, lm_head: mode is {{}}: minigen reads affine .*"),
    "7 bits": ({"bits": 7}, {}, rf"{WHERE}: bits is 7: for the mode affine minigen reads 1, 2, 3, 4, 5, 6, 8"),
    "8 bits of 4": (
        {HEAD: {"bits": 8, "mode": "mxfp4"}}, {}, rf"{WHERE}, lm_head: bits is 8: for the mode mxfp4 minigen reads 4",
    ),
    "a group of another mode": (
        {HEAD: {"group_size": 64, "mode": "nvfp4"}}, {},
        rf"{WHERE}, lm_head: group_size is 64: for the mode nvfp4 minigen reads 16",
    ),
    "a group of 16": (
        {"group_size": 16}, {}, rf"{WHERE}: group_size is 16: for the mode affine minigen reads 32, 64, 128",
    ),
    "bits of a word": (
        {HEAD: {"bits": "3"}}, {}, rf"{WHERE}, lm_head: bits is '3': it must be a whole number from 1 to 2147483648",
    ),
    "other bits than it has": (
        {HEAD: {"bits": 4}}, {}, FIT + r"1 of the wrong shape: lm_head\.weight is \(256, 12\), .* \(256, 16\)",
    ),
    "another group than it has": (
        {HEAD: {"bits": 3, "group_size": 32}}, {},
        FIT + r"2 of the wrong shape: lm_head\.scales is \(256, 2\), .* \(256, 4\), lm_head\.biases is .*",
    ),
    "another mode than it has": (
        {HEAD: {"mode": "mxfp4"}}, {},
        FIT + r"1 unexpected: lm_head\.biases \(256, 2\); 2 of the wrong shape: .*; 1 .* dtype: lm_head\.scales is .*",
    ),
    "scales of another dtype": (
        {HEAD: {"mode": "mxfp4"}},
        {
            "lm_head.weight": np.zeros((256, 16), np.uint32), "lm_head.scales": np.zeros((256, 4), np.float16),
            "lm_head.biases": None,
        },
        FIT + r"1 of the wrong dtype: lm_head\.scales is F16, not U8",
    ),
    "no scales": (
        {HEAD: {"mode": "nvfp4"}},
        {"lm_head.weight": np.zeros((256, 16), np.uint32), "lm_head.scales": None, "lm_head.biases": None},
        FIT + r"1 missing: lm_head\.scales \(256, 8\)",
    ),
    "declared plain": ({HEAD: False}, {}, FIT + r"2 unexpected: lm_head\.biases \(256, 2\), lm_head\.scales .*"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_read(
    calm: Callable[..., Path], tmp_path: Path, backend: str, what: str
) -> None:
    declared, changes, message = BAD[what]
    quantize(calm("llama", **LLAMA), tmp_path / "out", AFFINE[4], {HEAD: AFFINE[4]})
    config = json.loads((tmp_path / "out/config.json").read_text())
    config |= {"quantization": config["quantization"] | declared}
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    tensors = load_file(tmp_path / "out/model.safetensors") | changes
    save_file(
        {name: x for name, x in tensors.items() if x is not None},
        tmp_path / "out/model.safetensors",
    )
    with pytest.raises(
        CheckpointError, match=f"^{message.replace('MODEL', re.escape(str(tmp_path / 'out')))}$"
    ):
        minigen.load(tmp_path / "out", backend, "cpu")


# -- mlx-lm itself ----------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")  # of what mlx-lm imports
@pytest.mark.parametrize("how", ["mixed_3_6", "mxfp4"])
def test_as_mlx_lm_writes_it(
    calm: Callable[..., Path], tmp_path: Path, backend: str, how: str
) -> None:
    convert_module = pytest.importorskip("mlx_lm.convert", reason="mlx-lm is not installed")
    utils = pytest.importorskip("mlx_lm.utils")
    source = calm("llama", **LLAMA, rms_norm_eps=1e-6)
    model, config = utils.load_model(source)
    mode, choose = how, None
    if how.startswith("mixed"):
        mode, choose = "affine", convert_module.mixed_quant_predicate_builder(how, model, None)
    model, config = utils.quantize_model(
        model, config, None, None, mode=mode, quant_predicate=choose
    )
    utils.save_model(tmp_path / "out", model)
    utils.save_config(config, tmp_path / "out/config.json")
    want = np.array(model(mx.array(IDS)))
    got = minigen.load(tmp_path / "out", backend, "cpu", "float32").logits(IDS)
    assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()

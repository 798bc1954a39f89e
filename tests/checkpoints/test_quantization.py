"""Quantized checkpoints, as mlx-lm and `minigen convert` write them, and models quantized when they are loaded."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minigen
from minigen.backends import get_backend
from minigen.backends.base import Quantized
from minigen.checkpoints.checkpoint import read_file
from minigen.checkpoints.convert import convert
from minigen.errors import CheckpointError, UsageError
from minigen.evaluation.perplexity import score_text
from minigen.prompt_cache import load_prompt, save_prompt
from minigen.tree import flatten
from minigen.weights.synthetic.stories import story

Make = Callable[..., Path]
IDS = np.arange(20).reshape(2, 10) * 7
WIDE = {
    "llama": {"hidden_size": 64, "intermediate_size": 128, "tie_word_embeddings": False},
    "gpt2": {"n_embd": 64},
    "lstm": {"embedding_size": 64, "hidden_size": 128},
}
NAMES = {"8": "q8", "4": "q4", "mixed": "mixed"}


def logits(folder: Path | None, backend: str = "torch", **settings: Any) -> np.ndarray[Any, Any]:
    return minigen.load(folder, backend, "cpu", "float32", **settings).logits(IDS)


@pytest.fixture
def wide(make_model: Make) -> Callable[[str], Path]:
    """wide("llama" | "gpt2" | "lstm"): a model whose rows are multiples of 64, and whose numbers are not large: in a
    recurrent model small differences would grow."""

    def make(name: str) -> Path:
        folder = make_model(name, **WIDE[name])
        found = load_file(folder / "model.safetensors")
        save_file(
            {k: x * np.float32(0.4 if x.ndim == 2 else 1) for k, x in found.items()},
            folder / "model.safetensors",
        )
        return folder

    return make


def change(folder: Path, config: dict[str, Any] | None = None, **tensors: Any) -> None:
    """Changes config.json, and tensors by name (dots written as __); None takes one away."""
    path, values = folder / "config.json", json.loads((folder / "config.json").read_text())
    path.write_text(
        json.dumps({k: v for k, v in (values | (config or {})).items() if v is not None})
    )
    found = load_file(folder / "model.safetensors") | {
        k.replace("__", "."): x for k, x in tensors.items()
    }
    save_file({k: x for k, x in found.items() if x is not None}, folder / "model.safetensors")


# -- what is written and read -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("quant", NAMES)
@pytest.mark.parametrize("name", WIDE)
def test_stored_or_on_load(
    wide: Callable[[str], Path],
    tmp_path: Path,
    backend: str,
    installed: list[str],
    name: str,
    quant: str,
) -> None:
    """The same model either way, and on either backend."""
    folder, out = wide(name), tmp_path / "out"
    made = convert(folder, out, quant=quant, backend=backend)
    assert (made.quant, made.dtype) == (NAMES[quant], "float32")
    models = [minigen.load(out, backend, "cpu"), minigen.load(folder, backend, "cpu", quant=quant)]
    assert [model.precision for model in models] == [f"float32 {NAMES[quant]}"] * 2
    plain, (stored, loaded) = logits(folder, backend), (model.logits(IDS) for model in models)
    size = np.abs(plain).max()
    assert np.abs(stored - loaded).max() <= 1e-6 * size
    assert all(np.abs(stored - logits(out, other)).max() <= 1e-5 * size for other in installed)
    assert (
        1e-3 < np.std(stored - plain) / np.std(plain) < (0.05 if quant == "8" else 0.5)
    )  # another model, but not quite
    greedy = {"max_tokens": 30, "temperature": 0}
    texts = [
        minigen.load(out, other, "cpu").generate_ids(IDS.tolist(), **greedy) for other in installed
    ]
    assert texts == [texts[0]] * len(installed)
    assert (out / "model.safetensors").stat().st_size < 0.6 * (
        folder / "model.safetensors"
    ).stat().st_size


def test_the_layout(wide: Callable[[str], Path], tmp_path: Path, backend: str) -> None:
    convert(
        wide("llama"), tmp_path / "out", quant="mixed", group=32, dtype="bfloat16", backend=backend
    )
    config = json.loads((tmp_path / "out/config.json").read_text())
    outer = {"group_size": 32, "bits": 8}
    wanted = {"group_size": 32, "bits": 4, "model.embed_tokens": outer, "lm_head": outer}
    assert config["quantization"] == config["quantization_config"] == wanted
    tensors = {
        name: (info.dtype, info.shape)
        for name, info in read_file(tmp_path / "out/model.safetensors").items()
    }
    assert {
        name: found for name, found in tensors.items() if "layers.1.self_attn.k_proj" in name
    } == {
        "model.layers.1.self_attn.k_proj.weight": ("U32", (32, 8)),
        "model.layers.1.self_attn.k_proj.scales": ("BF16", (32, 2)),
        "model.layers.1.self_attn.k_proj.biases": ("BF16", (32, 2)),
    }
    assert tensors["model.embed_tokens.weight"] == ("U32", (256, 16))
    assert tensors["model.norm.weight"] == ("BF16", (64,))
    model = minigen.load(tmp_path / "out", backend, "cpu", "bfloat16")
    held = flatten(model.runner.params)["blocks.1.attention.qkv.weight"]
    assert (held.packed.shape, held.scales.shape, held.bits, held.group) == (
        (128, 8),
        (128, 2),
        4,
        32,
    )
    assert str(held.scales.dtype).endswith("bfloat16")
    assert model.dtype == "bfloat16"


@pytest.mark.parametrize("bits", [4, 8])
def test_as_mlx_quantizes(
    wide: Callable[[str], Path], tmp_path: Path, backend: str, bits: int
) -> None:
    """By hand what mlx-lm does with every matrix; and our own file has the same bits."""
    mx = pytest.importorskip("mlx.core")
    folder = wide("llama")
    tensors: dict[str, Any] = {}
    for name, x in load_file(folder / "model.safetensors").items():
        module = name.removesuffix(".weight")
        parts = mx.quantize(mx.array(x), group_size=64, bits=bits) if x.ndim == 2 else [mx.array(x)]
        tensors |= zip(
            (name, f"{module}.scales", f"{module}.biases"), map(np.array, parts), strict=False
        )
    shutil.copytree(folder, tmp_path / "theirs")
    save_file(tensors, tmp_path / "theirs/model.safetensors")
    change(
        tmp_path / "theirs",
        {"quantization_config": {"group_size": 64, "bits": bits, "mode": "affine"}},
    )
    convert(folder, tmp_path / "ours", quant=str(bits), backend=backend)
    ours = load_file(tmp_path / "ours/model.safetensors")
    assert set(ours) == set(tensors)
    assert all(np.array_equal(ours[name], tensors[name]) for name in ours)
    assert np.array_equal(logits(tmp_path / "theirs", backend), logits(tmp_path / "ours", backend))


@pytest.mark.parametrize("name", WIDE)
def test_floats_again(wide: Callable[[str], Path], tmp_path: Path, backend: str, name: str) -> None:
    """What convert makes of a quantized model without --quant is an ordinary one."""
    folder = wide(name)
    convert(folder, tmp_path / "q", quant="4", backend=backend)
    made = convert(tmp_path / "q", tmp_path / "plain", backend=backend)
    assert (made.quant, made.dtype) == ("", "float32")
    assert set(load_file(tmp_path / "plain/model.safetensors")) == set(
        load_file(folder / "model.safetensors")
    )
    assert json.loads((tmp_path / "plain/config.json").read_text()) == json.loads(
        (folder / "config.json").read_text()
    )
    want = logits(tmp_path / "q", backend)
    assert np.abs(logits(tmp_path / "plain", backend) - want).max() <= 1e-5 * np.abs(want).max()


def test_gpt2_as_mlx_lm_names_it(wide: Callable[[str], Path], tmp_path: Path, backend: str) -> None:
    """Matrices (out, in) under model., quantized or not; positions may be quantized too."""
    folder = wide("gpt2")
    plain = load_file(folder / "model.safetensors")
    tensors = {
        name.replace("transformer.", "model."): np.ascontiguousarray(x.T)
        if ".h." in name and x.ndim == 2
        else x
        for name, x in plain.items()
    }
    shutil.copytree(folder, tmp_path / "mlx")
    save_file(tensors, tmp_path / "mlx/model.safetensors")
    assert np.abs(logits(tmp_path / "mlx", backend) - logits(folder, backend)).max() < 1e-5
    convert(folder, tmp_path / "q", quant="8", backend=backend)
    assert load_file(tmp_path / "q/model.safetensors")["model.h.0.attn.c_attn.weight"].shape == (
        192,
        16,
    )
    before = logits(tmp_path / "q", backend)
    ops = get_backend(backend, "cpu", "float32")
    held = ops.quantize(ops.asarray(plain["transformer.wpe.weight"]), 8, 64)
    parts = dict(zip(("weight", "scales", "biases"), map(ops.numpy, held.arrays), strict=True))
    change(tmp_path / "q", None, **{f"model__wpe__{part}": x for part, x in parts.items()})
    assert 0 < np.abs(logits(tmp_path / "q", backend) - before).max() < 0.05 * np.abs(before).max()


def test_modules_that_differ(
    wide: Callable[[str], Path], tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Overrides of single modules, one that is left alone, and projections that are joined though they differ."""
    folder, out = wide("llama"), tmp_path / "out"
    convert(folder, out, quant="4", backend=backend)
    floats, ops = load_file(folder / "model.safetensors"), get_backend(backend, "cpu", "float32")
    value, down = "model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj"
    held = ops.quantize(ops.asarray(floats[f"{value}.weight"]), 8, 32)
    parts = dict(zip(("weight", "scales", "biases"), map(ops.numpy, held.arrays), strict=True))
    new: dict[str, Any] = {f"{value}.{part}": x for part, x in parts.items()}
    new |= {
        f"{down}.weight": floats[f"{down}.weight"],
        f"{down}.scales": None,
        f"{down}.biases": None,
    }
    declared = {
        "group_size": 64,
        "bits": 4,
        value: {"group_size": 32, "bits": 8},
        down: False,
        "model.norm": True,
    }
    change(
        out, {"quantization": declared, "quantization_config": {"quant_method": "not read"}}, **new
    )
    tree = flatten(minigen.load(out, backend, "cpu").runner.params)
    assert re.search(
        r"out has parts of blocks\.0\.attention\.qkv\.weight quantized in different ways",
        caplog.text,
    )
    assert not isinstance(tree["blocks.0.attention.qkv.weight"], Quantized)
    assert isinstance(tree["blocks.1.attention.qkv.weight"], Quantized)
    assert not isinstance(tree["blocks.1.feed_forward.down.weight"], Quantized)
    joined = ops.numpy(tree["blocks.0.attention.qkv.weight"])
    assert np.array_equal(joined[-32:], ops.numpy(ops.dequantize(held)))
    assert 0.02 < np.abs(joined[:64] - floats["model.layers.0.self_attn.q_proj.weight"]).max() < 0.2


def test_shards(wide: Callable[[str], Path], tmp_path: Path, backend: str) -> None:
    """A matrix's codes in one file, and its scales and biases in others."""
    out = tmp_path / "out"
    convert(wide("llama"), out, quant="4", backend=backend)
    before = logits(out, backend)
    tensors = load_file(out / "model.safetensors")
    (out / "model.safetensors").unlink()
    place = {name: f"part{i % 3}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(place.values()):
        save_file({name: x for name, x in tensors.items() if place[name] == file}, out / file)
    (out / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    assert len({place[f"lm_head.{part}"] for part in ("weight", "scales", "biases")}) == 3
    assert np.array_equal(logits(out, backend), before)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_its_own(
    wide: Callable[[str], Path], tmp_path: Path, backend: str, tied: bool
) -> None:
    convert(wide("llama"), tmp_path / "out", quant="8", backend=backend)
    before = logits(tmp_path / "out", backend)
    change(tmp_path / "out", {"tie_word_embeddings": tied})
    assert np.array_equal(
        logits(tmp_path / "out", backend), before
    )  # whatever config.json says of it


# -- what it costs ----------------------------------------------------------------------------------------------------
def changes_of_perplexity(folder: Path | None, backend: str, text: str) -> dict[str, float]:
    """Of each precision, as a share of the perplexity of floats."""
    found = {
        q: score_text(minigen.load(folder, backend, "cpu", quant=q), text).perplexity
        for q in (None, *NAMES)
    }
    return {q: found[q] / found[None] - 1 for q in NAMES}


def test_perplexity_of_the_shipped_model(backend: str) -> None:
    """192 wide: 4 bits cost it 2 %, and more than half of that is the embedding's."""
    found = changes_of_perplexity(None, backend, "\n\n".join(story(5, n) for n in range(2)))
    assert abs(found["8"]) < 0.005
    assert 0.002 < found["mixed"] < 0.05
    assert 0.002 < found["4"] < 0.05


def test_perplexity_of_stories260k(shared: Path, backend: str) -> None:
    """64 wide: 4 bits are too few for it, whatever the embedding has."""
    text = (
        (shared / "corpora/tinystories/valid.txt").read_text()[:2500].replace("<|endoftext|>", "")
    )
    found = changes_of_perplexity(shared / "models/stories260K", backend, text)
    assert abs(found["8"]) < 0.005
    assert 0.05 < found["mixed"] < found["4"] < 0.2


def test_one_matrix_at_a_time(wide: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix of floats outlives its own quantization."""
    import weakref

    torch_backend = pytest.importorskip("minigen.backends.torch.backend").TorchBackend
    seen: list[Any] = []
    quantize = torch_backend.quantize

    def watched(self: Any, weight: Any, bits: int, group: int) -> Any:
        assert [there() for there in seen[:-1] if there() is not None] == []
        seen.append(weakref.ref(weight))
        return quantize(self, weight, bits, group)

    monkeypatch.setattr(torch_backend, "quantize", watched)
    minigen.load(wide("llama"), "torch", "cpu", quant="4")
    assert len(seen) == 2 + 2 * 4


# -- what is left as it is --------------------------------------------------------------------------------------------
def test_rows_that_cannot_be(
    make_model: Make, tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture, run_cli: Any
) -> None:
    folder = make_model("llama", hidden_size=64, intermediate_size=100)
    minigen.load(folder, backend, "cpu", quant="4")
    said = "not quantized, as rows are not a multiple of 64: blocks.*.feed_forward.down.weight (100 wide)"
    assert [record.message for record in caplog.records] == [said]
    convert(folder, tmp_path / "out", quant="4", backend=backend)
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        found = logits(tmp_path / "out", backend)
    assert caplog.records == []
    assert np.abs(found - logits(folder, backend, quant="4")).max() < 1e-5
    code, _, err = run_cli(
        "generate", folder, "-p", "x", "-n", "1", "--quant", "8", "--backend", backend
    )
    assert (code, err) == (0, f"minigen: warning: {said}\n")


def test_a_prompt_cache_tells_them_apart(
    wide: Callable[[str], Path], tmp_path: Path, backend: str
) -> None:
    folder = wide("llama")
    models = {
        quant: minigen.load(folder, backend, "cpu", quant=quant) for quant in (None, "4", "8")
    }
    save_prompt(models["4"], [5, 6, 7], tmp_path / "c")
    assert load_prompt(models["4"], tmp_path / "c")[1] == [5, 6, 7]
    for quant, what in ((None, "float32"), ("8", "float32 q8")):
        message = f"c was built in float32 q4 and the model runs in {what}: run it in float32 q4, or build it again in"
        with pytest.raises(CheckpointError, match=message):
            load_prompt(models[quant], tmp_path / "c")


# -- what cannot be ---------------------------------------------------------------------------------------------------
Q, K = "model__layers__0__self_attn__q_proj", "model.layers.0.self_attn.q_proj"
FIT = r"the tensors in MODEL do not fit its config\.json; "
PLAIN = {"group_size": 64, "bits": 4}
BAD: dict[str, tuple[dict[str, Any] | None, dict[str, Any], str]] = {
    "scales missing": (None, {f"{Q}__scales": None}, FIT + rf"1 missing: {K}\.scales \(64, 1\)"),
    "biases missing": (None, {f"{Q}__biases": None}, FIT + rf"1 missing: {K}\.biases \(64, 1\)"),
    "both missing": (None, {f"{Q}__biases": None, f"{Q}__scales": None}, FIT + rf"2 missing: {K}\.scales .*"),
    "scales of another shape": (
        None,
        {f"{Q}__scales": np.zeros((64, 2), np.float32)},
        FIT + rf"1 of the wrong shape: {K}\.scales is \(64, 2\), the config asks for \(64, 1\)",
    ),
    "biases of another shape": (
        None, {f"{Q}__biases": np.zeros((63, 1), np.float32)}, FIT + rf"1 of .* shape: {K}\.biases is \(63, 1\), .*",
    ),
    "codes of another shape": (
        None, {f"{Q}__weight": np.zeros((64, 16), np.uint32)}, FIT + rf"1 of .* shape: {K}\.weight is \(64, 16\), .*",
    ),
    "codes of another dtype": (
        None, {f"{Q}__weight": np.zeros((64, 8), np.int32)}, FIT + rf"1 of the wrong dtype: {K}\.weight is I32, .*",
    ),
    "scales of another dtype": (
        None, {f"{Q}__scales": np.zeros((64, 1), np.uint8)}, FIT + rf"1 of the wrong dtype: {K}\.scales is U8, .*",
    ),
    "bits": (
        {"group_size": 64, "bits": 7}, {}, r"MODEL/config\.json: quantization: bits is 7: for the mode affine .*",
    ),
    "bits of a module": (
        PLAIN | {K: {"group_size": 64, "bits": 16}}, {}, rf"MODEL/config\.json: quantization, {K}: bits is 16: .*",
    ),
    "group": (
        {"group_size": 48, "bits": 4}, {}, r"MODEL/config\.json: quantization: group_size is 48: .* 32, 64, 128",
    ),
    "no group": ({"bits": 4}, {}, r"MODEL/config\.json: quantization: group_size is missing"),
    "a group that does not divide": (
        {"group_size": 128, "bits": 4}, {},
        FIT + r"model\.embed_tokens\.weight has 64 columns, not a multiple of its group_size 128",
    ),
    "mode": (
        {"group_size": 32, "bits": 4, "mode": "nf4"}, {},
        r"MODEL/config\.json: quantization has the method 'nf4': minigen reads mlx-lm's affine .*",
    ),
    "a word": (PLAIN | {"outliers": 3}, {}, r"MODEL/config\.json: quantization has 'outliers', which is 3: .*"),
    "no object": ([4], {}, r"MODEL/config\.json: quantization is \[4\]: it must be an object"),
    "not declared": (
        PLAIN | {K: False}, {}, FIT + rf"2 unexpected: {K}\.biases .*; 1 of .* shape: {K}\.weight .*",
    ),
    "declared and float": (
        PLAIN | {K: PLAIN},
        {f"{Q}__weight": np.zeros((64, 64), np.float32), f"{Q}__scales": None, f"{Q}__biases": None},
        FIT + rf"2 missing: {K}\.scales \(64, 1\), {K}\.biases \(64, 1\); 1 of .* shape: .*; 1 of .* dtype: .*",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_broken_checkpoints(
    wide: Callable[[str], Path], tmp_path: Path, backend: str, what: str
) -> None:
    declared, tensors, message = BAD[what]
    out = tmp_path / "out"
    convert(wide("llama"), out, quant="4", backend=backend)
    change(out, {"quantization": declared} if declared is not None else None, **tensors)
    with pytest.raises(CheckpointError, match=f"^{message.replace('MODEL', re.escape(str(out)))}$"):
        minigen.load(out, backend, "cpu")


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "fp8", "compressed-tensors"])
def test_the_methods_of_others(wide: Callable[[str], Path], backend: str, method: str) -> None:
    folder = wide("llama")
    change(folder, {"quantization_config": {"quant_method": method, "bits": 4, "group_size": 128}})
    message = rf"config\.json: quantization_config has the method '{method}': minigen reads mlx-lm's .* --quant"
    with pytest.raises(CheckpointError, match=message):
        minigen.load(folder, backend, "cpu")


def test_gpt2_quantized_under_its_own_names(
    wide: Callable[[str], Path], tmp_path: Path, any_backend: str
) -> None:
    """Which side of a square matrix is packed could not be told."""
    convert(wide("gpt2"), tmp_path / "out", quant="4", backend=any_backend)
    tensors = load_file(tmp_path / "out/model.safetensors")
    save_file(
        {f"transformer.{k.removeprefix('model.')}": x for k, x in tensors.items()},
        tmp_path / "out/model.safetensors",
    )
    with pytest.raises(
        CheckpointError,
        match=r"transformer\.h\.0\.attn\.c_attn\.weight is quantized as \(in, out\); min",
    ):
        minigen.load(tmp_path / "out", any_backend, "cpu")


def test_requests_that_cannot_be(
    wide: Callable[[str], Path], tiny: Make, tmp_path: Path, backend: str
) -> None:
    folder, out = wide("llama"), tmp_path / "out"
    convert(folder, out, quant="mixed", backend=backend)

    def refused(message: str, call: Callable[..., Any], *args: Any, **settings: Any) -> None:
        with pytest.raises(UsageError, match=message):
            call(*args, **settings)

    again = r"out is quantized already \(mixed\): leave --quant out, or use the unquantized model$"
    refused(again, minigen.load, out, backend, "cpu", quant="8")
    refused(again, convert, out, tmp_path / "new", quant="8")
    refused(
        r"^unknown quant '5': choose 8, 4, mixed$", minigen.load, folder, backend, "cpu", quant="5"
    )
    refused(
        r"^the group is 48: choose 32, 64, 128$",
        convert,
        folder,
        tmp_path / "new",
        quant="8",
        group=48,
    )
    nothing = (
        r"llama has no matrix whose rows are a multiple of 64: --quant has nothing to quantize$"
    )
    refused(nothing, minigen.load, tiny("llama"), backend, "cpu", quant="8")
    assert not (tmp_path / "new").exists()


def test_adapters_and_training_want_floats(
    wide: Callable[[str], Path],
    tmp_path: Path,
    run_cli: Callable[..., tuple[int, str, str]],
    backend: str,
) -> None:
    folder, out = wide("llama"), tmp_path / "out"
    convert(folder, out, quant="4", backend=backend)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(folder), "r": 2, "lora_alpha": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora"
    pair = {f"{name}_A.weight": (2, 64), f"{name}_B.weight": (64, 2)}
    save_file(
        {k: np.ones(shape, np.float32) for k, shape in pair.items()},
        adapter / "adapter_model.safetensors",
    )
    merged = minigen.load(adapter, backend, "cpu", quant="8")  # merged in floats, then quantized
    assert merged.quant == "q8"
    assert np.abs(merged.logits(IDS) - logits(folder, backend, quant="8")).max() > 1
    (adapter / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": str(out)})
    )
    message = "cannot be merged into .*out, whose weights are quantized: merge it into the unquantized model"
    with pytest.raises(CheckpointError, match=message):
        minigen.load(adapter, backend, "cpu")
    (tmp_path / "text.txt").write_text("some text to learn from\n" * 40)
    for lora in ([], ["--lora-rank", "2"]):
        words = (
            "train",
            tmp_path / "text.txt",
            "--from",
            out,
            *lora,
            "--out",
            tmp_path / "run",
            "--backend",
            backend,
        )
        code, _, err = run_cli(*words)
        assert code == 2
        assert re.fullmatch(
            rf"minigen: {out} is quantized, but training needs unquantized weights: .*, and give OUT to --from\n",
            err,
        )

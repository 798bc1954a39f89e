"""`minigen convert`: an ordinary folder, the same model; an adapter merged; nothing left where it fails."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.backends import machine
from minigen.checkpoints.checkpoint import read_file
from minigen.checkpoints.convert import convert

Run = Callable[..., tuple[int, str, str]]
IDS = np.arange(20).reshape(2, 10) * 7
TEXT = "".join(
    f"The {animal} sat on the mat; it was {i} o'clock.\n"
    for i in range(40)
    for animal in ("cat", "dog")
)


@pytest.fixture
def base(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A model with every kind of file that goes with it."""
    folder = tmp_path / "base"
    shutil.copytree(tiny("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    (folder / "generation_config.json").write_text('{"eos_token_id": 10}')
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    (folder / "README.md").write_text("no part of the model")
    return folder


@pytest.fixture
def adapter(
    base: Path, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> Path:
    """A run with LoRA on it, by the command."""
    monkeypatch.setattr(machine, "measure_peak", lambda ops: 1e9)
    monkeypatch.setenv("MINIGEN_DATA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(TEXT)
    out = tmp_path / "run"
    code, said, err = run_cli(
        "train", tmp_path / "text.txt", "--from", base, "--lora-rank", "2", "--steps", "4", "--eval-every", "4", "--lr",
        "0.02", "--warmup", "0", "--batch", "4", "--context", "16", "--sample-tokens", "0", "--out", out,
        "--backend", backend, "--device", "cpu",
    )  # fmt: skip
    assert (code, err) == (0, "")
    lines = said.splitlines()
    assert re.fullmatch(
        r".*run: llama, [\d,]+ parameters and 1,856 of an adapter of rank 2, vocabulary 256, .*",
        lines[0],
    )
    done = rf"done in \d+ s: {out} is an adapter \(the best, .*\); try minigen generate {out}, or merge it: minigen .*"
    assert re.fullmatch(done, lines[-1])
    return out


def test_an_adapter_merged(
    run_cli: Run, base: Path, adapter: Path, tmp_path: Path, backend: str
) -> None:
    wanted = minigen.load(adapter, backend, "cpu").logits(IDS)
    assert run_cli("convert", adapter, tmp_path / "one")[0] == 0
    assert run_cli("convert", base, tmp_path / "two", "--lora", adapter)[0] == 0
    for name in ("one", "two"):
        folder = tmp_path / name
        assert {path.name for path in folder.iterdir()} == {
            "config.json", "model.safetensors", "generation_config.json", "chat_template.jinja",
        }  # fmt: skip
        assert json.loads((folder / "config.json").read_text()) == json.loads(
            (base / "config.json").read_text()
        )
        assert np.abs(minigen.load(folder, backend, "cpu").logits(IDS) - wanted).max() < 1e-5
    assert np.abs(minigen.load(base, backend, "cpu").logits(IDS) - wanted).max() > 1e-2
    code, said, err = run_cli(
        "generate", tmp_path / "one", "-p", "The", "-n", "4", "--temp", "0", "--backend", backend
    )
    assert (code, err) == (0, "")
    assert run_cli(
        "generate", adapter, "-p", "The", "-n", "4", "--temp", "0", "--backend", backend
    ) == (0, said, "")
    assert run_cli("score", tmp_path / "text.txt", "-m", adapter, "--backend", backend)[0] == 0


def test_transformers_opens_it(adapter: Path, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    convert(adapter, tmp_path / "whole")
    other = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "whole", dtype=torch.float32
    )
    with torch.inference_mode():
        wanted = other(torch.from_numpy(IDS)).logits.numpy()
    assert np.abs(minigen.load(adapter, "torch", "cpu").logits(IDS) - wanted).max() < 1e-4


@pytest.mark.parametrize("name", ["llama", "gpt2", "lstm"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(
    tiny: Callable[[str], Path], tmp_path: Path, backend: str, name: str, dtype: str
) -> None:
    found = convert(tiny(name), tmp_path / "out", dtype=dtype, backend=backend)
    stored = read_file(tmp_path / "out/model.safetensors")
    assert {info.dtype for info in stored.values()} == {
        {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    }
    before = minigen.load(tiny(name), backend, "cpu").logits(IDS)
    bound = {"float32": 0.0, "bfloat16": 0.1, "float16": 0.01}[dtype] * np.abs(before).max()
    assert (
        np.abs(minigen.load(tmp_path / "out", backend, "cpu").logits(IDS) - before).max() <= bound
    )
    assert (found.dtype, found.parameters) == (
        dtype,
        sum(int(np.prod(info.shape)) for info in stored.values()),
    )
    # Without a word about it, the dtype stays.
    assert convert(tmp_path / "out", tmp_path / "again", backend=backend).dtype == dtype
    assert (tmp_path / "again/model.safetensors").read_bytes() == (
        tmp_path / "out/model.safetensors"
    ).read_bytes()


def test_what_it_says(run_cli: Run, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/half"
    code, said, err = run_cli("convert", base, out, "--dtype", "bfloat16")
    size = (out / "model.safetensors").stat().st_size
    assert (code, err) == (0, "")
    assert said == f"{out}: llama, 23,712 parameters in bfloat16, {size / 1e6:.3g} MB\n"
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_quantized(
    run_cli: Run, make_model: Callable[..., Path], tmp_path: Path, backend: str
) -> None:
    base, out = make_model("llama", hidden_size=64, intermediate_size=128), tmp_path / "q"
    code, said, err = run_cli("convert", base, out, "--quant", "4", "--quant-group", "32")
    size = (out / "model.safetensors").stat().st_size
    assert (code, err) == (0, "")
    assert said == f"{out}: llama, 90,432 parameters in float32 and q4, {size / 1e6:.3g} MB\n"
    assert json.loads((out / "config.json").read_text())["quantization"] == {
        "group_size": 32,
        "bits": 4,
    }
    where = ("-p", "x", "-n", "8", "--temp", "0", "--backend", backend, "--device", "cpu")
    code, stored, err = run_cli("generate", out, *where, "--json", "--verbose")
    assert code == 0
    assert f"on {backend} (cpu, float32 q4), " in err
    assert (json.loads(stored)["dtype"], json.loads(stored)["quant"]) == ("float32", "q4")
    code, _, err = run_cli("generate", out, *where, "--quant", "4")
    fault = f"{out} is quantized already (q4): leave --quant out, or use the unquantized model"
    assert (code, err) == (2, f"minigen: {fault}\n")
    code, _, err = run_cli("convert", base, tmp_path / "other", "--quant-group", "32")
    assert (code, err) == (
        2,
        "minigen: --quant-group only has an effect with --quant: add --quant\n",
    )


def test_a_base_that_is_another(run_cli: Run, base: Path, adapter: Path, tmp_path: Path) -> None:
    """Named by hand it is meant: merged, with a warning."""
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"rope_theta": 500.0}))
    code, _, err = run_cli("convert", base, tmp_path / "out", "--lora", adapter)
    assert code == 0
    assert (
        err
        == f"minigen: warning: the adapter {adapter} was trained on other weights than {base} has\n"
    )
    assert (tmp_path / "out/model.safetensors").is_file()


def test_bad_input(
    run_cli: Run, base: Path, adapter: Path, tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    def refused(*words: Any) -> str:
        code, said, err = run_cli("convert", *words)
        assert code in (1, 2)
        assert (said, err.count("\n")) == ("", 1)
        assert not list(tmp_path.glob(".*.tmp"))
        return err.removeprefix("minigen: ").strip()

    out = tmp_path / "out"
    assert refused(base, base) == f"{base} is there already: name another folder, or remove it"
    assert refused("nowhere/at/all", out) == "no such folder: nowhere/at/all"
    start = f"{base} is not an adapter: it has no adapter_config.json; it has"
    assert refused(base, out, "--lora", base).startswith(start)
    assert refused(base, out, "--lora", tmp_path / "none") == f"no such folder: {tmp_path / 'none'}"
    assert refused(adapter, out, "--lora", adapter).startswith(
        f"{adapter} is an adapter itself: merge one at a time"
    )
    assert "invalid choice: 'int3'" in refused(base, out, "--dtype", "int3")
    other = make_model("llama", hidden_size=16)
    said = refused(other, out, "--lora", adapter)
    fault = r"layers\.0\.\S+ is \(\d+, \d+\), the model's is \(\d+, \d+\)"
    assert re.match(
        rf"the adapter {adapter} does not fit {other}: {fault}; .*: it was made for another model$",
        said,
    )
    assert not out.exists()


def test_weights_too_large_for_float16(make_model: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = make_model("llama")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 0 + np.float32(1e5)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        minigen.MinigenError,
        match=r"^model\.norm\.weight has the value 100000, but float16 ends at 65",
    ):
        convert(folder, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()

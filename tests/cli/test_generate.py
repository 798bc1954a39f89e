"""`minigen generate` as it is typed: the whole of what it prints, and what it says of bad input."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

Run = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]
GREEDY = ("--temp", "0", "--ignore-eos")


@pytest.fixture
def letters(make_model: Callable[..., Path]) -> Path:
    """A model whose tokens are characters, so that its text can be counted."""
    folder = make_model("llama", tokenizer="char")
    (folder / "vocab.json").write_text(
        json.dumps([chr(97 + i if i < 26 else 0x4E00 + i) for i in range(256)])
    )
    return folder


def text_of(folder: Path, backend: str, prompt: str, **settings: Any) -> str:
    import minigen

    return minigen.load(folder, backend=backend).generate(prompt, **settings)


def test_prints_the_continuation_and_nothing_else(
    run_cli: Run, letters: Path, backend: str
) -> None:
    text = text_of(letters, backend, "abc", max_tokens=9, temperature=0)
    where = ("--backend", backend, *GREEDY, "-n", "9")
    assert run_cli("generate", letters, "-p", "abc", *where) == (0, text + "\n", "")
    assert run_cli("generate", letters, "-p", "abc", "--echo", *where) == (
        0,
        "abc" + text + "\n",
        "",
    )


def test_prompts_from_a_file_and_stdin(
    letters: Path, tmp_path: Path, any_backend: str, run_cli: Run
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("abc\n")
    where = ["--backend", any_backend, *GREEDY, "-n", "5"]
    wanted = run_cli("generate", letters, "-p", "abc", *where)[1]
    assert run_cli("generate", letters, "-f", file, *where) == (0, wanted, "")
    command = [sys.executable, "-m", "minigen", "generate", str(letters), *where]
    piped = subprocess.run(command, input=b"abc\n", capture_output=True, check=True)
    assert (piped.stdout.decode(), piped.stderr) == (wanted, b"")


def test_a_batch_has_headings(run_cli: Run, letters: Path, backend: str) -> None:
    where = ("--backend", backend, "-n", "4", "-s", "1", "--temp", "1")
    code, out, err = run_cli(
        "generate", letters, "-p", "ab", "-p", "cde", "--num-samples", "2", *where
    )
    assert (code, err) == (0, "")
    first = text_of(letters, backend, "ab", max_tokens=4, temperature=1, seed=1)
    third = text_of(letters, backend, "cde", max_tokens=4, temperature=1, seed=1)
    texts = re.fullmatch(
        "==> prompt 1, sample 1 <==\n(.*)\n\n==> prompt 1, sample 2 <==\n.*\n\n"
        "==> prompt 2, sample 1 <==\n(.*)\n\n==> prompt 2, sample 2 <==\n.*\n",
        out,
    )
    assert texts is not None
    assert texts.groups() == (first, third)


def test_json(run_cli: Run, letters: Path, backend: str) -> None:
    where = ("--backend", backend, "-n", "3", "-s", "4", "--logprobs", "2", "--json")
    code, out, err = run_cli("generate", letters, "-p", "ab", "-p", "c", *where)
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    assert (found["backend"], found["dtype"], found["sampling"]["seed"]) == (backend, "float32", 4)
    assert [r["prompt"] for r in found["results"]] == ["ab", "c"]
    for result in found["results"]:
        assert result["finish"] == "length"
        assert [p["id"] for p in result["logprobs"]] == result["ids"]
        assert "".join(p["token"] for p in result["logprobs"]) == result["text"]
        assert all(len(p["top"]) == 2 and p["logprob"] <= 0 for p in result["logprobs"])
    timing = found["timing"]
    assert (timing["prompt_tokens"], timing["generated_tokens"]) == (3, 6)
    assert found["peak_memory_bytes"] > 1e6


def test_verbose_goes_to_stderr(run_cli: Run, letters: Path, backend: str) -> None:
    code, out, err = run_cli(
        "generate", letters, "-p", "ab", "-n", "5", "-s", "3", "--backend", backend, "-v"
    )
    assert (code, len(out)) == (0, 6)
    assert re.fullmatch(
        rf"minigen: .* on {backend} \(cpu, float32\), loaded in [\d.]+ s, seed 3\n"
        r"minigen: prefill      2 tokens in [\d.]+ s, [\d.]+ tokens/s\n"
        r"minigen: decode       4 tokens in [\d.]+ s, [\d.]+ tokens/s\n"
        r"minigen: first token  [\d.]+ s after loading\n"
        r"minigen: peak memory  \d+ MiB\n",
        err,
    )


def test_logprobs_table(run_cli: Run, letters: Path, backend: str) -> None:
    where = ("--backend", backend, *GREEDY, "-n", "2")
    _, plain, _ = run_cli("generate", letters, "-p", "ab", *where)
    code, out, _ = run_cli("generate", letters, "-p", "ab", "--logprobs", "2", *where)
    assert code == 0
    text, *lines = out.splitlines()
    assert text + "\n" == plain
    assert len(lines) == 2
    for line, character in zip(lines, text, strict=True):
        assert re.fullmatch(
            rf" +-\d+\.\d{{4}}  '{character}' +'{character}' -\d+\.\d{{3}}  '.' -\d+\.\d{{3}}", line
        )


# -- bad input: one line, exit 1 for an error, 2 for bad usage --
def header(entries: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(start: int, end: int, count: int = 1) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [count], "data_offsets": [start, end]}


def break_weights(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensor(folder: Path, name: str, make: Callable[[Any], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = make(tensors[name])
    save_file(tensors, folder / "model.safetensors")


def drop_and_add(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.extra"] = tensors.pop("model.norm.weight")
    tensors["model.layers.1.mlp.down_proj.weight"] = np.zeros((3, 4), np.float32)
    save_file(tensors, folder / "model.safetensors")


EMBEDDING = "model.embed_tokens.weight"
BROKEN_MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"MODEL has no config\.json; it has .*"),
    "config no JSON": (
        lambda f: (f / "config.json").write_text("{"),
        r"MODEL/config\.json: not JSON \(.*\)",
    ),
    "no architecture": (
        lambda f: change_config(f, model_type=None),
        r"config\.json has no model_type: minigen knows gpt2, gru_lm, lfm2, llama, .*",
    ),
    "unknown architecture": (
        lambda f: change_config(f, model_type="mamba"),
        r"config\.json has the unknown model_type 'mamba': minigen knows gpt2, gru_lm, lfm2, llama, .*",
    ),
    "quantized by others": (
        lambda f: change_config(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        r"MODEL/config\.json: quantization_config has the method 'gptq': minigen reads mlx-lm's affine in .*",
    ),
    "bad config value": (
        lambda f: change_config(f, hidden_size="wide"),
        r"MODEL/config\.json: hidden_size is 'wide': it must be a whole number from 1 to 2147483648",
    ),
    "missing config value": (
        lambda f: change_config(f, intermediate_size=None),
        r"MODEL/config\.json: intermediate_size is missing",
    ),
    "unknown activation": (
        lambda f: change_config(f, hidden_act="gloo"),
        r"MODEL/config\.json: hidden_act is 'gloo': it must be one of gelu, .*",
    ),
    "unknown rope": (
        lambda f: change_config(f, rope_scaling={"rope_type": "yarn", "factor": 2}),
        r"MODEL/config\.json: unknown rope scaling 'yarn': minigen knows default, linear, llama3",
    ),
    "heads do not divide": (
        lambda f: change_config(f, num_key_value_heads=3),
        r"MODEL/config\.json: num_key_value_heads is 3: it must divide the 4 attention heads",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"MODEL has no .*"),
    "pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"MODEL has .*pickle.*safetensors.*",
    ),
    "truncated": (
        lambda f: break_weights(f, (f / "model.safetensors").read_bytes()[:-100]),
        r"MODEL/model\.safetensors .*truncated.*download it again",
    ),
    "offsets beyond the file": (
        lambda f: break_weights(f, header({"a": tensor(0, 400, 100)}, b"0" * 4)),
        r".*damaged.*",
    ),
    "overlapping": (
        lambda f: break_weights(f, header({"a": tensor(0, 4), "b": tensor(0, 4)}, b"0000")),
        r".*damaged.*",
    ),
    "huge header length": (
        lambda f: break_weights(f, struct.pack("<Q", 2**62) + b"{}"),
        r".*damaged.*",
    ),
    "no file at all": (lambda f: break_weights(f, b""), r".*damaged.*"),
    "wrong dtype": (
        lambda f: change_tensor(f, EMBEDDING, lambda x: x.astype(np.int64)),
        rf"the tensors in MODEL do not fit its config\.json; 1 of the wrong dtype: {EMBEDDING} is I64, not one of F.*",
    ),
    "all at once": (
        drop_and_add,
        r"the tensors in MODEL do not fit its config\.json; 1 missing: model\.norm\.weight \(32,\); "
        r"1 unexpected: model\.extra \(32,\); "
        r"1 of the wrong shape: model\.layers\.1\.mlp\.down_proj\.weight is \(3, 4\), the config asks for \(32, 48\)",
    ),
    "layers": (
        lambda f: change_config(f, num_hidden_layers=2**31 - 1),
        r"MODEL/config\.json: num_hidden_layers is 2147483647: it must be at most 1000 layers",
    ),
    "infinite": (
        lambda f: change_config(f, rms_norm_eps=float("inf")),
        r"MODEL/config\.json: rms_norm_eps is inf: it must be a number > 0 and < 1e\+30",
    ),
    "beyond float": (
        lambda f: change_config(f, rope_theta=10**400),
        r"MODEL/config\.json: rope_theta is 10+: it must be a number > 0 and < 1e\+30",
    ),
    "activation no name": (
        lambda f: change_config(f, hidden_act=["silu"]),
        r"MODEL/config\.json: hidden_act is \['silu'\]: it must be one of gelu, .*",
    ),
    "eos no id": (
        lambda f: change_config(f, eos_token_id=True),
        r"MODEL/config\.json: eos_token_id is True: it must be an id or a list of ids",
    ),
    "broken tokenizer": (
        lambda f: (change_config(f, tokenizer=None), (f / "tokenizer.json").write_text("[]")),
        r"MODEL/tokenizer\.json.*",
    ),
}


@pytest.mark.parametrize("what", BROKEN_MODELS)
def test_broken_models(
    run_cli: Run, make_model: Callable[..., Path], backend: str, what: str
) -> None:
    spoil, message = BROKEN_MODELS[what]
    folder = make_model("llama")
    spoil(folder)
    code, out, err = run_cli("generate", folder, "-p", "x", "--backend", backend)
    assert (code, out) == (1, "")
    assert re.fullmatch(
        message.replace("MODEL", re.escape(str(folder))),
        err.removeprefix("minigen: ").removesuffix("\n"),
    )


def test_nan_weights_warn(run_cli: Run, make_model: Callable[..., Path], backend: str) -> None:
    folder = make_model("llama")

    def poison(x: Any) -> Any:
        x[200, 3] = np.nan
        return x

    change_tensor(folder, EMBEDDING, poison)
    code, _, err = run_cli("generate", folder, "-p", "x", "--backend", backend, "-n", "2")
    lines = err.splitlines()
    assert code == 1  # the tied head makes a logit of every row, so the model can say nothing
    assert lines[0].endswith(
        f"has weights that are NaN or infinite, in {EMBEDDING}: its text will be noise"
    )
    assert lines[1:] == [
        "minigen: the model produced NaN as a logit: check its weights, or run it in float32"
    ]


BAD_USAGE = {
    "temperature": (
        ["-p", "x", "--temp", "-1"],
        2,
        r"minigen: temperature is -1\.0: it must be a number >= 0",
    ),
    "top-p": (
        ["-p", "x", "--top-p", "2"],
        2,
        r"minigen: top_p is 2\.0: it must be a number > 0 and <= 1",
    ),
    "not a number": (
        ["-p", "x", "--temp", "hot"],
        2,
        r"minigen: argument --temp: invalid float value: 'hot' .*",
    ),
    "unknown flag": (
        ["-p", "x", "--bogus"],
        2,
        r"minigen: unrecognized arguments: --bogus \(see minigen generate --help\)",
    ),
    "abbreviated flag": (
        ["-p", "x", "--temper", "1"],
        2,
        r"minigen: unrecognized arguments: --temper 1 .*",
    ),
    "empty prompt": (
        ["-p", ""],
        2,
        r"minigen: the prompt is empty, and .* no token that begins or separates texts.*",
    ),
    "long prompt": (
        ["-p", "x" * 80],
        1,
        r"minigen: the prompt has 80 tokens and the model's context is 64: shorten it .*",
    ),
    "too many tokens": (
        ["-p", "x", "-n", "99"],
        1,
        r"minigen: a prompt of 1 tokens and 99 new ones exceed .* at most 63",
    ),
    "no such file": (
        ["-f", "nowhere.txt"],
        1,
        r"minigen: cannot read nowhere\.txt: No such file .*",
    ),
    "unknown dtype": (
        ["-p", "x", "--dtype", "int8"],
        2,
        r"minigen: argument --dtype: invalid choice: 'int8' .*",
    ),
    "bias": (
        ["-p", "x", "--logit-bias", "a"],
        2,
        r"minigen: argument --logit-bias: 'a' is not ID=BIAS, .*",
    ),
    "bias beyond": (
        ["-p", "x", "--logit-bias", "999=1"],
        2,
        r"minigen: logit_bias names token 999: .*",
    ),
    "unknown device": (
        ["-p", "x", "--device", "abacus"],
        1,
        r"minigen: \w+ (has no|cannot use the) device 'abacus': .*",
    ),
}


@pytest.mark.parametrize("what", BAD_USAGE)
def test_bad_usage(run_cli: Run, tiny: Tiny, backend: str, what: str) -> None:
    words, wanted, message = BAD_USAGE[what]
    code, out, err = run_cli("generate", tiny("llama"), "--backend", backend, *words)
    assert (code, out) == (wanted, "")
    assert re.fullmatch(message + "\n", err)


def test_bad_sources_and_commands(run_cli: Run, tmp_path: Path) -> None:
    def says(*words: str) -> tuple[int, str]:
        code, out, err = run_cli(*words)
        assert out == ""
        assert err.count("\n") == 1
        return code, err.removeprefix("minigen: ").rstrip()

    assert says("generate", f"{tmp_path}/nowhere", "-p", "x") == (
        1,
        f"no such folder: {tmp_path}/nowhere",
    )
    assert says("generate", str(tmp_path), "-p", "x") == (
        1,
        f"{tmp_path} has no config.json; it is empty",
    )
    assert says("generate", "a/b", "--offline", "-p", "x")[0] == 1
    assert says("genrate")[0] == 2
    assert says()[0] == 2
    latin = tmp_path / "latin.txt"
    latin.write_bytes("déjà".encode("latin-1"))
    assert says("generate", "-f", str(latin)) == (1, f"{latin} is not UTF-8: byte 0xe9 at offset 1")


# -- a real terminal and real signals --
def test_ctrl_c_ends_the_text_without_a_traceback(
    make_model: Callable[..., Path], backend: str, read_all: Callable[[int], bytes]
) -> None:
    folder = make_model("llama", max_position_embeddings=2_000_000)
    words = [
        "generate",
        str(folder),
        "-p",
        "x",
        "-n",
        "1000000",
        "--backend",
        backend,
        "--temp",
        "1",
        "-s",
        "1",
    ]
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "minigen", *words],
        stdout=child,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    os.close(child)
    ready, _, _ = select.select(
        [parent], [], [], 60
    )  # it streams: the first text comes long before the last
    assert ready
    seen = os.read(parent, 100)
    process.send_signal(signal.SIGINT)
    seen += read_all(parent)
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 130
    assert seen.endswith(b"\n")
    process.stderr.close()
    os.close(parent)


DROPPED = """
import signal, sys
from minigen.cli.commands.generate import TextWriter
from minigen.cli.main import main

class Interrupting:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def write_and_drop(self, text, write=TextWriter.write, objects=[Interrupting()]):
    write(self, text)
    if text and objects:
        del objects[0]

TextWriter.write = write_and_drop
sys.exit(main())
"""


def test_ctrl_c_ends_the_text_even_if_python_drops_the_exception(
    make_model: Callable[..., Path], any_backend: str
) -> None:
    """As it drops what is raised in a finalizer, or in a callback of a weak reference."""
    folder = make_model("llama", max_position_embeddings=2_000)
    words = ["generate", folder, "-p", "x", "-n", "1000", "--ignore-eos", "--backend", any_backend]
    done = subprocess.run([sys.executable, "-c", DROPPED, *words], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")
    assert len(done.stdout) < 100


def test_a_closed_pipe_is_no_error(tiny: Tiny, any_backend: str) -> None:
    command = [
        sys.executable,
        "-m",
        "minigen",
        "generate",
        str(tiny("llama")),
        "-p",
        "x",
        "--backend",
        any_backend,
        "-n",
        "60",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_closed_streams(tiny: Tiny, any_backend: str) -> None:
    command = (
        f"{sys.executable} -m minigen generate {tiny('llama')} -p x -n 3 --backend {any_backend}"
    )
    for closed in (">&-", "2>&-", "<&-"):
        done = subprocess.run(f"{command} {closed}", shell=True, capture_output=True, check=True)
        assert done.stderr == b""


def test_more_than_the_memory_is_refused(
    run_cli: Run, make_model: Callable[..., Path], backend: str
) -> None:
    folder = make_model("llama", max_position_embeddings=2_000_000_000)
    code, out, err = run_cli(
        "generate", folder, "-p", "x", "-n", "1999999999", "--backend", backend
    )
    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"minigen: this needs [\d.]+ GiB at once, and the device has [\d.]+ GiB: ask for fewer .*\n",
        err,
    )


def test_names_of_files_cannot_break_the_line(run_cli: Run) -> None:
    assert run_cli("generate", "a\nb/c/", "-p", "x") == (
        1,
        "",
        "minigen: no such folder: 'a\\nb/c/'\n",
    )
    assert run_cli("generate", "-f", "a\nb")[2] == (
        "minigen: cannot read a\\nb: No such file or directory\n"
    )
    assert (
        run_cli("generate", "--fo\no")[2]
        == "minigen: unrecognized arguments: --fo\\no (see minigen generate --help)\n"
    )


def test_help_is_quick_to_import() -> None:
    """Seconds are for benchmarks; what makes --help slow is an import, and that can be told exactly."""
    code = "import sys, minigen.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: print(sorted(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "generate" in out
    for heavy in (
        "numpy",
        "torch",
        "mlx",
        "safetensors",
        "tokenizers",
        "tiktoken",
        "huggingface_hub",
    ):
        assert f"'{heavy}'" not in out

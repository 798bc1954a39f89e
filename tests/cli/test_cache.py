"""`minigen cache` and `generate --cache` as they are typed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import minigen
from minigen.checkpoints.fingerprint import fingerprint

Run = Callable[..., tuple[int, str, str]]
Tiny = Callable[[str], Path]
PREFIX = "Translate English to French:"


@pytest.fixture(params=["llama", "lstm"])
def folder(request: pytest.FixtureRequest, tiny: Tiny) -> Path:
    return tiny(request.param)


@pytest.fixture
def cache(run_cli: Run, folder: Path, tmp_path: Path, backend: str) -> Path:
    path = tmp_path / "few.cache"
    code, out, err = run_cli(
        "cache", "build", path, "-m", folder, "-p", PREFIX, "--backend", backend
    )
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{path}: 28 tokens of {folder.name} in float32, [\d.]+ MB\n", out)
    return path


def test_generate_goes_on_from_it(run_cli: Run, cache: Path, folder: Path, backend: str) -> None:
    where = (folder, "--backend", backend, "-n", "9", "--ignore-eos", "-s", "3", "--json")
    for words in (["-p", PREFIX + " sea"], ["-p", PREFIX, "-p", PREFIX + "\n", "--temp", "0"]):
        code, out, err = run_cli("generate", *where, *words, "--cache", cache)
        assert (code, err) == (0, "")
        plain = json.loads(run_cli("generate", *where, *words)[1])
        assert json.loads(out)["results"] == plain["results"]
    code, _, err = run_cli(
        "generate", folder, "--backend", backend, "-p", PREFIX + " x", "--cache", cache, "-n1", "-v"
    )
    assert code == 0
    assert f"minigen: 27 prompt tokens from {cache}\n" in err
    assert re.search(r"^minigen: prefill +3 tokens in", err, re.MULTILINE)


def test_show_needs_no_model(run_cli: Run, cache: Path, folder: Path) -> None:
    code, out, err = run_cli("cache", "show", cache)
    assert (code, err) == (0, "")
    shown = dict(re.split(" {2,}", line, maxsplit=1) for line in out.splitlines())
    assert shown.pop("size").endswith(" MB")
    assert shown == {
        "model": folder.name,
        "fingerprint": fingerprint(folder),
        "dtype": "float32",
        "tokens": "28",
        "made with": f"minigen {minigen.__version__}",
    }
    found = json.loads(run_cli("cache", "show", cache, "--json")[1])
    assert (found["ids"], found["bytes"]) == (list(PREFIX.encode()), cache.stat().st_size)


def test_a_prompt_from_a_file(run_cli: Run, tiny: Tiny, tmp_path: Path, backend: str) -> None:
    (tmp_path / "prompt.txt").write_text(
        PREFIX + "\n"
    )  # its last line break is no part of it, as in generate
    where = ("-m", tiny("llama"), "--backend", backend)
    assert run_cli("cache", "build", tmp_path / "c", *where, "-f", tmp_path / "prompt.txt")[0] == 0
    assert json.loads(run_cli("cache", "show", tmp_path / "c", "--json")[1])["ids"] == list(
        PREFIX.encode()
    )


def test_what_is_refused(
    run_cli: Run, cache: Path, folder: Path, tiny: Tiny, tmp_path: Path, backend: str
) -> None:
    def says(*words: object) -> tuple[int, str]:
        code, out, err = run_cli(*words)
        assert out == ""
        assert err.count("\n") == 1
        return code, err.removeprefix("minigen: ").rstrip().replace(str(tmp_path), "TMP")

    def generate(model: Path, file: Path, prompt: str, *words: str) -> tuple[int, str]:
        return says("generate", model, "--backend", backend, "-p", prompt, "--cache", file, *words)

    assert generate(folder, cache, "Translate English") == (
        2,
        "the prompt ends after 17 of the 28 tokens of TMP/few.cache: it must begin with all",
    )
    code, message = generate(tiny("gpt2"), cache, PREFIX)
    assert code == 1
    assert re.fullmatch(
        rf"TMP/few\.cache was built by the model {folder.name} \(\w{{12}}\), this one is gpt2 \(\w{{12}}\): build .*",
        message,
    )
    code, message = generate(folder, cache, PREFIX, "--dtype", "bfloat16")
    assert (code, message.split(":")[0]) == (
        1,
        "TMP/few.cache was built in float32 and the model runs in bfloat16",
    )
    missing = (1, "cannot read TMP/none: No such file or directory")
    assert (
        generate(folder, tmp_path / "none", PREFIX)
        == says("cache", "show", tmp_path / "none")
        == missing
    )
    weights = folder / "model.safetensors"
    assert says("cache", "show", weights) == (
        1,
        f"{weights} is not a prompt cache: make one with minigen cache build",
    )
    build = ("cache", "build", tmp_path / "c", "-m", folder, "--backend", backend)
    assert says(*build, "-p", "a", "-p", "b") == (
        2,
        "a cache holds one prompt, not 2: give one -p or one -f",
    )
    assert says(*build, "-p", "a") == (
        2,
        "the prompt is a single token: a cache of it saves nothing",
    )
    assert says("cache", "build", "no/c", "-m", folder, "-p", "abc") == (
        1,
        "cannot write no/c: there is no folder no",
    )
    assert says("cache")[0] == says("cache", "build")[0] == says("cache", "drop")[0] == 2

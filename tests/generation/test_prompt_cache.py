"""Prompts on disk: what goes on from a file is what goes on from the text, and what does not fit is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minigen
from minigen.checkpoints import fingerprint as prints
from minigen.checkpoints.checkpoint import read_metadata
from minigen.checkpoints.fingerprint import fingerprint
from minigen.errors import CheckpointError, ContextError, UsageError
from minigen.evaluation.scoring import Scorer, Text
from minigen.generation.options import Options
from minigen.model import Model
from minigen.prompt_cache import (
    KEY,
    cached_run,
    load_prompt,
    read_prompt_info,
    save_prompt,
    shared_text,
)

WITH_KERNELS = True  # see conftest.py

PREFIX = "Translate: sea otter"
Tiny = Callable[[str], Path]
Make = Callable[..., Path]


@pytest.fixture(params=["gpt2", "llama", "lstm", "lfm2"])
def model(request: pytest.FixtureRequest, tiny: Tiny, backend: str, device: str) -> Model:
    return minigen.load(tiny(request.param), backend=backend, device=device, dtype="float32")


@pytest.fixture
def cache(model: Model, tmp_path: Path) -> Path:
    path = tmp_path / "few.cache"
    save_prompt(model, list(PREFIX.encode()), path)
    return path


def go_on(model: Model, path: Path, texts: list[str], **settings: Any) -> tuple[list[str], int]:
    """The texts, and how many tokens were read for them."""
    found = cached_run(model, path, texts, Options.of(**settings))
    for _ in found.run:
        pass
    beyond = [len(text) - len(PREFIX) + 1 for text in texts]
    assert found.run.timing.prompt_tokens == sum(beyond)
    return [completion.text for completion in found.run.completions()], found.shared.tokens_read


@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        ([PREFIX + " =>"], {"temperature": 0}),
        ([PREFIX], {"temperature": 0}),
        ([PREFIX + " => loutre", PREFIX, PREFIX + "s"], {"temperature": 0}),
        ([PREFIX + " =>"], {"temperature": 1.0, "seed": 5, "num_samples": 3}),
        ([PREFIX + " =>", PREFIX + "!"], {"temperature": 1.0, "seed": 5, "num_samples": 2}),
        ([PREFIX + " =>", PREFIX + "!!"], {"temperature": 0, "beams": 3}),
    ],
    ids=["more", "exactly", "batch", "samples", "batch of samples", "beams"],
)
def test_goes_on_as_without(
    model: Model, cache: Path, texts: list[str], settings: dict[str, Any]
) -> None:
    settings |= {"max_tokens": 12, "ignore_eos": True}
    found, read = go_on(model, cache, texts, **settings)
    assert found == [completion.text for completion in model.complete(texts, **settings)]
    if len(found) == 1:
        assert read == len(texts[0]) - len(PREFIX) + 1


def test_the_logits_are_those_of_the_text(model: Model, cache: Path) -> None:
    state, ids = load_prompt(model, cache)
    assert ids == list(PREFIX.encode())
    state.reserve(model.runner.ops, 30)
    logits = model.runner.ops.numpy(model.runner.read([[ids[-1], 65, 66]], state, range(3)))
    wanted = model.logits([[*ids, 65, 66]])[:, len(ids) - 1 :]
    assert np.abs(logits - wanted).max() < 1e-4


def test_a_scorer_takes_it(model: Model, cache: Path) -> None:
    ids = list(PREFIX.encode())
    texts = [Text([*ids, *answer.encode()], len(ids)) for answer in (" yes", " no", " maybe")]
    shared = shared_text(model, cache)
    found = Scorer(shared).score(texts)
    fresh = shared_text(model, cache)
    fresh.state, fresh.ids = model.architecture.new_state(model.runner.ops, 1, 8), []
    for one, other in zip(found, Scorer(fresh).score(texts), strict=True):
        assert np.abs(one - other).max() < 1e-5
    assert (fresh.tokens_read - shared.tokens_read) == len(ids) - 1


@pytest.mark.parametrize("name", ["llama", "lstm", "lfm2"])
def test_a_file_of_the_other_backend_goes_on(tiny: Tiny, tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx.core")
    models = [
        minigen.load(tiny(name), backend=backend, device="cpu") for backend in ("torch", "mlx")
    ]
    settings = {"temperature": 0, "max_tokens": 10, "ignore_eos": True}
    wanted = models[0].generate(PREFIX + " =>", **settings)
    for maker, user in (models, models[::-1]):
        save_prompt(maker, list(PREFIX.encode()), tmp_path / "c")
        assert go_on(user, tmp_path / "c", [PREFIX + " =>"], **settings) == ([wanted], 4)


def test_a_half_precision_state_comes_back(
    tiny: Tiny, tmp_path: Path, backend: str, device: str
) -> None:
    model = minigen.load(tiny("llama"), backend=backend, device=device, dtype="bfloat16")
    save_prompt(model, list(PREFIX.encode()), tmp_path / "c")
    state, _ = load_prompt(model, tmp_path / "c")
    fresh = shared_text(model, tmp_path / "c")
    fresh.state = model.architecture.new_state(model.runner.ops, 1, 40)
    fresh.ids = []
    fresh.seek(list(PREFIX.encode())[:-1])
    for name, array in fresh.state.arrays().items():
        assert np.array_equal(
            model.runner.ops.numpy(array), model.runner.ops.numpy(state.arrays()[name])
        )
    assert read_prompt_info(tmp_path / "c").dtype == "bfloat16"


# -- what does not fit --
def rewrite(path: Path, **changes: Any) -> None:
    metadata = read_metadata(path)
    metadata[KEY] = json.dumps(json.loads(metadata[KEY]) | changes)
    save_file(load_file(path), path, metadata=metadata)


def refused(path: Path, message: str, model: Model) -> None:
    with pytest.raises(CheckpointError, match=f"^{message.replace('FILE', re.escape(str(path)))}$"):
        load_prompt(model, path)


def test_another_model_dtype_or_file(
    tiny: Tiny, make_model: Make, tmp_path: Path, backend: str, device: str
) -> None:
    def load(folder: Path, dtype: str = "float32") -> Model:
        return minigen.load(folder, backend=backend, device=device, dtype=dtype)

    model, path = load(tiny("llama")), tmp_path / "few.cache"
    save_prompt(model, list(PREFIX.encode()), path)
    own, other = fingerprint(tiny("llama"))[:12], load(make_model("llama", seed=1))
    there = fingerprint(other.folder)[:12]
    assert own != there
    refused(
        path,
        rf"FILE was built by the model llama \({own}\), this one is {other.folder.name} \({there}\): "
        "build it again with this model",
        other,
    )
    refused(
        path,
        "FILE was built in float32 and the model runs in float16: run it in float32, or build it again in float16",
        load(tiny("llama"), "float16"),
    )
    missing = tmp_path / "missing.cache"
    refused(missing, r"cannot read FILE: No such file or directory", model)
    refused(
        tiny("llama") / "model.safetensors",
        r"FILE is not a prompt cache: make one with minigen cache build",
        model,
    )
    whole = path.read_bytes()
    for torn in (whole[:-9], whole[:200], b"", b"text"):
        path.write_bytes(torn)
        refused(
            path, r"FILE is not a safetensors file, or is damaged \(.*\): build it again", model
        )
    path.write_bytes(whole)
    for changes, message in (
        (
            {"format": 2},
            "FILE is a prompt cache of format 2, and this minigen reads 1: build it again",
        ),
        ({"format": "new"}, "FILE is not a prompt cache: .*"),
        ({"ids": [1, -2]}, "FILE is not a prompt cache: .*"),
        ({"ids": "abc"}, "FILE is not a prompt cache: .*"),
        ({"dtype": None}, "FILE is not a prompt cache: .*"),
        ({"ids": [1, 2, 3]}, "FILE holds a state of 19 tokens for a prompt of 3: build it again"),
    ):
        rewrite(path, **changes)
        refused(path, message, model)
        path.write_bytes(whole)
    assert load_prompt(model, path)[1] == list(PREFIX.encode())


def test_a_prompt_that_begins_otherwise(model: Model, cache: Path) -> None:
    def says(text: str) -> str:
        with pytest.raises(UsageError) as caught:
            cached_run(model, cache, [PREFIX + " fine", text], Options.of())
        return str(caught.value).replace(str(cache), "FILE")

    begins = "the prompt does not begin with the 20 tokens of FILE: "
    assert says("Translate: see otter") == begins + (
        "token 14 is 'a' there and 'e' in the prompt; give a prompt that begins with it"
    )
    assert says("Translate: sea otte=>") == begins + (
        "token 20 is 'r' there and '=' in the prompt; build the cache from less of the text"
    )
    assert (
        says("Translate")
        == "the prompt ends after 9 of the 20 tokens of FILE: it must begin with all"
    )


def test_what_cannot_be_saved(tiny: Tiny, tmp_path: Path, backend: str, device: str) -> None:
    model = minigen.load(tiny("llama"), backend=backend, device=device)
    for ids, kind, message in (
        ([5], UsageError, "the prompt is a single token: a cache of it saves nothing"),
        ([], UsageError, "the prompt is empty: give at least one token"),
        ([5, 256], UsageError, "token id 256 is outside the model's vocabulary of 256"),
        (
            [5] * 64,
            ContextError,
            "the prompt has 64 tokens and the model's context is 64: shorten it to leave room for an answer",
        ),
    ):
        with pytest.raises(kind, match=f"^{message}$"):
            save_prompt(model, ids, tmp_path / "c")
    with pytest.raises(
        minigen.MinigenError,
        match=rf"^cannot write {tmp_path}/no/c: there is no folder {tmp_path}/no$",
    ):
        save_prompt(model, [5, 6], tmp_path / "no" / "c")
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        minigen.MinigenError, match=rf"^cannot write {tmp_path}/folder: Is a directory$"
    ):
        save_prompt(model, [5, 6], tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# -- fingerprints --
def test_a_fingerprint_is_of_the_content(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(tiny("llama"), folder)
    own = fingerprint(tiny("llama"))
    assert re.fullmatch("[0-9a-f]{64}", own)
    (folder / "README.md").write_text("a card")
    assert fingerprint(folder) == own
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    changed = fingerprint(folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert len({own, changed, fingerprint(folder)}) == 3
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        fingerprint(folder)


def test_of_a_large_file_a_part_counts(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prints, "WHOLE", 1000)
    monkeypatch.setattr(prints, "BLOCK", 100)
    folder = tmp_path / "large"
    shutil.copytree(tiny("llama"), folder)
    own, path = fingerprint(folder), folder / "model.safetensors"
    whole = bytearray(path.read_bytes())
    gap = (len(whole) - 100) * 50 // 63 + 150  # between two blocks

    def changed(offset: int) -> bool:
        path.write_bytes(bytes([*whole[:offset], whole[offset] ^ 1, *whole[offset + 1 :]]))
        return fingerprint(folder) != own

    assert changed(len(whole) - 1)
    assert changed((len(whole) - 100) * 50 // 63 + 99)
    assert not changed(gap)
    path.write_bytes(whole)
    assert fingerprint(folder) == own

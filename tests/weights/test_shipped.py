"""The model that ships: it loads, says the same on both backends, and other programs open it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import minigen
from minigen.chat.engine import Chat
from minigen.checkpoints.hub import resolve

Run = Callable[..., tuple[int, str, str]]


def test_it_is_small_and_whole() -> None:
    folder = resolve(None)
    assert folder.parent == Path(str(resources.files("minigen.weights")))
    assert (folder / "model.safetensors").stat().st_size < 11 * 10**6
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "recipe.toml", "README.md"} <= {
        path.name for path in folder.iterdir()
    }


def test_it_writes_on_both_backends(backend: str, device: str) -> None:
    model = minigen.load(None, backend, device, "float32")
    ids = model.generate_ids(
        [model.needed_tokenizer.encode("Once upon a time")], max_tokens=60, temperature=0
    )[0]
    text = model.needed_tokenizer.decode(ids)
    words = text.split()
    assert len(words) > 20
    assert len(set(words)) > 12
    assert EXPECTED in text


EXPECTED = "there was a"


def test_it_chats(
    run_cli: Run, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(
        sys,
        "stdin",
        io.TextIOWrapper(io.BytesIO(b"My name is Tim.\nTell me a story about a dog.\n")),
    )
    code, out, err = run_cli("chat", "--lines", "--backend", backend, "--seed", "1")
    assert code == 0, err
    assert "dog" in out
    assert "<|" not in out


def test_its_answers_end(backend: str, device: str) -> None:
    chat = Chat(
        minigen.load(None, backend, device),
        settings={"seed": 1, "temperature": 0, "max_tokens": 100},
    )
    answer = chat.say("Hello!")
    for _ in answer:
        pass
    assert answer.finish().runs[0].finish == "stop"


def test_transformers_opens_it() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = resolve(None)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ids = theirs("Once upon a time, there was a dog.")["input_ids"]
    model = minigen.load(None, "torch", "cpu", "float32")
    assert ids == model.needed_tokenizer.encode("Once upon a time, there was a dog.")
    # In bfloat16 a logit of 16 has neighbours 0.125 away: 2e-2 of the largest is two or three of them.
    for dtype, most in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
        peer = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        with torch.inference_mode():
            theirs = peer(torch.tensor([ids])).logits[0].float().numpy()
        ours = minigen.load(None, "torch", "cpu", str(dtype).removeprefix("torch.")).logits([ids])[
            0
        ]
        size = 1 if dtype == torch.float32 else np.abs(theirs).max()
        assert np.abs(ours - theirs).max() <= most * size, dtype


def test_the_recipe_is_a_config() -> None:
    from minigen.training.run import make_config

    folder = resolve(None)
    config = make_config({}, None, folder / "recipe.toml")
    hub = json.loads((folder / "config.json").read_text())
    assert (hub["hidden_size"], hub["num_hidden_layers"]) == (
        config.model.width,
        config.model.layers,
    )


def test_it_learns_from_examples(run_cli: Run, tmp_path: Path) -> None:
    """Held-out words and mappings: next to nothing without an example, a good share with two."""
    from minigen.weights.synthetic.fewshot import prompt_file

    for name, least in (("capitalize", 0.4), ("last-word", 0.4)):
        path = tmp_path / f"{name}.prompt.toml"
        path.write_text(prompt_file(1, name))
        code, out, err = run_cli("prompt", path, "--shots", "0,2", "--limit", "30", "--json")
        assert code == 0, err
        zero, two = json.loads(out)["results"]
        assert (zero["shots"], two["shots"]) == (0, 2)
        assert two["accuracy"] >= max(least, zero["accuracy"] + 0.2), name

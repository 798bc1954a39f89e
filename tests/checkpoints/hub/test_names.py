"""Names of one word, and adapters by their hub id."""

import json
import logging
import os

import numpy as np
import pytest
from hub_server import refused
from safetensors.numpy import save_file

import minigen
from minigen.checkpoints.hub import fetch, resolve
from minigen.checkpoints.weight_files import SINGLE
from minigen.errors import MinigenError

FILES = {"config.json": b"{}", SINGLE: b"the weights"}
ONCE = "run once online (and without HF_HUB_OFFLINE) to download it"


# -- one word --
def test_a_word_is_a_model_of_the_hubs_first_days(hub, cache):
    commit = hub.add("gpt2", FILES)
    other = hub.add("gpt2", {**FILES, SINGLE: b"other"}, "v2")
    assert resolve("gpt2") == cache / "models--gpt2" / "snapshots" / commit
    assert (resolve("gpt2@v2") / SINGLE).read_bytes() == b"other"
    assert resolve(f"gpt2@{other}").name == other
    hub.stop()
    assert resolve("gpt2", offline=True).name == commit
    assert resolve("gpt2@v2", offline=True).name == other


def test_one_that_has_an_owner_now(hub):
    commit = hub.add("openai-community/gpt2", FILES)
    hub.moved["gpt2"] = "openai-community/gpt2"
    folder = resolve("gpt2")
    assert (folder.name, (folder / SINGLE).read_bytes()) == (commit, FILES[SINGLE])
    assert resolve("gpt2", offline=True) == folder


def test_what_is_nothing_is_both(hub, cache):
    hub.add("gpt2", FILES)
    login = "set HF_TOKEN or run 'hf auth login'"
    said = (
        f"no folder 'my-modle' here, and {hub.url} has no model my-modle, or it is private: check "
        f"the name, or {login}"
    )
    assert refused("my-modle") == said
    said = f"no folder 'gpt2@v9' here, and gpt2 has no revision 'v9': see {hub.url}/gpt2/tree/main"
    assert refused("gpt2@v9") == said
    hub.stop()
    message = refused("my-modle")
    assert message.startswith(f"no folder 'my-modle' here, and cannot reach {hub.url} (")
    assert message.endswith(
        f"and my-modle is not in the cache {cache}: check the connection and try again"
    )


@pytest.mark.parametrize("source", ["my-modle", "my-modle@v1", "runs.old"])
def test_offline_no_socket_is_opened(hub, cache, sockets, source):
    assert (
        refused(source, offline=True)
        == f"no folder {source!r} here, and {source} is not in the cache {cache}: {ONCE}"
    )
    assert not sockets


def test_a_folder_wins(hub, tmp_path, monkeypatch):
    hub.add("gpt2", FILES)
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2@v1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (str(resolve("gpt2")), str(resolve("gpt2@v1"))) == ("gpt2", "gpt2@v1")
    assert refused("./gpt3") == "no such folder: ./gpt3"
    assert not hub.asked


def test_a_model_that_ships_wins(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.resources.files", lambda name: tmp_path)
    for name in ("small", "big"):
        (tmp_path / name).mkdir()
        for file in FILES:
            (tmp_path / name / file).touch()
    (tmp_path / "recipe").mkdir()
    assert resolve("small") == tmp_path / "small"
    assert "has no model recipe" in refused("recipe")
    assert "has no model small" in refused("small@v1")  # what ships has no revisions


def test_the_model_that_ships_has_its_name(sockets):
    folder = resolve(None)
    assert resolve(folder.name) == folder
    assert not sockets


def test_a_slow_hub_is_said(hub, caplog, monkeypatch):
    monkeypatch.setattr(fetch, "PATIENCE", 0.01)
    hub.add("gpt2", FILES)
    hub.delay = 0.3
    with caplog.at_level(logging.WARNING, "minigen"):
        resolve("gpt2")
    assert caplog.messages == [f"waiting for {hub.url} to list gpt2"]


# -- adapters --
ADAPTER = {
    "adapter_config.json": b'{"peft_type": "LORA"}',
    "adapter_model.safetensors": b"two matrices",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
}
BESIDE = {"README.md": b"# An adapter", "optimizer.pt": b"pickle", "training_args.bin": b"pickle"}


def test_an_adapter_is_fetched_as_one(hub, cache):
    commit = hub.add("org/lora", ADAPTER | BESIDE)
    folder = resolve("org/lora")
    assert folder == cache / "models--org--lora" / "snapshots" / commit
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == ADAPTER
    assert hub.fetched() == sorted(ADAPTER)
    other = hub.add("org/lora", {**ADAPTER, "adapter_model.safetensors": b"others"}, "v2")
    assert resolve("org/lora@v2").name == other
    hub.stop()
    assert resolve("org/lora", offline=True) == folder
    assert resolve("org/lora@v2", offline=True).name == other


def test_its_config_beside_is_not_a_models(hub):
    """Some have a copy of the base's; one with whole weights is a model, as a folder is."""
    hub.add("org/lora", ADAPTER | {"config.json": b"{}"})
    assert "config.json" not in os.listdir(resolve("org/lora"))
    hub.add("org/both", ADAPTER | FILES)
    assert SINGLE in os.listdir(resolve("org/both"))


def test_an_adapter_without_weights_that_are_read(hub):
    config = {"adapter_config.json": ADAPTER["adapter_config.json"]}
    hub.add("org/lora", config | {"adapter_model.bin": b"pickle"})
    start = "org/lora has no adapter_model.safetensors; it has the adapter's weights "
    assert (
        refused("org/lora")
        == f"{start}only as a pickle (adapter_model.bin), which can run code: save it as safetensors"
    )
    hub.add("org/lora", config)
    assert (
        refused("org/lora")
        == "org/lora has no adapter_model.safetensors, so it has no weights of the adapter"
    )
    assert hub.fetched() == []


def test_an_adapter_that_broke_off(hub, cache, no_pause):
    hub.add("org/lora", ADAPTER)
    hub.cut["adapter_model.safetensors"] = [3] * 99
    assert "the download of adapter_model.safetensors of org/lora was interrupted" in refused(
        "org/lora"
    )
    (cache / "models--org--lora" / "refs").mkdir()
    commit = next((cache / "models--org--lora" / "snapshots").iterdir()).name
    (cache / "models--org--lora" / "refs" / "main").write_text(commit)
    expected = f"org/lora is not complete in the cache {cache} (it lacks adapter_model.safetensors): {ONCE}"
    assert refused("org/lora", offline=True) == expected


def test_an_adapter_whose_weights_are_others(hub):
    hub.add("org/lora", ADAPTER)
    hub.sent["adapter_model.safetensors"] = b"two matricez"
    assert "its SHA-256 is" in refused("org/lora")


def model_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lora_files(base, revision=None):
    rng = np.random.default_rng(3)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    halves = {"A": (3, 32), "B": (32, 3)}
    tensors = {
        f"{module}.lora_{half}.weight": rng.standard_normal(shape).astype(np.float32)
        for half, shape in halves.items()
    }
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": 3,
        "lora_alpha": 6,
    }
    return json.dumps(config).encode(), tensors


@pytest.fixture
def add_lora(hub, tmp_path):
    """add_lora("org/lora", "org/base", "v1"): an adapter of a base on the hub."""

    def add(name, base, revision=None):
        config, tensors = lora_files(base, revision)
        save_file(tensors, tmp_path / "weights")
        hub.add(
            name,
            {
                "adapter_config.json": config,
                "adapter_model.safetensors": (tmp_path / "weights").read_bytes(),
            },
        )

    return add


@pytest.mark.parametrize(
    ("base", "revision"), [("org/base", None), ("org/base", "v1"), ("base", None), ("base", "v1")]
)
def test_an_adapter_opens_with_its_base(hub, tiny, add_lora, base, revision, any_backend, request):
    """The base is on the hub too, of the revision that it names, and both are in the cache afterwards."""
    files = model_files(tiny("llama"))
    if revision:
        hub.add(base, {"config.json": b"{}", SINGLE: b"another model"})
    hub.add(base, files, revision or "main")
    add_lora("org/lora", base, revision)
    model = minigen.load("org/lora", any_backend, "cpu")
    logits = model.logits([[1, 2, 3]])
    plain = minigen.load(tiny("llama"), any_backend, "cpu").logits([[1, 2, 3]])
    assert np.abs(logits - plain).max() > 0.01
    request.getfixturevalue("sockets")
    cached = minigen.load("org/lora", any_backend, "cpu", offline=True)
    assert np.array_equal(cached.logits([[1, 2, 3]]), logits)


def test_an_adapter_whose_base_is_nowhere(hub, add_lora):
    add_lora("org/lora", "org/base")
    with pytest.raises(
        MinigenError,
        match=r"^cannot load the base model of adapter .*org--lora.* \(.* has no model org/base",
    ):
        minigen.load("org/lora")
    add_lora("org/other", "/home/someone/llama")
    with pytest.raises(
        MinigenError,
        match=r"the base model of adapter .* \(no such folder: /home/someone/llama\): correct base_model",
    ):
        minigen.load("org/other")


def test_an_adapter_merged_from_the_hub(hub, tiny, add_lora, tmp_path, run_cli):
    hub.add("org/base", model_files(tiny("llama")))
    add_lora("org/lora", "org/base")
    assert run_cli("convert", "org/lora", tmp_path / "one")[0] == 0
    assert run_cli("convert", "org/base", tmp_path / "two", "--lora", "org/lora")[0] == 0
    assert (tmp_path / "one" / SINGLE).read_bytes() == (tmp_path / "two" / SINGLE).read_bytes()
    code, _, err = run_cli("convert", "org/base", tmp_path / "three", "--lora", "./nowhere")
    assert (code, err) == (1, "minigen: no such folder: ./nowhere\n")

"""Model folders made by hand, good and broken: what is read from them, and the one line when it cannot be."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minigen.checkpoints.checkpoint import read_config, read_headers
from minigen.checkpoints.weight_files import INDEX, SINGLE, pick_weights
from minigen.errors import CheckpointError
from minigen.models import stored_dtypes
from minigen.models.tensor_info import TensorInfo

SHARDED = Path(__file__).parents[3] / "shared" / "oracles" / "llama_bf16_sharded"
EXPECTED = "model.safetensors, or model.safetensors.index.json and the files it names"


def raw(header, data=b"", length=None):
    """The bytes of a safetensors file, with a header as it should never be if so asked."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def tensor(begin, end, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def write_shards(folder, shards, weight_map=None):
    for name, tensors in shards.items():
        save_file(tensors, folder / name)
    if weight_map is None:
        weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def fails(call, folder):
    with pytest.raises(CheckpointError) as caught:
        call(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(folder) + os.sep, "").replace(str(folder), "FOLDER")


ONE = np.zeros(1, np.float32)


# Which file


@pytest.mark.parametrize(
    ("names", "picked"),
    [
        ([SINGLE], SINGLE),
        ([INDEX, "model-00001-of-00002.safetensors"], INDEX),
        ([INDEX, SINGLE, "consolidated.safetensors"], SINGLE),
        (["rnn.safetensors", "config.json"], "rnn.safetensors"),
        (["model-00001-of-00001.safetensors"], "model-00001-of-00001.safetensors"),
        (["model-00001-of-00002.safetensors"], None),
        (["a.safetensors", "b.safetensors"], None),
        (["onnx/model.safetensors"], None),
        (["pytorch_model.bin"], None),
        ([], None),
    ],
)
def test_pick_weights(names, picked):
    assert pick_weights(names) == picked
    assert pick_weights(iter(names)) == picked


# The config


def test_config(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "name": "é"}', encoding="utf-8")
    assert read_config(tmp_path) == {"model_type": "gpt2", "name": "é"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,}', r"config\.json: not JSON \(.+ at line 1, column \d+\)"),
        (b"", r"config\.json: not JSON \(Expecting value at line 1, column 1\)"),
        (b'{"a": "\xe9"}', r"config\.json: not UTF-8 \(at byte 7\)"),
        (b"[]", r"config\.json: not a JSON object"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', r"config\.json: the key 'b' is there twice"),
        (b"[" * 200_000, r"config\.json: JSON nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"config\.json: Exceeds the limit .*"),
    ],
)
def test_broken_config(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    assert re.fullmatch(message, fails(read_config, tmp_path))


def test_no_config(tmp_path):
    assert fails(read_config, tmp_path) == "FOLDER has no config.json; it is empty"
    for name in ("model.safetensors", "params.json", "a.txt", "b.txt", "c.txt"):
        (tmp_path / name).touch()
    expected = "FOLDER has no config.json; it has a.txt, b.txt, c.txt, model.safetensors and 1 more"
    assert fails(read_config, tmp_path) == expected


def test_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").touch()
    expected = (
        "FOLDER has no config.json; it has adapter_config.json: an adapter is not a whole model"
    )
    assert fails(read_config, tmp_path) == expected


@pytest.mark.parametrize("read", [read_config, read_headers])
def test_no_folder(tmp_path, read):
    (tmp_path / "file").touch()
    for name in ("absent", "file"):
        assert fails(read, tmp_path / name) == "no such folder: FOLDER"


# One file


def test_headers_of_every_dtype(tmp_path):
    header = {
        "__metadata__": {"format": "pt"},
        "bf": tensor(0, 4, "BF16", (2,)),
        "scalar": tensor(4, 8, "F32", ()),
        "none": tensor(8, 8, "F16", (0, 3)),
        "ids": tensor(8, 24, "I64", (1, 2)),
    }
    (tmp_path / SINGLE).write_bytes(raw(header, bytes(24)))
    path = tmp_path / SINGLE
    assert read_headers(tmp_path) == {
        "bf": TensorInfo("bf", "BF16", (2,), path),
        "scalar": TensorInfo("scalar", "F32", (), path),
        "none": TensorInfo("none", "F16", (0, 3), path),
        "ids": TensorInfo("ids", "I64", (1, 2), path),
    }
    assert stored_dtypes.FLOATS == ("F32", "F16", "BF16")


def test_headers_of_an_odd_name(tmp_path):
    save_file({"a": ONE}, tmp_path / "rnn[1] ü.safetensors")
    assert read_headers(tmp_path)["a"].file.name == "rnn[1] ü.safetensors"


OK = {"a": tensor(0, 4), "b": tensor(4, 8)}
ENTRY = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
SAME = b"{" + ENTRY + b"," + ENTRY + b"}"
DEEP = b"{" + ENTRY[:-1] + b',"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}}"
BIG = b"{" + ENTRY[:-1] + b',"x":' + b"9" * 5000 + b"}}"
LENGTH = len(json.dumps(OK))
LIBRARY = ".+"  # the library's words, which change with its version

DAMAGED = {
    "empty": (b"", "truncated, 0 bytes"),
    "a few bytes": (b"abc", "truncated, 3 bytes"),
    "no header": (bytes(8), r"header: not JSON \(Expecting value at line 1, column 1\)"),
    "header cut": (raw(OK)[:20], f"a header of {LENGTH} bytes in a file of 20"),
    "header beyond the file": (
        raw(OK, bytes(8), 10**6),
        f"a header of 1000000 bytes in a file of {LENGTH + 16}",
    ),
    "header huge": (
        raw(OK, bytes(8), 2**64 - 1),
        f"a header of {2**64 - 1} bytes in a file of {LENGTH + 16}",
    ),
    "data cut": (raw(OK, bytes(5)), f"truncated, {LENGTH + 13} of {LENGTH + 16} bytes"),
    "data absent": (raw(OK), f"truncated, {LENGTH + 8} of {LENGTH + 16} bytes"),
    "bytes left over": (raw(OK, bytes(9)), LIBRARY),
    "overlap": (raw({"a": tensor(0, 4), "b": tensor(2, 6)}, bytes(6)), LIBRARY),
    "the same place": (raw({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4)), LIBRARY),
    "hole": (raw({"a": tensor(0, 4), "b": tensor(6, 10)}, bytes(10)), LIBRARY),
    "hole at the start": (raw({"a": tensor(4, 8)}, bytes(8)), LIBRARY),
    "backwards": (raw({"a": tensor(4, 0)}, bytes(4)), LIBRARY),
    "negative": (raw({"a": tensor(-4, 0)}, bytes(4)), LIBRARY),
    "size and shape differ": (raw({"a": tensor(0, 4, shape=(2,))}, bytes(4)), LIBRARY),
    "size and dtype differ": (raw({"a": tensor(0, 4, "F16")}, bytes(4)), LIBRARY),
    "shape overflows": (raw({"a": tensor(0, 0, shape=(2**62, 8))}), LIBRARY),
    "negative shape": (raw({"a": tensor(0, 4, shape=(-1,))}, bytes(4)), LIBRARY),
    "fractional shape": (raw({"a": tensor(0, 4, shape=(1.0,))}, bytes(4)), LIBRARY),
    "infinite offset": (raw({"a": tensor(0, float("inf"))}, bytes(4)), LIBRARY),
    "unknown dtype": (raw({"a": tensor(0, 4, "Q99")}, bytes(4)), LIBRARY),
    "no offsets": (raw({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), LIBRARY),
    "three offsets": (raw({"a": {**tensor(0, 4), "data_offsets": [0, 4, 8]}}, bytes(8)), LIBRARY),
    "no object": (raw([1]), LIBRARY),
    "a tensor that is no object": (raw({"a": 1}), LIBRARY),
    "metadata that is no text": (raw({"__metadata__": {"format": 1}, **OK}, bytes(8)), LIBRARY),
    "half a character": (raw(b"{" + ENTRY.replace(b"a", b"\\ud800", 1) + b"}", bytes(4)), LIBRARY),
    "not JSON": (raw(b'{"a":'), r"header: not JSON \(Expecting value at line 1, column 6\)"),
    "not UTF-8": (raw(b'{"\xff": 1}'), r"header: not UTF-8 \(at byte 2\)"),
    "a name twice": (raw(SAME, bytes(4)), "header: the key 'a' is there twice"),
    "deep": (raw(DEEP, bytes(4)), "header: JSON nested too deeply"),
    "a number without end": (raw(BIG, bytes(4)), "header: Exceeds the limit .*"),
}


@pytest.mark.parametrize(("content", "fault"), DAMAGED.values(), ids=DAMAGED)
def test_damaged(tmp_path, content, fault):
    (tmp_path / SINGLE).write_bytes(content)
    message = fails(read_headers, tmp_path)
    pattern = rf"model\.safetensors is not a safetensors file, or is damaged \({fault}\): download it again"
    assert re.fullmatch(pattern, message), message


def test_no_tensors(tmp_path):
    (tmp_path / SINGLE).write_bytes(raw({"__metadata__": {"format": "pt"}}))
    assert fails(read_headers, tmp_path) == "model.safetensors holds no tensors"


def test_git_lfs_pointer(tmp_path):
    (tmp_path / SINGLE).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n"
    )
    expected = "model.safetensors is a Git LFS pointer, not the weights: run git lfs pull"
    assert fails(read_headers, tmp_path) == expected


def test_link_to_nowhere(tmp_path):
    (tmp_path / SINGLE).symlink_to(tmp_path / "gone")
    expected = f"FOLDER has no weights (expected {EXPECTED}); it is empty"
    assert fails(read_headers, tmp_path) == expected


# Shards

A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def test_shards(tmp_path):
    write_shards(tmp_path, {B: {"b": ONE}, A: {"a": ONE, "c": ONE}})
    (tmp_path / "other.safetensors").write_bytes(b"not named, not read")
    tensors = read_headers(tmp_path)
    assert {name: info.file.name for name, info in tensors.items()} == {"a": A, "c": A, "b": B}


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": A, "b": B, "c": "gone.safetensors"}, f"{INDEX} names gone.safetensors, not in the folder: "
         "download the whole model"),
        ({"a": A}, None),
        ({"a": A, "b": A}, f"{INDEX} places the tensor 'b' in {A}, which does not hold it"),
        ({"a": A, "b": B, "c": B}, f"{INDEX} places the tensor 'c' in {B}, which does not hold it"),
        ({"a": B, "b": B}, f"{INDEX} places the tensor 'a' in {B}, which does not hold it"),
        ({"a": B, "b": A}, f"{INDEX} places the tensor 'a' in {B}, which does not hold it"),
        ({"a": A, "b": "../x.safetensors"}, f"{INDEX} names '../x.safetensors' for 'b', "
         "which is not the name of a safetensors file"),
        ({"a": A, "b": "/x.safetensors"}, f"{INDEX} names '/x.safetensors' for 'b', "
         "which is not the name of a safetensors file"),
        ({"a": A, "b": "x\\y.safetensors"}, f"{INDEX} names 'x\\\\y.safetensors' for 'b', "
         "which is not the name of a safetensors file"),
        ({"a": A, "b": "x\ny.safetensors"}, f"{INDEX} names 'x\\ny.safetensors' for 'b', "
         "which is not the name of a safetensors file"),
        ({"a": A, "b": "b.bin"}, f"{INDEX} names 'b.bin' for 'b', which is not the name of a safetensors file"),
        ({"a": A, "b": 2}, f"{INDEX} names 2 for 'b', which is not the name of a safetensors file"),
        ({}, f'{INDEX}: "weight_map" must be an object with the file name of each tensor'),
        ([A, B], f'{INDEX}: "weight_map" must be an object with the file name of each tensor'),
    ],
)  # fmt: skip
def test_index_and_shards_disagree(tmp_path, weight_map, message):
    write_shards(tmp_path, {A: {"a": ONE}, B: {"b": ONE}}, weight_map)
    if message is None:  # a shard that no tensor is placed in is not opened
        assert list(read_headers(tmp_path)) == ["a"]
    else:
        assert fails(read_headers, tmp_path) == message


def test_tensor_outside_the_index(tmp_path):
    write_shards(tmp_path, {A: {"a": ONE, "x": ONE, "y": ONE}, B: {"b": ONE}}, {"a": A, "b": B})
    assert fails(read_headers, tmp_path) == f"{A} holds 'x', 'y', not in {INDEX}"


def test_tensor_in_two_shards(tmp_path):
    write_shards(tmp_path, {A: {"a": ONE, "b": ONE}, B: {"b": ONE}})
    assert fails(read_headers, tmp_path) == f"{A} and {B} both hold the tensor 'b'"


def test_index_that_is_not_json(tmp_path):
    (tmp_path / INDEX).write_text("<html>")
    assert (
        fails(read_headers, tmp_path) == f"{INDEX}: not JSON (Expecting value at line 1, column 1)"
    )


def test_damaged_shard_is_named(tmp_path):
    write_shards(tmp_path, {A: {"a": ONE}, B: {"b": ONE}})
    content = (tmp_path / B).read_bytes()
    (tmp_path / B).write_bytes(content[:-1])
    size = len(content)
    fault = f"truncated, {size - 1} of {size} bytes"
    expected = f"{B} is not a safetensors file, or is damaged ({fault}): download it again"
    assert fails(read_headers, tmp_path) == expected


@pytest.mark.skipif(not SHARDED.is_dir(), reason="shared/oracles is not beside the project")
def test_shards_of_a_peer():
    tensors = read_headers(SHARDED)
    weight_map = json.loads((SHARDED / INDEX).read_text())["weight_map"]
    assert {name: info.file.name for name, info in tensors.items()} == weight_map
    assert {info.dtype for info in tensors.values()} == {"BF16"}
    config = read_config(SHARDED)
    assert tensors["model.embed_tokens.weight"].shape == (
        config["vocab_size"],
        config["hidden_size"],
    )


# No weights that minigen reads


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], f"FOLDER has no weights (expected {EXPECTED}); it is empty"),
        (["config.json", "tf_model.h5"], f"FOLDER has no weights (expected {EXPECTED}); "
         "it has config.json, tf_model.h5"),
        (["config.json", "pytorch_model.bin"], "FOLDER has its weights only as pickles (pytorch_model.bin), "
         "which can run code when loaded, so minigen reads only safetensors: look for a revision with them, "
         "such as refs/pr/N, or, if you trust the model, load it in transformers and convert it with "
         "save_pretrained()"),
        (["model-q4.gguf"], "FOLDER has only GGUF weights (model-q4.gguf): "
         "use the original model, in safetensors"),
        (["a.safetensors", "b.safetensors"], "FOLDER has a.safetensors, b.safetensors, but which to read is "
         f"unclear: expected {EXPECTED}"),
        ([A, "pytorch_model.bin"], f"FOLDER has {A}, but which to read is unclear: expected {EXPECTED}"),
    ],
)  # fmt: skip
def test_no_weights(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    assert fails(read_headers, tmp_path) == message


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.ckpt", "pytorch_model-00001-of-00002.bin"])
def test_every_kind_of_pickle_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    assert fails(read_headers, tmp_path).startswith(
        f"FOLDER has its weights only as pickles ({name}), which can run"
    )


def test_unreadable(tmp_path, monkeypatch):
    save_file({"a": ONE}, tmp_path / SINGLE)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert fails(read_headers, tmp_path) == "cannot read model.safetensors: Permission denied"

"""Files that were made to hurt: what every reader refuses in one short line, and how little it costs to find out."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.benchmark.compare import differences, read_results
from minigen.checkpoints.checkpoint import read_config, read_file, read_headers, read_metadata
from minigen.checkpoints.stop_ids import declared_stop_ids
from minigen.checkpoints.weight_files import INDEX, SINGLE
from minigen.errors import LONGEST, MinigenError, shown
from minigen.evaluation.fewshot import load_prompt_file
from minigen.evaluation.fewshot.metrics import regex
from minigen.families import HubConfig, find_family
from minigen.prompt_cache import read_prompt_info
from minigen.reading import (
    MOST_DEPTH,
    RepeatedKeyError,
    load_json,
    parse_json,
    parse_toml,
    read_bytes,
)
from minigen.reading.patterns import Matcher
from minigen.tokenizer import load_tokenizer
from minigen.training import checkpoint
from minigen.training.data import find_files, shards
from minigen.training.log import RunLog, read_log
from minigen.training.plot import plot
from minigen.training.toml_file import read_toml

MANY = 40_000  # keys: the square of it takes a minute
REPEATED = "{" + ",".join(f'"k{i}": 1' for i in range(MANY)) + f', "k{MANY - 1}": 2}}'

# What is wrong with any JSON file, whoever reads it.
HOSTILE: dict[str, bytes] = {
    "no UTF-8": b'{"a": "\xff"}',
    "cut short": b'{"a": ',
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "deep, and closed": b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
    "a key twice": REPEATED.encode(),
    "digits": b'{"a": ' + b"9" * 5000 + b"}",
    "half a character": b'{"a": "\\ud800"}',
    "a list": b"[1]",
    "a number": b"1",
    "many values": b"[" + b"[]," * 2_500_001 + b"0]",
}


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    )
    return path


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def refused(call: Callable[[], Any]) -> str:
    """The one short line that `call` ends with."""
    with pytest.raises(MinigenError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= LONGEST
    return message


# -- the reader itself --
@pytest.mark.parametrize(
    "content", [x for name, x in HOSTILE.items() if name not in ("a list", "a number")]
)
def test_no_json(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^.{1,150}$") as caught:
        parse_json(content)
    assert type(caught.value) in (ValueError, RepeatedKeyError)


def test_what_is_fine() -> None:
    assert parse_json(
        '{"a": [1, {"b": "\\ud83d\\ude00"}], "model_max_length": 1000000000000000019884624838656}'
    ) == {
        "a": [1, {"b": "\U0001f600"}],
        "model_max_length": 10**30 + 19884624838656,
    }
    assert parse_json('"\\\\ud800"') == "\\ud800"  # an escaped backslash, no half character
    assert load_json('"\\ud800"', halves=True) == "\ud800"
    assert parse_json("[NaN, Infinity]")[1] == float("inf")  # Python's writers write them
    deep = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert parse_json(deep)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(f"[{deep}]")


def test_a_repeated_key_is_found_in_one_walk() -> None:
    """By the comparisons of keys, not by a clock."""

    class Counted(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return str.__eq__(self, other)

    from minigen.reading import _each_key_once

    keys = [Counted(f"k{i}") for i in range(2000)]
    with pytest.raises(RepeatedKeyError, match="'k1999' is there twice"):
        _each_key_once([*((key, 1) for key in keys), (Counted("k1999"), 2)])
    assert Counted.compared < 10 * len(keys)


def test_bytes_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(ValueError, match="is larger than"):
        read_bytes(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(
            ValueError, match="is not a regular file"
        ):  # and nobody waits for a writer
            read_bytes(other)
    with pytest.raises(ValueError, match="is larger than 0 MiB"):
        read_bytes(Path("/dev/zero"), 1000, pipes=True)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".".join("a" * 20_000) + " = 1", r"a key of more than 16 parts \(at line 1"),
        ("x = 1\n[" + " . ".join("a" * 20_000) + "]", r"a key of more than 16 parts \(at line 2"),
        ("x = {y = 1, " + ".".join(['"b"'] * 200) + " = 1}", "a key of more than 16 parts"),
        ("x = " + "[" * 200 + "]" * 200, "nested too deeply"),
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("x = [" + "1," * 1_000_001 + "]", "more than 1,000,000 values"),
        ("x = " + "1" * 5000, "digits"),
    ],
)
def test_no_toml(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_toml(text)


def test_dots_are_fine_in_texts() -> None:
    text = (
        f"a.b.c = '{'.'.join('x' * 99)}'\nd = '''\n{'.' * 99}\nSee a.b.c.\n'''\n[e.f]\n'g.h' = 1.5"
    )
    assert parse_toml(text)["e"]["f"]["g.h"] == 1.5


# -- messages --
def test_messages_stay_short() -> None:
    assert shown("x" * 10**6) == "'" + "x" * 76 + "..."
    assert shown(10**5000) == "a int too large to show"
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a list too large to show"
    while deep:  # or the interpreter frees it by recursion
        deep = deep[0]
    message = str(MinigenError(f"a: {'x' * 10**7!r}: do this"))
    assert len(message) < LONGEST
    assert message.startswith("a: 'xxx")
    assert message.endswith("xxx': do this")
    assert str(MinigenError("as it is")) == "as it is"


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": ["A" * 10**6]},
        {"model_type": "A" * 10**6},
        {"model_type": "llama", "hidden_size": "A" * 10**6},
        {"model_type": "llama", "hidden_size": 10**4000},
        {"model_type": "llama", "hidden_size": float("nan")},
        {"model_type": "llama", "hidden_size": float("inf")},
        {
            "model_type": "gpt2",
            "n_embd": 8,
            "n_head": 2,
            "n_layer": 1,
            "activation_function": "A" * 10**6,
        },
    ],
)
def test_values_are_quoted_in_part(values: dict[str, Any]) -> None:
    assert len(refused(lambda: find_family(values).build(HubConfig(values)))) < 700


# -- model folders --
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_configs(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "config.json", content)
    assert "config.json: " in refused(lambda: read_config(tmp_path))
    write(tmp_path / INDEX, content)
    assert f"{INDEX}: " in refused(lambda: read_headers(tmp_path))
    write(tmp_path / "generation_config.json", content)
    assert "generation_config.json: " in refused(lambda: declared_stop_ids(tmp_path, tmp_path, {}))


def test_names_in_an_index(tmp_path: Path) -> None:
    write(tmp_path / INDEX, json.dumps({"weight_map": {"a": "x" * 10**6 + ".safetensors"}}))
    assert len(refused(lambda: read_headers(tmp_path))) < 600


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "entry",
    [
        ["F32", [2], [0, 8]],
        {**ENTRY, "dtype": {"F32": None}},
        {**ENTRY, "shape": {"0": 2}},
        {**ENTRY, "shape": [2.0]},
        {**ENTRY, "shape": [True, 2]},
        {**ENTRY, "data_offsets": [0, 8, 8]},
        {**ENTRY, "data_offsets": None},
        "F32",
        None,
    ],
    ids=repr,
)
def test_entries_of_a_header(tmp_path: Path, entry: Any) -> None:
    write(tmp_path / SINGLE, safetensors({"a": entry}, bytes(8)))
    assert "is not a safetensors file, or is damaged (header: 'a' " in refused(
        lambda: read_headers(tmp_path)
    )


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_headers(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / SINGLE, safetensors(content))
    refused(lambda: read_headers(tmp_path))


def test_a_header_of_95_megabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / SINGLE).open("wb") as file:
        file.write((95_000_000).to_bytes(8, "little"))
        file.truncate(95_000_008)
    tracemalloc.start()
    assert "has a header of 95000000 bytes" in refused(lambda: read_headers(tmp_path))
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_metadata_that_is_null(tmp_path: Path) -> None:
    path = write(tmp_path / SINGLE, safetensors({"__metadata__": None, "a": ENTRY}, bytes(8)))
    assert list(read_file(path)) == ["a"]
    assert read_metadata(path) == {}


# -- patterns --
BOMB = r"(([a-z0-9_.])+)+!"


def test_a_pattern_has_its_time() -> None:
    with pytest.raises(TimeoutError, match=r"takes more than 0\.1 seconds"):
        Matcher(0.1).stands_in("(a|aa)+$", "a" * 80 + "b")
    matcher = Matcher(0.0)
    with pytest.raises(TimeoutError):  # the time is that of all patterns together
        matcher.begins("a", "a")
    assert Matcher().begins("a+b", "aab!")
    assert not Matcher().begins("b", "ab")
    for broken in ("(", "a{99999999999999999999}", "x" * 20_000):
        with pytest.raises(ValueError, match=r"."):
            Matcher().begins(broken, "a")


def test_a_pattern_of_an_answer() -> None:
    assert regex("a" * 40 + "!", r"(a+)+$") == 0.0
    assert regex("it is 42.", r"\b42\b") == 1.0
    assert "not a regular expression" in refused(lambda: regex("a", "a{99999999999999999999}"))


# -- tokenizers --
TOKENIZER: dict[str, Any] = {
    "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
    "decoder": None, "truncation": None, "padding": None,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
}  # fmt: skip


def doubling(times: int) -> list[dict[str, Any]]:
    return [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * times


def tokenizer(folder: Path, **changes: Any) -> Any:
    write(folder / "tokenizer.json", json.dumps({**TOKENIZER, **changes}))
    return load_tokenizer(folder)


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
)
def test_tokenizer_files(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path / "tokenizer.json", json.dumps(TOKENIZER))
    write(tmp_path / name, content)
    assert f"{name}: " in refused(lambda: load_tokenizer(tmp_path))


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_vocabularies(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "vocab.json", content)
    assert "vocab.json: " in refused(lambda: load_tokenizer(tmp_path))
    write(tmp_path / "merges.txt", "a b\n")
    assert "vocab.json: " in refused(lambda: load_tokenizer(tmp_path))


@pytest.mark.parametrize("part", ["normalizer", "decoder"])
def test_texts_do_not_grow_without_bound(tmp_path: Path, part: str) -> None:
    name = f"{part}s"
    inner = {"type": "Sequence", name: doubling(20)}
    anywhere = {"type": "Replace", "pattern": {"Regex": ""}, "content": "xxxxxxx"}
    for steps in (doubling(40), [inner, inner], [anywhere] * 4):
        changes = {part: {"type": "Sequence", name: steps}}
        message = refused(lambda changes=changes: tokenizer(tmp_path, **changes))  # type: ignore[misc]
        assert f"tokenizer.json: its {part} can make more than 1024 characters from one" in message
    kept = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}] * 30
    assert (
        tokenizer(tmp_path, **{part: {"type": "Sequence", name: [*kept, *doubling(3)]}}) is not None
    )


def test_a_panic_stays_off_the_screen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    split = {
        "type": "Split",
        "pattern": {"Regex": "(a|a|aa)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    found = tokenizer(tmp_path, pre_tokenizer=split)
    assert found.encode("ab") == [2]
    message = refused(lambda: found.encode("a" * 60 + "b"))
    assert message.startswith("the tokenizers library cannot encode this text: ")
    assert found.encode("ab") == [2]  # and it goes on
    model = {**TOKENIZER["model"], "continuing_subword_prefix": "abcdef"}
    assert "cannot load it" in refused(lambda: tokenizer(tmp_path, model=model))
    os.write(2, b"seen\n")
    assert capfd.readouterr() == ("", "seen\n")


def test_what_others_write_meanwhile_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    from minigen.tokenizer.limits import without_panics

    with without_panics():
        os.write(2, b"from another thread\n")
    assert capfd.readouterr().err == "from another thread\n"


@pytest.mark.parametrize("token_id", ["1" * 5000, "2147483648", "-1", "1.5"])
def test_ids_of_added_tokens(tmp_path: Path, token_id: str) -> None:
    write(tmp_path / "tokenizer.json", json.dumps(TOKENIZER))
    write(
        tmp_path / "tokenizer_config.json",
        json.dumps({"added_tokens_decoder": {token_id: {"content": "<x>"}}}),
    )
    assert "an added token needs" in refused(lambda: load_tokenizer(tmp_path))


@pytest.mark.parametrize("start", [float("inf"), "1", 1.5, True, None])
def test_the_id_of_a_start_token(tmp_path: Path, start: Any) -> None:
    processor = {"type": "BertProcessing", "sep": ["b", 1], "cls": ["a", start]}
    assert "the post-processor BertProcessing is not complete" in refused(
        lambda: tokenizer(tmp_path, post_processor=processor)
    )


# -- prompt files --
def prompts(folder: Path, text: str) -> Any:
    return load_prompt_file(write(folder / "x.prompt.toml", text))


def test_many_seeds(tmp_path: Path) -> None:
    item = '[[items]]\ninput = "a"\noutput = "b"\n[shots]\nseeds = ['
    assert (
        len(
            prompts(tmp_path, f"format = 1\n{item}{','.join(map(str, range(MANY)))}]\n").shots.seeds
        )
        == MANY
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format = " + "1" * 5000, "digits"),
        ("format = 1\n" + ".".join("a" * 20_000) + " = 1\n", "prompt.toml:2: TOML: a key of more than 16 parts"),
        ('format = 1\n[[items]]\ninput="a"\n[generate.logit_bias]\n' + "1" * 5000 + " = 1.0\n", "generate.logit_bias"),
        ('format = 1\nitems_file = "/dev/zero"\n', "is not a regular file"),
        ('format = 1\nitems_file = "pipe"\n', "is not a regular file"),
        ('format = 1\nitems_file = "a\\u0000b"\n', "null"),
        ('format = 1\nitems_file = "deep.jsonl"\n', "deep.jsonl:1: JSON: 'JSON nested too deeply'"),
        ('format = 1\nitems_file = "twice.jsonl"\n', f"twice.jsonl:1: k{MANY - 1}: is given twice in one object"),
        ('format = 1\n[score]\nmetric="regex"\n[[items]]\ninput="a"\noutput="a{99999999999999999999}"\n',
         "is not a regular expression"),
    ],
)  # fmt: skip
def test_prompt_files(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "deep.jsonl", b"[" * 200_000)
    write(tmp_path / "twice.jsonl", REPEATED)
    os.mkfifo(tmp_path / "pipe")
    assert message in refused(lambda: prompts(tmp_path, text))


def test_data_that_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minigen.evaluation.fewshot.data.MOST_BYTES", 2**20)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write(bytes(2**24))
    write(tmp_path / "d.jsonl.gz", packed.getvalue())
    tracemalloc.start()
    assert "expands to more than 1 MiB" in refused(
        lambda: prompts(tmp_path, 'format = 1\nitems_file = "d.jsonl.gz"\n')
    )
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


# -- runs --
POSITION = {
    "step": 5, "smoothed": 1.0, "weight": 0.5, "best_step": 5, "best_loss": 2.0, "config": {}, "data": "k",
    "tokenizer": "t", "teacher": "", "hashes": {},
}  # fmt: skip


def position(run: Path, content: bytes | str) -> Path:
    write(run / "step-000005" / "training" / "position.json", content)
    return run


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_positions(tmp_path: Path, content: bytes) -> None:
    assert "is damaged" in refused(lambda: checkpoint.newest(position(tmp_path, content)))


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "5"}, {"step": 1.5}, {"step": True}, {"step": -1}, {"step": 10**400}, {"best_step": "x"},
        {"smoothed": 10**400}, {"config": [1]}, {"data": 5}, {"teacher": None}, {"hashes": [1]}, {"hashes": {"a": 1}},
        {"hashes": {"/dev/zero": "x"}}, {"hashes": {"../../x.safetensors": "x"}}, {"hashes": {"a/b.safetensors": "x"}},
    ],
    ids=repr,
)  # fmt: skip
def test_values_of_a_position(tmp_path: Path, changes: dict[str, Any]) -> None:
    content = json.dumps({**POSITION, **changes})
    assert "is damaged" in refused(lambda: checkpoint.newest(position(tmp_path, content)))


def test_a_position_as_it_is_written(tmp_path: Path) -> None:
    write(tmp_path / "latest", b"\xff\xfe")  # of no use, but no more than that
    found = checkpoint.newest(
        position(tmp_path, json.dumps({**POSITION, "smoothed": float("nan"), "best_loss": None}))
    )
    assert found is not None
    assert found[1].step == 5
    write(found[0] / checkpoint.STATE, safetensors({"a": ["F32", [0], [0, 0]]}))
    assert "is not a safetensors file" in refused(lambda: checkpoint.read_state(found[0]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[schedule]\nsteps = " + "1" * 5000, "digits"),
        ("[optimizer]\nbetas = [0.5, 1" + "0" * 400 + "]", "betas is "),
        ("[optimizer]\nbetas = [0.5, nan]", "betas is "),
        ("[optimizer]\neps = inf", "eps is inf"),
        (f"[{'x' * 10**5}]", "unknown 'xxx"),
        (".".join("a" * 20_000) + " = 1", "a key of more than 16 parts"),
        ("x = " + "[" * 100_000, "nested too deeply"),
    ],
)
def test_settings(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(lambda: read_toml(write(tmp_path / "train.toml", text)))


def test_names_of_sources(tmp_path: Path) -> None:
    toml = write(tmp_path / "train.toml", '[data]\ndata = ["~no-such-user/x", "a\\u0000b"]\n')
    sources = read_toml(toml)["data"]
    for source in sources:
        refused(lambda source=source: find_files([source]))  # type: ignore[misc]


def test_logs(tmp_path: Path) -> None:
    rows = ['{"kind": "step", "step": 1, "loss": 2.0}', "[" * 100_000, '{"step": ' + "1" * 5000 + "}", '{"step": "x"}',
            "[1]",
            '{"kind": "step", "step": 2, "loss": "much"}', '{"kind": "step", "step": 3, "loss": 1e999}']  # fmt: skip
    write(tmp_path / "log.jsonl", "".join(f"{row}\n" for row in rows))
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3]
    plot(read_log(tmp_path), tmp_path / "loss.png", "a run")
    with RunLog(tmp_path, 2):
        pass
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2]


ABOUT = {
    "format": 1, "key": "k", "dtype": "<u2", "tokens": 20, "documents": 2, "largest_id": 255, "end_id": None,
    "masked": False, "files": ["x"],
}  # fmt: skip


def shard(folder: Path, about: bytes | str = json.dumps(ABOUT), index: bytes | None = None) -> Any:
    write(folder / "about.json", about)
    write(folder / "tokens.bin", bytes(40))
    np.save(
        folder / "documents.npy", np.array([(0, 10, 20, 0, 1), (10, 10, 20, 0, 2)], shards.DOCUMENT)
    )
    if index is not None:
        write(folder / "documents.npy", index)
    return shards.open_shard(folder, "k")


def test_shards(tmp_path: Path) -> None:
    assert shard(tmp_path) is not None
    for content in HOSTILE.values():
        assert shard(tmp_path, content) is None
    for changes in (
        {"dtype": "O", "tokens": 5},
        {"dtype": "<f2"},
        {"tokens": 10**400},
        {"tokens": "x"},
    ):
        assert shard(tmp_path, json.dumps({**ABOUT, **changes})) is None
    packed, lies = io.BytesIO(), io.BytesIO()
    np.savez(packed, np.zeros(3))
    np.save(lies, np.array([(0, 10, 20, 0, 1)], shards.DOCUMENT))
    claims = lies.getvalue().replace(b"(1,), }" + b" " * 10, b"(9999999999,), } ")
    assert len(claims) == len(lies.getvalue())
    assert b"9999999999" in claims
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    for index in (
        packed.getvalue(),
        b"PK\x03\x04" + b"x" * 50,
        claims,
        pickled.getvalue(),
        b"",
        b"\x93NUMPY\x01\x00",
    ):
        assert shard(tmp_path, index=index) is None


# -- what else is read --
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_prompt_caches(tmp_path: Path, content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    path = write(
        tmp_path / "p.cache",
        safetensors({"__metadata__": {"minigen_prompt": text[: 10**6]}, "a": ENTRY}, bytes(8)),
    )
    assert "is not a prompt cache" in refused(lambda: read_prompt_info(path))


@pytest.mark.parametrize("found", ["Infinity", "[1]", '"x"', "1.5", "null"])
def test_the_format_of_a_prompt_cache(tmp_path: Path, found: str) -> None:
    about = f'{{"format": {found}}}'
    path = write(
        tmp_path / "p.cache",
        safetensors({"__metadata__": {"minigen_prompt": about}, "a": ENTRY}, bytes(8)),
    )
    assert "is not a prompt cache" in refused(lambda: read_prompt_info(path))


RESULT = {"model": "m", "backend": "b", "dtype": "d", "test": "t", "samples_tps": [1.0]}


@pytest.mark.parametrize(
    "content",
    [
        *HOSTILE.values(),
        json.dumps({"machine": {"versions": [1]}, "results": [RESULT]}),
        json.dumps({"machine": {}, "results": ["x"]}),
        json.dumps({"machine": {}, "results": [{**RESULT, "samples_tps": [10**400]}]}),
        json.dumps({"machine": {}, "results": [{**RESULT, "samples_tps": [float("inf")]}]}),
        json.dumps({"machine": {}, "results": [{**RESULT, "samples_tps": [float("nan")]}]}),
    ],
)
def test_results(tmp_path: Path, content: bytes | str) -> None:
    refused(lambda: read_results(write(tmp_path / "r.json", content)))
    machine, _ = read_results(
        write(tmp_path / "r.json", json.dumps({"machine": {"a": 1}, "results": [RESULT]}))
    )
    assert differences(machine, machine) == []


# -- anything at all --
def test_damage_at_any_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes of good files replaced, cut and doubled: each is read, or refused in one line."""
    caplog.set_level(logging.CRITICAL)
    rng = random.Random(5)
    config = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 2, "vocab_size": 9, "rope_scaling": {"type": "linear", "factor": 2.0}}  # fmt: skip
    files: dict[str, tuple[bytes, Callable[[], Any]]] = {
        "config.json": (
            json.dumps(config).encode(),
            lambda: find_family(v := read_config(tmp_path)).build(HubConfig(v)),
        ),
        SINGLE: (safetensors({"a": ENTRY}, bytes(8)), lambda: read_headers(tmp_path)),
        "tokenizer.json": (json.dumps(TOKENIZER).encode(), lambda: load_tokenizer(tmp_path)),
    }
    for name, (good, _) in files.items():
        write(tmp_path / name, good)
    pieces = (
        b"null",
        b"-1",
        b"1e999",
        b"[]",
        b"{}",
        b'"x"',
        b"true",
        b"NaN",
        b"9" * 40,
        b"\xff",
        b"\x00",
        b'"\\ud800"',
    )
    for name, (good, read) in files.items():
        for _ in range(150):
            begin = rng.randrange(len(good))
            end = min(len(good), begin + rng.choice((0, 1, 3, 20)))
            write(tmp_path / name, good[:begin] + rng.choice(pieces) + good[end:])
            with contextlib.suppress(MinigenError):
                read()
        write(tmp_path / name, good)

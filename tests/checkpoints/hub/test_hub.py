"""Where a model comes from: folders, what ships, and a hub on this machine that counts what it is asked."""

import errno
import fcntl
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hub_server import refused

from minigen.checkpoints.hub import resolve
from minigen.checkpoints.weight_files import INDEX, SINGLE
from minigen.errors import CheckpointError

ROOT = Path(__file__).parents[3]

WEIGHTS = b"the weights " * 100
FILES = {
    "config.json": b"{}",
    "generation_config.json": b"{  }",
    "tokenizer.json": b'{"a": 1}',
    "tokenizer_config.json": b"{} ",
    "added_tokens.json": b'{"a": 2}',
    "chat_template.jinja": b"{{ messages }}",
    SINGLE: WEIGHTS,
}
UNWANTED = {
    ".gitattributes": b"",
    "README.md": b"# A model",
    "tokenizer.model": b"sentencepiece",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"a second copy",
    "model-q4.gguf": b"gguf",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "original/model.safetensors": b"a third copy",
}
A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SHARDS = {
    "config.json": b"{}",
    INDEX: json.dumps({"weight_map": {"x": A, "y": B, "z": A}}).encode(),
    A: b"shard a",
    B: b"shard b",
}


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# Folders


def test_folder(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(tmp_path) == resolve(str(tmp_path)) == tmp_path
    assert resolve("org/name") == resolve(Path("org/name")) == Path("org/name")  # wins over the hub
    assert resolve("~/org") == resolve(Path("~/org")) == tmp_path / "org"
    assert resolve("org") == resolve("org/") == Path("org")


@pytest.mark.parametrize(
    "source",
    [
        "./gone",
        "../gone",
        "/gone",
        "~/gone",
        "a\\b",
        "a/b/c",
        "a/b/",
        "name/",
        "a\\b@c",
        Path("org/name"),
    ],
)
def test_no_such_folder(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    assert refused(source) == f"no such folder: {source}"


@pytest.mark.parametrize("source", ["", "./a\nb", "./\0"])
def test_unprintable_source(source):
    assert refused(source) == f"no such folder: {source!r}"


def test_file_instead_of_its_folder(tmp_path):
    path = tmp_path / SINGLE
    path.touch()
    assert (
        refused(path) == refused(str(path)) == f"{path} is a file: give the folder that contains it"
    )


@pytest.mark.parametrize("source", ["https://huggingface.co/org/name", "hf://org/name"])
def test_address(source):
    assert (
        refused(source) == f"{source} is an address: give the id alone, written org/name[@revision]"
    )


NO_NAMES = [
    "org/na me",
    "org/..",
    "org/a--b",
    "org/a..b",
    "C:/model",
    "örg/name",
    "org/.git",
    "-x/y",
    "org/name.",
]
NO_NAMES += [
    "org-/x",
    "gpt2 ",
    "a--b",
    "a..b",
    "C:",
    "gpté",
    "-x",
    "x-",
    "x.git",
    "x" * 97,
    "org/" + "x" * 93,
]


@pytest.mark.parametrize("source", NO_NAMES)
def test_neither_folder_nor_id(source, sockets):
    assert refused(source) == f"{source} is neither a folder nor a hub id (org/name[@revision])"
    assert not sockets


def test_a_long_name_is_cut(sockets):
    assert (
        refused("x" * 5000)
        == f"{'x' * 256!r} is neither a folder nor a hub id (org/name[@revision])"
    )


@pytest.mark.parametrize("revision", ["", "../../x", "a b", "-x", "/x", "a..b"])
def test_impossible_revision(revision, sockets):
    expected = f"org/name@{revision}: {revision!r} is not a revision (a branch, a tag or a commit)"
    assert refused(f"org/name@{revision}") == expected
    assert not sockets


# The model that ships


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "importlib.resources.files", lambda name: {"minigen.weights": tmp_path}[name]
    )
    return tmp_path


def ship(package, name, files=("config.json", SINGLE)):
    (package / name).mkdir()
    for file in files:
        (package / name / file).touch()


def test_nothing_ships(package, monkeypatch):
    expected = "no model ships with this version of minigen: give a folder or a hub id (org/name)"
    assert refused(None) == expected
    ship(package, "recipe", files=["train.toml"])
    ship(package, "half", files=["config.json"])
    (package / "__init__.py").touch()
    assert refused(None) == expected

    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.resources.files", absent)
    assert refused(None) == expected


def test_shipped(package):
    ship(package, "b-model")
    assert resolve(None) == package / "b-model"
    ship(package, "a-model", files=["config.json", "rnn.safetensors"])
    assert resolve(None) == package / "a-model"
    (package / "default").write_text("b-model\n")
    assert resolve(None) == resolve(None, offline=True) == package / "b-model"


# What is fetched


def test_exactly_what_is_needed(hub, cache):
    commit = hub.add("org/name", FILES | UNWANTED)
    folder = resolve("org/name")
    assert folder == cache / "models--org--name" / "snapshots" / commit
    assert contents(folder) == FILES
    assert hub.fetched() == sorted(FILES)
    assert hub.asked["list org/name@main"] == 1
    assert hub.commits == {commit}


def test_second_time_fetches_nothing(hub):
    hub.add("org/name", FILES)
    first = resolve("org/name")
    hub.asked.clear()
    assert resolve("org/name") == first
    assert hub.asked == {"list org/name@main": 1}


def test_shards(hub):
    hub.add(
        "org/name", SHARDS | UNWANTED | {"model-00003-of-00003.safetensors": b"of something else"}
    )
    folder = resolve("org/name")
    assert contents(folder) == SHARDS | {"tokenizer.model": b"sentencepiece"}


def test_only_safetensors_of_another_name(hub):
    files = {
        "config.json": b"{}",
        "rnn [1] *é.safetensors": WEIGHTS,
        "vocab.json": b"{}",
        "a.tiktoken": b"",
    }
    hub.add("org/name", files | {"optimizer.bin": b""})
    assert contents(resolve("org/name")) == files


def test_revisions(hub):
    main = hub.add("org/name", FILES)
    other = hub.add("org/name", {**FILES, SINGLE: b"other"}, "refs/pr/1")
    assert resolve("org/name").name == main
    assert (resolve("org/name@refs/pr/1") / SINGLE).read_bytes() == b"other"
    assert resolve(f"org/name@{other}").name == other
    assert hub.asked["list org/name@refs/pr/1"] == 1
    hub.stop()
    assert resolve("org/name@refs/pr/1", offline=True).name == other


def test_moved_branch(hub):
    old = hub.add("org/name", FILES)
    assert resolve("org/name").name == old
    new = hub.add("org/name", {**FILES, SINGLE: b"new"})
    hub.asked.clear()
    assert resolve("org/name").name == resolve("org/name", offline=True).name == new
    assert hub.fetched() == [SINGLE]


def test_token_is_sent(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    hub.add("org/name", FILES)
    resolve("org/name")
    assert hub.tokens == {"Bearer hf_test"}


# What is refused before a download

PICKLES = (
    "{} has its weights only as pickles (pytorch_model.bin, training_args.bin), which can run code when "
    "loaded, so minigen reads only safetensors: look for a revision with them, such as refs/pr/N, or, if "
    "you trust the model, load it in transformers and convert it with save_pretrained()"
)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["config.json", "pytorch_model.bin", "training_args.bin", "onnx/model.safetensors"],
            PICKLES,
        ),
        (
            ["config.json", "a.gguf"],
            "{} has only GGUF weights (a.gguf): use the original model, in safetensors",
        ),
        ([SINGLE, "x/y"], "{} has no config.json; it has model.safetensors"),
    ],
)
def test_refused_before_any_download(hub, files, message):
    hub.add("org/name", dict.fromkeys(files, b""))
    assert refused("org/name") == message.format("org/name")
    hub.add("org/name", dict.fromkeys(files, b""), "v2")
    assert refused("org/name@v2") == message.format("org/name@v2")
    assert hub.fetched() == []


def test_index_that_names_what_is_not_there(hub):
    files = dict(SHARDS)
    del files[B]
    hub.add("org/name", files)
    expected = f"org/name is incomplete on the hub: {INDEX} names {B}, not there"
    assert refused("org/name") == expected
    assert hub.fetched() == ["config.json", INDEX]


def test_index_that_leads_out_of_the_folder(hub):
    hub.add("org/name", {**SHARDS, INDEX: b'{"weight_map": {"x": "../../x.safetensors"}}'})
    message = refused("org/name", CheckpointError)
    assert message.endswith(
        f"{INDEX} names '../../x.safetensors' for 'x', which is not the name of a safetensors file"
    )


@pytest.mark.parametrize("name", ["..\\..\\x.tiktoken", "C:x.tiktoken", "a\0b.tiktoken"])
def test_names_that_no_file_can_have(hub, cache, name):
    hub.add("org/name", {**FILES, name: b"x"})
    assert refused("org/name").startswith(
        f"cannot download {name if name.isprintable() else repr(name)} of org/name ("
    )
    assert not list(cache.parent.rglob("*.tiktoken"))


# The hub says no


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            (404, "RepoNotFound"),
            "{url} has no model org/name, or it is private: check the name, or {login}",
        ),
        (
            (401, "RepoNotFound"),
            "{url} has no model org/name, or it is private: check the name, or {login}",
        ),
        ((401, "GatedRepo"), "org/name is gated: accept its terms at {url}/org/name, then {login}"),
        ((403, "GatedRepo"), "org/name is gated: accept its terms at {url}/org/name, then {login}"),
        ((403, ""), "{url} refuses access to org/name (403): check the token, {login}"),
        ((404, ""), "{url} answers 404 for org/name: check the name and HF_ENDPOINT"),
        ((400, ""), "{url} answers 400 for org/name: check the name and HF_ENDPOINT"),
    ],
)
@pytest.mark.parametrize("where", ["fault", "file_fault"])
def test_refusals(hub, fault, message, where):
    hub.add("org/name", FILES)
    setattr(hub.repos["org/name"], where, fault)
    login = "set HF_TOKEN or run 'hf auth login'"
    assert refused("org/name") == message.format(url=hub.url, login=login)


def test_no_such_repo_or_revision(hub):
    hub.add("org/name", FILES)
    assert refused("org/other").startswith(f"{hub.url} has no model org/other, or it is private:")
    expected = f"org/name has no revision 'v9': see {hub.url}/org/name/tree/main"
    assert refused("org/name@v9") == expected


def test_listed_but_not_there(hub, monkeypatch):
    hub.add("org/name", FILES)
    hub.repos["org/name"].file_fault = (404, "EntryNotFound")
    expected = (
        f"org/name lists config.json, but {hub.url} has no such file: choose another revision"
    )
    assert refused("org/name") == expected


# The hub cannot be reached

NOT_CACHED = "and org/name is not in the cache {cache}: check the connection and try again"


def test_no_connection(hub, cache):
    hub.stop()
    message = refused("org/name")
    expected = rf"cannot reach {hub.url} \(\w*Connect\w*: .+\), {re.escape(NOT_CACHED.format(cache=cache))}"
    assert re.fullmatch(expected, message), message


def test_timeout(hub, cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    hub.add("org/name", FILES)
    hub.delay = 0.4
    message = refused("org/name")
    expected = (
        rf"cannot reach {hub.url} \(ReadTimeout: .+\), {re.escape(NOT_CACHED.format(cache=cache))}"
    )
    assert re.fullmatch(expected, message), message


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy(hub, cache, status):
    hub.add("org/name", FILES)
    hub.repos["org/name"].fault = (status, "")
    expected = f"cannot reach {hub.url} (it answers {status}), {NOT_CACHED.format(cache=cache)}"
    assert refused("org/name") == expected


def test_cache_instead_of_the_hub_is_said(hub, caplog):
    hub.add("org/name", FILES)
    folder = resolve("org/name")
    hub.repos["org/name"].fault = (503, "")
    with caplog.at_level(logging.WARNING, "minigen"):
        assert resolve("org/name") == folder
    copy = f"the cached copy of org/name, commit {folder.name[:8]}"
    expected = f"cannot reach {hub.url} (it answers 503): using {copy}"
    assert [record.getMessage() for record in caplog.records if record.name == "minigen"] == [
        expected
    ]


@pytest.mark.parametrize(
    "fault", [(404, "RepoNotFound"), (403, "GatedRepo"), (404, "RevisionNotFound")]
)
def test_a_refusal_is_not_hidden_by_the_cache(hub, fault):
    hub.add("org/name", FILES)
    resolve("org/name")
    hub.repos["org/name"].fault = fault
    refused("org/name")


def test_broken_off_and_again(hub, cache, no_pause):
    hub.add("org/name", SHARDS)
    hub.cut[B] = [3] * 99
    message = refused("org/name")
    expected = (
        rf"the download of {B} of org/name was interrupted \(.+\), and org/name is not in the cache "
        rf"{cache}: check the connection and try again"
    )
    assert re.fullmatch(expected, message), message
    del hub.cut[B]
    hub.asked.clear()
    assert contents(resolve("org/name")) == SHARDS
    assert hub.fetched() == [B]


def test_broken_off_update_leaves_the_old_model(hub, no_pause, caplog):
    old = hub.add("org/name", FILES)
    resolve("org/name")
    hub.add("org/name", {**FILES, SINGLE: b"new weights"})
    hub.cut[SINGLE] = [0] * 99
    assert resolve("org/name").name == old
    assert resolve("org/name", offline=True).name == old
    said = [record.getMessage() for record in caplog.records if record.name == "minigen"]
    assert len(said) == 1
    assert re.fullmatch(
        rf"the download of {SINGLE} of org/name was interrupted .+ commit {old[:8]}", said[0]
    )


# The disk says no


def test_disk_full(hub, cache, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    hub.add("org/name", FILES)
    expected = f"no space left for org/name in {cache}: free some, or set HF_HOME to another disk"
    assert refused("org/name") == expected


def test_cache_that_cannot_be_written(hub, cache):
    cache.write_text("a file where the folder should be")
    hub.add("org/name", FILES)
    message = refused("org/name")
    reason = "(Not a directory|File exists)"
    expected = rf"cannot write org/name to {cache} \({reason}\): set HF_HOME to a folder of yours"
    assert re.fullmatch(expected, message), message


def test_ref_that_cannot_be_written(hub, cache, caplog):
    folder = cache / "models--org--name"
    folder.mkdir(parents=True)
    (folder / "refs").touch()
    commit = hub.add("org/name", FILES)
    assert resolve("org/name").name == commit
    said = [record.getMessage() for record in caplog.records if record.name == "minigen"]
    start = f"cannot record {folder}/refs/main in the cache"
    assert re.fullmatch(rf"{start} \(.+\): offline runs will not find it", said[0])


def test_anything_else_is_one_line_too(hub, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    hub.add("org/name", FILES)
    assert (
        refused("org/name") == "cannot download config.json of org/name (RuntimeError: two lines)"
    )


def test_interrupt_passes(hub, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.file_download.http_get", interrupt)
    hub.add("org/name", FILES)
    with pytest.raises(KeyboardInterrupt):
        resolve("org/name")


# Offline

ONCE = "run once online (and without HF_HUB_OFFLINE) to download it"


@pytest.mark.parametrize("by_setting", [True, False])
def test_offline_opens_no_socket(hub, monkeypatch, request, by_setting):
    from huggingface_hub import constants

    commit = hub.add("org/name", SHARDS)
    folder = resolve("org/name")
    hub.asked.clear()
    sockets = request.getfixturevalue("sockets")
    if by_setting:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = not by_setting
    assert (
        resolve("org/name", offline=offline)
        == resolve(f"org/name@{commit}", offline=offline)
        == folder
    )
    message = refused("org/other", offline=offline)
    assert message == f"org/other is not in the cache {constants.HF_HUB_CACHE}: {ONCE}"
    assert refused("org/name@v1", offline=offline).startswith("org/name@v1 is not in the cache ")
    assert not sockets
    assert not hub.asked


def test_online_would_be_noticed(hub, sockets):
    hub.add("org/name", FILES)
    refused("org/name")
    assert sockets


@pytest.mark.parametrize("lost", [[B], ["config.json"], [INDEX, A, B], [A, B]])
def test_incomplete_in_the_cache(hub, cache, lost):
    hub.add("org/name", SHARDS)
    folder = resolve("org/name")
    for name in lost:
        (folder / name).resolve().unlink()  # leaves the link
    names = ", ".join(lost) if INDEX not in lost else "the weights"
    expected = f"org/name is not complete in the cache {cache} (it lacks {names}): {ONCE}"
    assert refused("org/name", offline=True) == expected
    hub.repos["org/name"].fault = (500, "")
    assert (
        f"and org/name is not complete in the cache {cache} (it lacks {names}): check"
        in refused("org/name")
    )


# Whole processes: the environment, the terminal, start-up


def run(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result


def test_environment_is_honoured_and_a_pipe_sees_no_bars(hub, tmp_path):
    commit = hub.add("org/name", FILES)
    code = "from minigen.checkpoints.hub import resolve; print(resolve('org/name'))"
    home = {"HF_ENDPOINT": hub.url + "/", "HF_HOME": str(tmp_path / "home")}
    online = run(code, **home)
    folder = tmp_path / "home" / "hub" / "models--org--name" / "snapshots" / commit
    assert (online.stdout, online.stderr) == (f"{folder}\n", "")
    hub.asked.clear()
    offline = run(code, HF_HUB_OFFLINE="1", **home)
    assert (offline.stdout, offline.stderr) == (f"{folder}\n", "")
    assert not hub.asked


def test_a_terminal_sees_bars(hub, tmp_path, read_all):
    hub.add("org/name", FILES)
    terminal, stderr = pty.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    subprocess.run(
        [sys.executable, "-c", "from minigen.checkpoints.hub import resolve; resolve('org/name')"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path),
        },
        stderr=stderr,
        timeout=60,
        check=True,
    )
    os.close(stderr)
    shown = read_all(terminal).decode()
    os.close(terminal)
    assert re.search(r"model\.safetensors: 100%", shown)


def test_import_is_light():
    code = (
        "import sys, minigen.checkpoints.hub, minigen.checkpoints.checkpoint; "
        "print(*{'huggingface_hub', 'numpy', 'safetensors', 'torch', 'mlx', 'requests'} & set(sys.modules))"
    )
    assert run(code).stdout == "\n"

"""What comes over the network is what the hub states, or is refused and removed."""

import hashlib
import json
from pathlib import Path

import pytest
from hub_server import refused

from minigen.checkpoints.hub import resolve, verify
from minigen.checkpoints.weight_files import INDEX, SINGLE
from minigen.errors import SourceError

CONFIG = b'{"model_type": "x"}'
WEIGHTS = b"the weights " * 1000
WRONG = WEIGHTS[:-600] + bytes(501) + WEIGHTS[-99:]
FILES = {"config.json": CONFIG, "tokenizer.json": b'{"a": 1}', SINGLE: WEIGHTS}


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def sha1(body):
    return hashlib.sha1(body).hexdigest()


def git(body):
    return sha1(b"blob %d\0" % len(body) + body)


def blobs(cache):
    return sorted(path.read_bytes() for path in (cache / "models--org--name" / "blobs").iterdir())


def says(hub, name, fault):
    return f"{name} of org/name is not what {hub.url} states: {fault}: it was removed; try again"


@pytest.mark.parametrize("listed", [True, False])
def test_weights_with_other_bytes(hub, cache, listed):
    """The hash is in the list of files, or in the ETag alone."""
    assert len(WRONG) == len(WEIGHTS)
    hub.metadata = listed
    hub.add("org/name", FILES)
    hub.sent[SINGLE] = WRONG
    assert refused() == says(hub, SINGLE, f"its SHA-256 is {sha256(WRONG)}, not {sha256(WEIGHTS)}")
    assert blobs(cache) == sorted([CONFIG, FILES["tokenizer.json"]])
    assert "lacks the weights" in refused(offline=True) or "is not in the cache" in refused(
        offline=True
    )
    hub.sent.clear()
    hub.asked.clear()
    assert (resolve("org/name") / SINGLE).read_bytes() == WEIGHTS
    assert hub.fetched() == [SINGLE]


def test_each_shard_and_their_index(hub):
    a, b = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = json.dumps({"weight_map": {"x": a, "y": b}}).encode()
    hub.add("org/name", {"config.json": CONFIG, INDEX: index, a: b"shard a", b: b"shard b"})
    hub.sent[b] = b"shard c"
    assert refused() == says(
        hub, b, f"its SHA-256 is {sha256(b'shard c')}, not {sha256(b'shard b')}"
    )
    hub.sent = {INDEX: index.replace(b"y", b"z")}
    resolve("org/name")  # which is here, and not looked at again


@pytest.mark.parametrize("etag", [git, sha1])
@pytest.mark.parametrize("listed", [True, False])
def test_small_files_have_the_hash_of_git(hub, etag, listed):
    """A mirror may give another hash of the bytes as ETag."""
    hub.metadata = listed
    hub.add("org/name", FILES)
    hub.etags = {"config.json": etag(CONFIG), "tokenizer.json": etag(FILES["tokenizer.json"])}
    changed = CONFIG.replace(b"x", b"y")
    hub.sent["config.json"] = changed
    stated = git(CONFIG) if listed else etag(CONFIG)
    assert refused() == says(hub, "config.json", f"its Git hash is {git(changed)}, not {stated}")
    hub.sent.clear()
    assert (resolve("org/name") / "config.json").read_bytes() == CONFIG


@pytest.mark.parametrize("body", [WEIGHTS[:-1], WEIGHTS + b"x", b""])
def test_a_file_of_another_size(hub, body):
    hub.add("org/name", FILES)
    hub.sent[SINGLE] = body
    assert refused() == says(hub, SINGLE, f"it has {len(body)} bytes, not {len(WEIGHTS)}")


def test_an_etag_that_is_no_hash(hub):
    """Nobody tells what the bytes are to be; where the list does, that counts."""
    hub.add("org/name", FILES)
    hub.metadata = False
    hub.etags[SINGLE] = "6d-5f0c1a"
    hub.sent[SINGLE] = WRONG
    assert (resolve("org/name") / SINGLE).read_bytes() == WRONG
    hub.metadata = True
    hub.add("org/name", {**FILES, SINGLE: WEIGHTS + b"2"})
    hub.etags[SINGLE] = "0" * 64
    assert refused() == says(hub, SINGLE, f"it has {len(WRONG)} bytes, not {len(WEIGHTS) + 1}")
    hub.sent[SINGLE] = WEIGHTS + b"2"
    assert (resolve("org/name") / SINGLE).read_bytes() == WEIGHTS + b"2"


@pytest.mark.parametrize("listed", [True, False])
def test_a_pointer_in_place_of_the_weights(hub, cache, listed):
    pointer = (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 12000\n"
        % sha256(WEIGHTS).encode()
    )
    hub.metadata = listed
    hub.add("org/name", {**FILES, SINGLE: pointer})  # a mirror that has what Git has
    assert refused() == says(hub, SINGLE, "it is a Git LFS pointer, not the file itself")
    assert pointer not in blobs(cache)


def test_a_download_that_went_on_with_other_bytes(hub, cache, no_pause):
    hub.add("org/name", FILES)
    hub.sent[SINGLE] = bytes(100) + WEIGHTS[100:]
    hub.cut[SINGLE] = [100]
    message = refused()
    if (
        "was interrupted" in message
    ):  # huggingface_hub 0.x goes on when it is asked again, not by itself
        message = refused()
    assert "its SHA-256 is" in message
    assert hub.asked[f"GET {SINGLE}"] == 2
    assert len(blobs(cache)) == 2  # not a part of it is left
    hub.sent.clear()
    assert (resolve("org/name") / SINGLE).read_bytes() == WEIGHTS


def test_what_is_cached_is_not_read_again(hub, monkeypatch):
    hub.add("org/name", FILES)
    folder = resolve("org/name")
    monkeypatch.setattr(verify, "find_fault", lambda *_: pytest.fail("a cached file was read"))
    assert resolve("org/name") == resolve("org/name", offline=True) == folder


def test_an_interrupted_check_is_made_again(hub, monkeypatch):
    hub.add("org/name", FILES)
    hub.sent[SINGLE] = WRONG
    true, hashed = verify.hash_file, []

    def interrupt(*args):
        hashed.append(args)
        if len(hashed) > 2:  # one for each of the small files
            raise KeyboardInterrupt
        return true(*args)

    monkeypatch.setattr(verify, "hash_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        resolve("org/name")
    monkeypatch.setattr(verify, "hash_file", true)
    hub.asked.clear()
    assert "its SHA-256 is" in refused()
    assert hub.fetched() == []  # it was here


def test_the_other_commits_stay(hub, caplog):
    old = hub.add("org/name", FILES)
    resolve("org/name")
    hub.add("org/name", {**FILES, SINGLE: WEIGHTS + b"2"})
    hub.sent[SINGLE] = WRONG + b"2"
    assert "its SHA-256 is" in refused()  # and not hidden by the cached one
    assert (
        resolve("org/name", offline=True).name
        == resolve(f"org/name@{old}", offline=True).name
        == old
    )
    assert (resolve("org/name", offline=True) / SINGLE).read_bytes() == WEIGHTS
    assert (resolve(f"org/name@{old}") / SINGLE).read_bytes() == WEIGHTS
    assert not caplog.records


class Stuck(type(Path())):
    def unlink(self, *_, **__):
        raise PermissionError(13, "Permission denied")


def test_a_file_that_cannot_be_removed(hub, tmp_path):
    path = Stuck(tmp_path / SINGLE)
    path.write_bytes(WRONG)
    fault = f"its SHA-256 is {sha256(WRONG)}, not {sha256(WEIGHTS)}"
    with pytest.raises(SourceError) as caught:
        verify.check_download(path, verify.Stated(sha256=sha256(WEIGHTS)), "org/name")
    remedy = f"remove {path} (Permission denied) and try again"
    said = f"{SINGLE} of org/name is not what {hub.url} states: {fault}: {remedy}"
    assert str(caught.value) == said

"""Checkpoints: whole or not there, whatever happens in the middle of a write."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.errors import CheckpointError, MinigenError
from minigen.training import checkpoint
from minigen.training.checkpoint import Position

FILES = {"config.json": b"{}", "vocab.json": b"[]"}


def arrays(step: int) -> dict[str, Any]:
    return {"w": np.full((3, 2), step, np.float32), "n": np.array(step)}


def save(run: Path, step: int, best: int | None = None) -> Path:
    position = Position(step, best_step=best, best_loss=None if best is None else 1.0, data="d", tokenizer="t")
    return checkpoint.save(run, position, FILES, {"w": arrays(step)["w"]}, "float32", arrays(step))


def test_a_checkpoint_and_its_names(tmp_path: Path) -> None:
    save(tmp_path, 4, 4)
    folder = save(tmp_path, 8, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "latest", "step-000004", "step-000008"]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "config.json", "model.safetensors", "training/position.json", "training/state.safetensors", "vocab.json",
    ]  # fmt: skip
    assert (tmp_path / "latest").read_text() == "step-000008\n"
    assert checkpoint.pointed(tmp_path, "best") == tmp_path / "step-000004"
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found[0], found[1].step, found[1].best_step) == (folder, 8, 4)
    state = checkpoint.read_state(folder)
    assert all(np.array_equal(state[name], x) for name, x in arrays(8).items())


def test_what_is_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, 2 if step > 1 else None)
    checkpoint.prune(tmp_path, 2)
    assert [path.name for path in checkpoint.steps_in(tmp_path)] == ["step-000006", "step-000005", "step-000002"]


def test_the_run_is_the_best_model(tmp_path: Path) -> None:
    save(tmp_path, 1)
    assert checkpoint.publish(tmp_path).name == "step-000001"
    save(tmp_path, 2, 2)
    save(tmp_path, 3, 2)
    for _ in range(2):
        assert checkpoint.publish(tmp_path).name == "step-000002"
    one, other = (folder / "model.safetensors" for folder in (tmp_path, tmp_path / "step-000002"))
    assert one.read_bytes() == other.read_bytes()
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    save(tmp_path, 2, 2)
    checkpoint.publish(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == b"{}"


@pytest.mark.parametrize("where", ["write_tensors", "sync_all", "point"])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    save(tmp_path, 1, 1)
    before = (tmp_path / "step-000001/model.safetensors").read_bytes()

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, where, refuse)
        with pytest.raises(MinigenError, match=r"^cannot write .*step-000002: No space left on device$"):
            save(tmp_path, 2, 2)
    assert not list(tmp_path.glob(".*.tmp"))
    assert (tmp_path / "step-000001/model.safetensors").read_bytes() == before
    assert checkpoint.pointed(tmp_path, "latest") == checkpoint.pointed(tmp_path, "best") == tmp_path / "step-000001"
    assert save(tmp_path, 2, 2).is_dir()


KILL = """
import os, sys
from pathlib import Path
import numpy as np
from minigen.training import checkpoint
run, what, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
module = os if what in ("replace", "fsync") else checkpoint
whole, count = getattr(module, what), 0
def fatal(*args, **names):
    global count
    count += 1
    if count == number:
        if what == "write_tensors":
            args[0].write_bytes(b"half of")
        os.kill(os.getpid(), 9)
    return whole(*args, **names)
setattr(module, what, fatal)
w = np.full((3, 2), 2, np.float32)
position = checkpoint.Position(2, best_step=2, best_loss=0.5)
checkpoint.save(run, position, {"config.json": b"{}"}, {"w": w}, "float32", {"w": w})
checkpoint.publish(run)
os._exit(7)
"""


@pytest.mark.parametrize(
    ("what", "number", "latest"),
    [("write_tensors", 1, 1), ("write_tensors", 2, 1), ("fsync", 3, 1), ("replace", 1, 1), ("replace", 2, 1),
     ("replace", 3, 2), ("replace", 4, 2), ("replace", 5, 2)],
)  # fmt: skip
def test_killed_in_the_middle(tmp_path: Path, what: str, number: int, latest: int) -> None:
    """At every point of a write the run has a whole checkpoint, and a whole model in its own folder."""
    save(tmp_path, 1, 1)
    checkpoint.publish(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILL, str(tmp_path), what, str(number)], check=False)
    assert done.returncode == -9
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[1].step == latest
    assert {path.stat().st_size for path in tmp_path.rglob("model.safetensors") if ".tmp" not in str(path)} == {
        (tmp_path / "step-000001/model.safetensors").stat().st_size
    }
    assert save(tmp_path, 3, 3).is_dir()
    checkpoint.publish(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_the_same_step_again(tmp_path: Path) -> None:
    save(tmp_path, 2)
    folder = save(tmp_path, 2)
    assert checkpoint.read_position(folder).step == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1)
    folder = save(tmp_path, 2)
    (folder / "training/state.safetensors").write_bytes(b"xx")
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[1].step == 1
    assert "step-000002/training/state.safetensors is not as it was written; going on from" in caplog.text
    (tmp_path / "step-000001/training/position.json").write_text(json.dumps({"step": 1}))
    with pytest.raises(CheckpointError, match=r"is not as it was written$"):
        checkpoint.newest(tmp_path)
    assert checkpoint.newest(tmp_path / "nothing") is None

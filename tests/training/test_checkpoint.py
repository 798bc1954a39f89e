"""Checkpoints: whole or not there, whatever happens in the middle of a write."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.errors import CheckpointError, MinigenError
from minigen.training import checkpoint, exchange
from minigen.training.position import Position

Killed = Callable[[Path, int, Callable[[], object]], bool]
FILES = {"config.json": b"{}", "vocab.json": b"[]"}


def arrays(step: int) -> dict[str, Any]:
    return {"w": np.full((3, 2), step, np.float32), "n": np.array(step)}


def save(run: Path, step: int, best: int | None = None) -> Path:
    position = Position(
        step, best_step=best, best_loss=None if best is None else 1.0, data="d", tokenizer="t"
    )
    return checkpoint.save(run, position, FILES, {"w": arrays(step)["w"]}, "float32", arrays(step))


def test_a_checkpoint_and_its_names(tmp_path: Path) -> None:
    save(tmp_path, 4, 4)
    folder = save(tmp_path, 8, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best",
        "latest",
        "step-000004",
        "step-000008",
    ]
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
    assert [path.name for path in checkpoint.steps_in(tmp_path)] == [
        "step-000006",
        "step-000005",
        "step-000002",
    ]


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
        with pytest.raises(
            MinigenError, match=r"^cannot write .*step-000002: No space left on device$"
        ):
            save(tmp_path, 2, 2)
    assert not list(tmp_path.glob(".*.tmp"))
    assert (tmp_path / "step-000001/model.safetensors").read_bytes() == before
    assert (
        checkpoint.pointed(tmp_path, "latest")
        == checkpoint.pointed(tmp_path, "best")
        == tmp_path / "step-000001"
    )
    assert save(tmp_path, 2, 2).is_dir()


KILL = """
import os, sys
from pathlib import Path
import numpy as np
from minigen.training import checkpoint, exchange
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
    done = subprocess.run(
        [sys.executable, "-c", KILL, str(tmp_path), what, str(number)], check=False
    )
    assert done.returncode == -9
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[1].step == latest
    assert {
        path.stat().st_size
        for path in tmp_path.rglob("model.safetensors")
        if ".tmp" not in str(path)
    } == {(tmp_path / "step-000001/model.safetensors").stat().st_size}
    assert save(tmp_path, 3, 3).is_dir()
    checkpoint.publish(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_the_same_step_again(tmp_path: Path) -> None:
    save(tmp_path, 2)
    folder = save(tmp_path, 2)
    assert checkpoint.read_position(folder).step == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def steps(run: Path) -> dict[int, float]:
    """What a reader finds in each checkpoint, all of them whole: step -> its number."""
    found = [
        (checkpoint.read_position(folder), checkpoint.read_state(folder))
        for folder in checkpoint.steps_in(run)
    ]
    return {position.step: float(state["w"][0, 0]) for position, state in found}


@pytest.mark.parametrize("number", [2, 1], ids=["the same", "another"])
def test_the_same_step_killed_at_every_point(tmp_path: Path, killed: Killed, number: int) -> None:
    """A checkpoint of a step that is there is lost at no moment: a reader finds the old one, or the new one."""
    run, before = tmp_path / "run", tmp_path / "before"
    save(before, 1, 1)
    save(before, 2, 2)
    checkpoint.publish(before)

    def again() -> None:
        state = {"w": arrays(number)["w"] + 10}
        position = Position(number, best_step=number, best_loss=0.5, data="d", tokenizer="t")
        checkpoint.save(run, position, FILES, state, "float32", state)
        checkpoint.prune(run, 2)
        checkpoint.publish(run)

    at, alive = 0, False
    while not alive:
        at += 1
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(before, run)
        alive = not killed(run, at, again)
        found = steps(run)
        assert set(found) == {1, 2}
        assert found[number] in ((number + 10,) if alive else (number, number + 10))
        assert checkpoint.newest(run) is not None
        assert checkpoint.pointed(run, "best") is not None
        weights = {
            (folder / "model.safetensors").read_bytes()
            for folder in (*checkpoint.steps_in(run), before)
        }
        assert (run / "model.safetensors").read_bytes() in weights
        again()
        assert steps(run)[number] == number + 10
        assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []
    assert at > 40


def test_old_ones_go_as_a_whole(tmp_path: Path, killed: Killed) -> None:
    run = tmp_path / "run"
    for at in range(1, 12):
        for step in (1, 2, 3):
            save(run, step)
        assert killed(run, at, lambda: checkpoint.prune(run, 1))
        assert set(steps(run)) in ({1, 2, 3}, {1, 3}, {3})
        assert set(steps(run)) == {int(folder.name[5:]) for folder in run.glob("step-*")}
    assert 2 not in steps(run)


def test_what_an_older_version_left(tmp_path: Path) -> None:
    """It removed the old checkpoint, and then gave its name to the new one."""
    folder = save(tmp_path, 2, 2)
    folder.rename(exchange.old_name(folder))
    (tmp_path / ".step-000003.tmp").mkdir()
    (tmp_path / ".notes.tmp").mkdir()  # nobody of ours
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    assert newest[0] == exchange.old_name(folder)
    assert checkpoint.publish(tmp_path) == newest[0]
    exchange.settle(tmp_path)
    assert checkpoint.pointed(tmp_path, "latest") == folder
    # Where both are there the new one stands, unless it is no checkpoint.
    shutil.copytree(folder, exchange.old_name(folder))
    (folder / exchange.POSITION).unlink()
    assert checkpoint.pointed(tmp_path, "latest") == exchange.old_name(folder)
    exchange.settle(tmp_path)
    assert steps(tmp_path) == {2: 2.0}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".notes.tmp"]


def test_the_disk_refuses_the_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rename of a save in turn: the old checkpoint has its name again."""
    folder = save(tmp_path, 2, 2)
    replace = os.replace
    for refused in (1, 2):
        left = refused

        def fail(source: Any, target: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(
                MinigenError, match=r"^cannot write .*step-000002: Input/output error$"
            ):
                save(tmp_path, 2, 2)
        assert checkpoint.steps_in(tmp_path) == [folder]
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_was_still_to_do(tmp_path: Path) -> None:
    """A process that dies after the latest checkpoint has its name has not named the best, nor published it."""
    save(tmp_path, 1, 1)
    checkpoint.publish(tmp_path)
    save(tmp_path, 2, 2)
    (tmp_path / "best").write_text("step-000001\n")
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    checkpoint.tidy(tmp_path, newest[1], 1)
    assert checkpoint.pointed(tmp_path, "best") == tmp_path / "step-000002"
    assert [path.name for path in checkpoint.steps_in(tmp_path)] == ["step-000002"]
    weights = (tmp_path / "step-000002/model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").read_bytes() == weights


def test_a_damaged_checkpoint_is_passed_over_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    folder = save(tmp_path, 2)
    (folder / "training/state.safetensors").write_bytes(b"xx")
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[1].step == 1
    problem = "step-000002/training/state.safetensors is damaged: it differs from what was written"
    assert f"{problem}; continuing from" in caplog.text
    (tmp_path / "step-000001/training/position.json").write_text(json.dumps({"step": 1}))
    with pytest.raises(CheckpointError, match=r"is damaged: it differs from what was written$"):
        checkpoint.newest(tmp_path)
    assert checkpoint.newest(tmp_path / "nothing") is None

"""A run whose process dies at any moment: what is there is whole, and it goes on to the bytes of one that lived."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigen.errors import MinigenError, UsageError
from minigen.training import checkpoint, run_folder
from minigen.training.log import RunLog, read_log
from minigen.training.run import begin, resume

New = Callable[..., Any]
EVERY = 29  # of the changes of a run this many are left out between two that are tried; all take a minute


def contents(run: Path) -> dict[str, bytes]:
    """All files of a run but those that tell the time, or where it began again."""
    paths = [
        path
        for path in run.rglob("*")
        if path.is_file() and path.name not in ("log.jsonl", "train.toml")
    ]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def losses(run: Path) -> list[Any]:
    return [
        (row["kind"], row["step"], row["loss"]) for row in read_log(run) if row["kind"] != "begin"
    ]


def test_killed_at_any_moment(
    small: New, train: New, go_on: New, tmp_path: Path, killed: Any
) -> None:
    """Making the folder, its tokenizer, steps, the log, checkpoints, and removing old ones."""
    config = small(steps=4, eval_every=2, keep=1, layers=1, tokenizer="bpe:265", ema=0.5)
    parent, run = tmp_path / "runs", tmp_path / "runs/run"

    def whole() -> None:
        train(begin(config, run))

    assert not killed(parent, 0, whole)
    good, steps, total = contents(run), losses(run), killed.count
    assert total > 100
    # The first are those that make the folder; after the last save old checkpoints go, and the best one is published.
    for at in (*range(1, 20, 3), *range(20, total - 16, EVERY), *range(total - 16, total + 1, 3)):
        shutil.rmtree(parent)
        assert killed(parent, at, whole), at
        if (run / run_folder.SAVED).is_file():
            assert all(checkpoint.read_position(folder) for folder in checkpoint.steps_in(run))
            go_on(run)
        else:
            whole()
        assert contents(run) == good, at
        assert losses(run) == steps
        assert os.listdir(parent) == ["run"]
        assert [path for path in run.rglob(".*") if path.name != ".lock"] == []


def test_killed_while_it_goes_on_from_before_the_last(
    new: New, train: New, go_on: New, tmp_path: Path, killed: Any
) -> None:
    """As where the last checkpoint was damaged: its step comes again, and it is there until then."""
    run, before = tmp_path / "run", tmp_path / "before"
    train(new("run", steps=4, eval_every=2, keep=3, layers=1))
    good = contents(run)
    (run / "latest").write_text("step-000002\n")
    shutil.copytree(run, before)
    assert not killed(run, 0, lambda: go_on(run))
    for at in range(5, killed.count, EVERY):
        shutil.rmtree(run)
        shutil.copytree(before, run)
        assert killed(run, at, lambda: go_on(run))
        assert [checkpoint.read_position(folder).step for folder in checkpoint.steps_in(run)] == [
            4,
            2,
        ]
        go_on(run)
        assert contents(run) == good, at


def test_a_folder_that_another_process_makes(small: New, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with (run / run_folder.MARK).open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        with pytest.raises(
            MinigenError,
            match=r"run is being made by another process: wait for it, or name another",
        ):
            begin(small(), run)
    assert os.listdir(run) == [run_folder.MARK]
    (run / "mine.txt").write_text("of the user")
    with pytest.raises(UsageError, match=r"run is there already, and not empty"):
        begin(small(), run)
    (run / "mine.txt").unlink()
    with pytest.raises(UsageError, match=r"vocab"):
        begin(small(vocab=3), run)
    assert os.listdir(run) == []  # it was there before
    begin(small(), run)
    assert not (run / run_folder.MARK).exists()
    (run / run_folder.MARK).touch()  # killed when all but this was done
    with pytest.raises(UsageError, match=r"run has a run already"):
        begin(small(), run)
    resume(run, {})
    assert not (run / run_folder.MARK).exists()


def test_a_log_that_ends_inside_a_character(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0) as log:
        log.add({"step": 1, "sample": "é"})
        log.add({"step": 2, "sample": "é"})
    path = tmp_path / "log.jsonl"
    path.write_bytes(path.read_bytes()[: -len('\xa9"}\n')])
    assert path.read_bytes().endswith(b'"\xc3')
    assert read_log(tmp_path) == [{"step": 1, "sample": "é"}]
    with RunLog(tmp_path, 1) as log:
        log.add({"step": 2})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    path.write_bytes(path.read_bytes() + b"\0" * 8)  # as after a power cut
    assert len(read_log(tmp_path)) == 2

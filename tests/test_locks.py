"""One process at a time, and a lock that dies with its process."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minigen.errors import MinigenError
from minigen.locks import lock_beside, only_process

HOLDER = """
import sys, time
from pathlib import Path
from minigen.locks import only_process
with only_process(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(lock: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    words = [sys.executable, "-c", HOLDER, str(lock)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_killed_process_leaves_no_lasting_lock(tmp_path: Path) -> None:
    lock = tmp_path / "run.jsonl.lock"
    with hold(lock) as other:
        try:
            with (
                pytest.raises(MinigenError, match=r"^it is written$"),
                only_process(lock, "it is written"),
            ):
                raise AssertionError
        finally:
            other.send_signal(signal.SIGKILL)
        other.wait()
    assert lock.exists()  # the file is there, and nobody has it
    with only_process(lock, "busy"):
        pass
    assert os.listdir(tmp_path) == []


def test_it_ends_with_the_block(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for _ in range(2):
        with pytest.raises(FileExistsError), only_process(lock, "busy"):
            lock.touch(exist_ok=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), only_process(tmp_path / "lock", "busy"):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot lock {tmp_path / 'lock'}: {os.strerror(number)}: make sure that no other process writes there"
    ]


def test_where_no_lock_file_can_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in a read-only folder; root may write everywhere, so it is a name that is too long."""
    lock = tmp_path / ("x" * 300)
    with caplog.at_level(logging.WARNING), only_process(lock, "busy"):
        pass
    assert "File name too long: make sure that no other process writes there" in caplog.text


def test_all_names_of_a_file_have_one_lock(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").touch()
    (tmp_path / "link").symlink_to("run.jsonl")
    assert lock_beside(tmp_path / "link") == lock_beside(tmp_path / "run.jsonl")
    assert lock_beside(tmp_path / "run.jsonl") == tmp_path.resolve() / "run.jsonl.lock"

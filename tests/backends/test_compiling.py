"""The first use of the kernels on a machine: another process compiles them, and no text changes its way meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from minigen.backends import get_backend
from minigen.backends.cpu import compiling

pytest.importorskip("numba", reason="numba is not installed")
pytest.importorskip("torch", reason="torch is not installed")

Step = Callable[..., bool]
PATIENCE = 30  # seconds, for a process that does next to nothing


@pytest.fixture
def cold(compiled_kernels: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine on which nothing is compiled: the file that will say that everything is."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    compiling.cache_folder.cache_clear()
    compiling.marker.cache_clear()
    yield compiling.marker()
    compiling.cache_folder.cache_clear()
    compiling.marker.cache_clear()


class Watched(compiling.Compiler):
    """A compiler whose process a test can end."""

    processes: ClassVar[list[subprocess.Popen[bytes]]] = []

    def start(self) -> bool:
        started = super().start()
        if started:
            assert self.process is not None
            self.processes.append(self.process)
        return started


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Has another program run in the place of the one that compiles."""
    monkeypatch.setattr("minigen.backends.cpu.start.Compiler", Watched)

    def put(code: str) -> None:
        monkeypatch.setattr(Watched, "command", [sys.executable, "-c", code])

    yield put
    while Watched.processes:
        process = Watched.processes.pop()
        process.kill()
        process.wait()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_each_version_of_numba_has_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    folders = set()
    for version in ("0.61.0", "0.68.1"):
        monkeypatch.setattr(compiling, "installed", lambda package, version=version: version)
        folders.add(compiling.cache_folder.__wrapped__())
    assert len(folders) == 2


def test_all_kernels_are_compiled_by_the_program() -> None:
    """The real one, where nothing has run it here before; then all that the tests call is loaded, nothing compiled."""
    compiler = compiling.Compiler()
    compiler.wait()
    assert compiling.is_compiled()
    count = compiling.count_compiled()
    code = (
        "from minigen.backends.cpu import compile, compiling\n"
        "compile.compile_all()\n"
        "import numba\n"
        "from minigen.backends.cpu import attention, linear, program, small\n"
        "stats = [f.stats for m in (attention, linear, program, small) for f in vars(m).values()\n"
        "         if isinstance(f, numba.core.dispatcher.Dispatcher)]\n"
        "print(sum(sum(s.cache_hits.values()) for s in stats) > 5, sum(sum(s.cache_misses.values()) for s in stats))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True 0\n"
    assert compiling.count_compiled() == count


def test_a_text_ends_as_it_began(
    cold: Path, program: Callable[[str], None], large_step: Step, caplog: pytest.LogCaptureFixture
) -> None:
    program(
        f"import sys; sys.stdin.read(); import pathlib; pathlib.Path({str(cold)!r}).write_text('0')"
    )
    ops: Any = get_backend("torch", "cpu", "float32")
    kernels = ops.kernels
    with ops.one_text():
        large_step(ops, 0)  # the prompt
        assert [m.partition(",")[0] for m in caplog.messages] == [
            "kernels are compiled for this machine in the background"
        ]
        until(lambda: cold.exists())
        for length in range(1, 10):
            large_step(ops, length)
        assert not kernels.started
        with ops.one_text():  # another one beside it, which could have had them
            large_step(ops, 0)
            large_step(ops, 1)
            assert not kernels.started
    with ops.one_text():
        large_step(ops, 0)
        assert not kernels.started  # numba does not delay the first token
        large_step(ops, 1)
        assert kernels.started
    assert len(caplog.messages) == 1


def test_a_text_that_began_before_the_kernels_were_ready(
    cold: Path, program: Callable[[str], None], large_step: Step
) -> None:
    """Its prompt was read by torch while another process compiled: so is the rest."""
    program("import time; time.sleep(60)")
    ops: Any = get_backend("torch", "cpu", "float32")
    kernels = ops.kernels
    with ops.one_text():
        large_step(ops, 0)
    with ops.one_text():
        large_step(ops, 0)
        cold.write_text("0")
        large_step(ops, 1)
        assert not kernels.started
    large_step(ops, 1)  # of no text, as when texts are scored
    assert kernels.started


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import sys; print('a line'); sys.exit('numba: no locator available')",
            "numba: no locator available",
        ),
        ("raise SystemExit(3)", "the compiling process ended with code 3"),
    ],
)
def test_kernels_that_cannot_be_compiled(
    cold: Path,
    program: Callable[[str], None],
    large_step: Step,
    caplog: pytest.LogCaptureFixture,
    code: str,
    reason: str,
) -> None:
    program(code)
    ops: Any = get_backend("torch", "cpu", "float32")
    large_step(ops, 0)
    until(lambda: ops.kernels.compiler.process.poll() is not None)
    for length in range(1, 4):
        large_step(ops, length)
    assert not ops.kernels.possible
    assert caplog.messages[1:] == [
        f"numba does not work here ({reason}): decoding goes by torch alone, at half the speed"
    ]


def test_the_reason_is_the_last_line(cold: Path) -> None:
    """Not what numba advises under it."""
    code = "import sys; sys.modules['numba.np.ufunc.omppool'] = None\n" + compiling.PROGRAM
    told = os.environ | {"NUMBA_THREADING_LAYER": "omp"}
    done = subprocess.run(
        [sys.executable, "-c", code, *sys.path], capture_output=True, text=True, env=told
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1] == "No threading layer could be loaded."
    assert not cold.exists()


def test_who_measures_waits(
    cold: Path, program: Callable[[str], None], large_step: Step, caplog: pytest.LogCaptureFixture
) -> None:
    program(f"import time, pathlib; time.sleep(0.3); pathlib.Path({str(cold)!r}).write_text('0')")
    ops: Any = get_backend("torch", "cpu", "float32")
    ops.prepare()  # nothing has shown yet that this model wants kernels
    assert not cold.exists()
    large_step(ops, 0)
    ops.prepare()
    assert cold.exists()
    ops.prepare()
    assert (
        len(
            [m for m in caplog.messages if m.startswith("compiling kernels for this machine, once")]
        )
        == 1
    )


def test_who_measures_is_told_why_not(
    cold: Path, program: Callable[[str], None], large_step: Step, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where nothing has asked since the process failed."""
    program("raise SystemExit(3)")
    ops: Any = get_backend("torch", "cpu", "float32")
    large_step(ops, 0)
    until(lambda: ops.kernels.compiler.process.poll() is not None)
    ops.prepare()
    assert not ops.kernels.possible
    assert "the compiling process ended with code 3" in caplog.messages[-1]


def test_small_models_compile_nothing(cold: Path, program: Callable[[str], None]) -> None:
    program("raise SystemExit(3)")
    ops: Any = get_backend("torch", "cpu", "float32")
    with ops.one_text():
        ops.linear(ops.zeros((1, 1, 100)), ops.zeros((100, 100)))
    assert "compiler" not in vars(ops.kernels)


def test_two_processes_compile_once(cold: Path) -> None:
    """The second one leaves at once, and well: the first is at it."""
    import fcntl

    cold.parent.mkdir(parents=True, exist_ok=True)
    with open(compiling.lock_file(), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [*compiling.Compiler.command], capture_output=True, text=True, timeout=PATIENCE
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert not cold.exists()


def test_what_the_marker_says_is_checked(cold: Path) -> None:
    """Compiled functions that somebody removed are missed."""
    cold.write_text("2")
    assert not compiling.is_compiled()
    for name in ("a.nbc", "b.nbc"):
        (cold.parent / name).write_text("")
    assert compiling.is_compiled()
    cold.write_text("two")
    assert not compiling.is_compiled()

"""Compiled code of the kernels, kept on disk: where it lies, whether it is whole, and the process that makes it.

Compiling takes about half a minute, once for a machine, and holds Python's lock while it lasts: a thread of this
process could answer no Ctrl-C. So a process of its own fills numba's cache while torch writes the first text.
Nothing here imports numba, which takes a third of a second to start.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from minigen.backends.packages import installed
from minigen.files import take_lock

FOLDER = Path(__file__).parent
PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from minigen.backends.cpu.compile import main; sys.exit(main())"


def sources() -> list[Path]:
    return sorted(FOLDER.glob("*.py"))


@cache
def cache_folder() -> Path:
    """Where numba keeps what it compiled: the folder that the user names, or one for each state of the sources and each
    version of numba.

    Asked whether its code is up to date, numba looks at the file of a function, and not at those that it calls. Two
    versions of it, in environments that share these sources, would write over each other's index.
    """
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named:
        return Path(named)
    contents = [path.read_bytes() for path in sources()]
    versions = [version.encode() for version in compiler_versions()]
    state = hashlib.sha256(b"".join([*contents, *versions])).hexdigest()[:12]
    writable = os.access(FOLDER, os.W_OK)
    base = FOLDER / "__pycache__" if writable else Path.home() / ".cache" / "minigen"
    return base / f"numba-{state}"


def compiler_versions() -> list[str]:
    """Of numba and of llvmlite; "" for one that is not installed."""
    return [installed(package) or "" for package in ("numba", "llvmlite")]


def processor() -> str:
    """What distinguishes the code that is compiled for this processor from that for another."""
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    told = [
        line
        for line in first.splitlines()
        if line.startswith(("model name", "flags", "Features", "CPU part"))
    ]
    return "\n".join([platform.machine(), *told])


@cache
def marker() -> Path:
    """The file that says that all kernels have been compiled: its name changes with whatever makes numba compile
    again, and it holds the number of compiled functions."""
    stamps = [f"{path.name} {path.stat().st_mtime_ns} {path.stat().st_size}" for path in sources()]
    versions = [sys.version, *compiler_versions(), processor()]
    switches = sorted(
        f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_")
    )
    state = hashlib.sha256("\n".join([*stamps, *versions, *switches]).encode()).hexdigest()[:12]
    return cache_folder() / f"complete-{state}"


def count_compiled() -> int:
    return sum(1 for _ in cache_folder().rglob("*.nbc"))


def is_compiled() -> bool:
    """Whether the kernels can be loaded without compiling any."""
    try:
        wanted = int(
            marker().read_text()
        )  # first: until it is there, this is asked at every product
    except (OSError, ValueError):
        return False
    return count_compiled() >= wanted


def lock_file() -> Path:
    """Whoever compiles holds a lock on it."""
    return cache_folder() / "lock"


def log_file() -> Path:
    """What the process that compiles writes, as it has no terminal."""
    return cache_folder() / "compile.log"


def wait_until_idle() -> None:
    """Until no process compiles kernels, of those that other processes have started too."""
    if not lock_file().exists():
        return
    with open(lock_file()) as lock:
        take_lock(lock.fileno(), wait=True)


class LeftRunning(subprocess.Popen[bytes]):
    """A process that may outlive this one. Python warns of those, which here is no mistake."""

    def __del__(self) -> None:
        pass


class Compiler:
    """The process that compiles the kernels, if they are not there. It outlives this one, so that runs which are
    shorter than half a minute get somewhere too."""

    command: Sequence[str] = (sys.executable, "-c", PROGRAM, *sys.path)

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = is_compiled()

    def start(self) -> bool:
        """Starts the process where it is needed and was not started yet; says whether it did.

        Raises OSError where the system refuses one.
        """
        if self.ready or self.process is not None:
            return False
        cache_folder().mkdir(parents=True, exist_ok=True)
        with log_file().open("wb") as log:
            self.process = LeftRunning(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is not for it
            )
        return True

    def poll(self) -> bool:
        """Whether the kernels are compiled now. Raises RuntimeError, with the reason, where they cannot be."""
        if self.ready:
            return True
        code = None if self.process is None else self.process.poll()
        self.ready = is_compiled()  # asked after the process: what it did last was to say so
        if not self.ready and code:
            raise RuntimeError(self.reason(code))
        return self.ready

    def reason(self, code: int) -> str:
        """The last line that the process wrote before it failed."""
        lines = log_file().read_text(errors="replace").split("\n")
        written = [line.strip() for line in lines if line.strip()]
        return written[-1] if written else f"the compiling process ended with code {code}"

    def wait(self) -> None:
        """Until the kernels are compiled, by whichever process; Ctrl-C ends the waiting. Raises as `poll` does."""
        while not self.poll():
            self.start()
            assert self.process is not None
            time.sleep(0.1)
            if self.process.poll() == 0:  # it is done, or has left the work to another process
                self.process = None
                wait_until_idle()
        if self.process is not None:
            self.process.wait()

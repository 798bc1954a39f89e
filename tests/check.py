"""The one command: lint, types, tests. `python tests/check.py [pytest arguments]`; CI runs the same.

The tests run in several processes, as tests/conftest.py counts them; `-n 0` runs them in one, as a debugger needs it.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINT = (["ruff", "check"], ["ruff", "format", "--check"])
TYPES = [
    "mypy"
]  # beside the tests: it computes in one process, and would leave the other cores idle
# Neighbors in a file share what they make, so each process begins with a row of them and later takes of another's.
PYTEST = ["pytest", "-n", "auto", "--dist", "worksteal"]
# Without compiled files each process would compile pytest's asserts, and each command that a test starts the package.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


def start(step: list[str], output: int | None = None) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", *step]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=output and subprocess.STDOUT
    )


def run(step: list[str]) -> int:
    print(f"$ {' '.join(step)}", flush=True)
    with start(step) as process:
        return process.wait()


def main() -> int:
    for step in LINT:
        code = run(step)
        if code:
            return code
    with start(TYPES, subprocess.PIPE) as types:
        tests = run([*PYTEST, *sys.argv[1:]])
        said, _ = types.communicate()
    print(f"$ {' '.join(TYPES)}\n{said.decode()}", end="", flush=True)
    return tests or types.returncode


if __name__ == "__main__":
    sys.exit(main())

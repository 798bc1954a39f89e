"""The one command: lint, types, tests. `python tests/check.py [pytest arguments]`; CI runs the same.

The tests run in several processes, as tests/conftest.py counts them; `-n 0` runs them in one, as a debugger needs it.
"""

import subprocess
import sys
from pathlib import Path

# Neighbors in a file share what they make, so each process begins with a row of them and later takes of another's.
PYTEST = ("pytest", "-n", "auto", "--dist", "worksteal")
STEPS = (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], [*PYTEST, *sys.argv[1:]])


def main() -> int:
    for step in STEPS:
        print(f"$ {' '.join(step)}", flush=True)
        code = subprocess.run([sys.executable, "-m", *step], cwd=Path(__file__).resolve().parents[1]).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())

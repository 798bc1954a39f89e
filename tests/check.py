"""The one command: lint, types, tests. `python tests/check.py [pytest arguments]`; CI runs the same."""

import subprocess
import sys
from pathlib import Path

STEPS = (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], ["pytest", *sys.argv[1:]])


def main() -> int:
    for step in STEPS:
        print(f"$ {' '.join(step)}", flush=True)
        code = subprocess.run([sys.executable, "-m", *step], cwd=Path(__file__).resolve().parents[1]).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())

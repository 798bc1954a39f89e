"""The tests with the lowest versions that pyproject.toml declares: `python tests/lowest.py [pytest arguments]`.

They are installed into a fresh virtual environment, each dependency at its lower bound: the constraints come from
pyproject.toml itself, so that the two cannot drift apart. torch is left to pip: it is large, and a machine may have one
version alone. transformers, which is only compared with, comes in a second step, for it wants newer versions of what it
shares with us: with its own lowest version run the tests that use it. `--constraints` prints the constraints alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from check import PYTEST

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("torch", "mlx", "fast", "plot")  # what users install
TOOLS = "test"
LATER = "transformers"
LEFT_OUT = (
    "torch",
    "ruff",
    "mypy",
)  # the last two read the source, by the types of the newest versions


def meant_for(system: str, requirement: str) -> bool:
    """Whether a requirement is for this system, or for every one."""
    named = re.search(r"sys_platform == '(\w+)'", requirement)
    return named is None or named[1] == system


def lowest(*extras: str) -> dict[str, str]:
    """Name -> lower bound, of the dependencies of these extras; those of the package itself where none is named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [line for name in extras for line in project["optional-dependencies"][name]]
    wanted = [line for line in listed or project["dependencies"] if meant_for(sys.platform, line)]
    found = (re.match(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\d.]+)", line) for line in wanted)
    return {match[1]: match[2] for match in found if match and match[1] not in LEFT_OUT}


def pins(versions: dict[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in versions.items()]


def users(package: str) -> list[str]:
    """The test files that take a package where it is installed."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [
        str(path)
        for path in files
        if f'importorskip("{package}' in path.read_text(encoding="utf-8")
    ]


def main() -> int:
    tools = lowest(TOOLS)
    later = tools.pop(LATER)
    constraints = pins(lowest() | lowest(*EXTRAS) | tools)
    if sys.argv[1:] == ["--constraints"]:
        print("\n".join(constraints))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        file, folder = Path(scratch) / "constraints.txt", Path(scratch) / "venv"
        file.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        venv.create(folder, with_pip=True)
        environment = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}

        def run(*words: str) -> int:
            print(f"$ {' '.join(words)}", flush=True)
            return subprocess.run(
                [folder / "bin" / "python", "-m", *words], cwd=ROOT, env=environment
            ).returncode

        install = ("pip", "install", "--quiet")
        package = f".[{','.join(EXTRAS)}]"
        return (
            run(*install, "--constraint", str(file), "--editable", package, *pins(tools))
            or run(*PYTEST, *sys.argv[1:])
            or run(*install, f"{LATER}=={later}")
            or run(*PYTEST, *users(LATER), *sys.argv[1:])
        )


if __name__ == "__main__":
    sys.exit(main())

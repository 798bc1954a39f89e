"""The tests on machines of GitHub are those of .ci/run, on the versions of Python that pyproject.toml names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text()


def test_the_workflow_runs_what_ci_runs() -> None:
    yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    matrix, script = job["strategy"]["matrix"], (ROOT / ".ci/run").read_text()

    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert matrix["python"] == named  # as texts: 3.10 without quotes is 3.1
    assert f'requires-python = ">={named[0]}"' in PROJECT
    assert {system.partition("-")[0] for system in matrix["system"]} == {"ubuntu", "macos"}

    commands = [step["run"] for step in job["steps"] if "run" in step]
    extras = re.search(r'--editable "(.*?)"', script)
    assert extras is not None
    assert commands == [f'pip install --editable "{extras[1]}"', script.splitlines()[-1]]
    (python,) = (step["with"] for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert (python["python-version"], python["cache"]) == ("${{ matrix.python }}", "pip")

"""Rules of the house that a machine can hold: what is packaged, and how long a file is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path for folder in ("minigen", "cli", "weights") for path in (ROOT / folder).rglob("*.py")
)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere in it, relative imports spelled out."""
    package = [
        "minigen",
        *path.relative_to(ROOT).parent.parts[1 if path.is_relative_to(ROOT / "minigen") else 0 :],
    ]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])


def test_only_backends_import_a_framework() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for name in imported(path)
        if name.split(".")[0] in ("torch", "mlx", "transformers")
    }
    rooms = {f"minigen/backends/{room}" for room in ("torch", "mlx", "cpu")}
    assert {Path(name).parent.as_posix() for name in found} == rooms


def test_json_and_toml_are_read_within_bounds() -> None:
    """By reading.py alone, but for what this program has just written."""
    own = {"reading", "cold", "vocabulary"}
    readers = {
        path.parent.name if path.stem == "__init__" else path.stem
        for path in SOURCES
        if re.search(r"\b(json|tomllib)\.loads?\(", path.read_text())
    }
    assert readers <= own


def test_errors_are_told_in_one_way() -> None:
    """A sentence that begins with "Raises" and the error's name, in a docstring."""
    others = re.compile(r"\b(?:Errors|Raises):|^ +:raises ", re.MULTILINE)
    assert [path.name for path in SOURCES if others.search(path.read_text())] == []


def test_packages_are_the_folders() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    match = re.search(r"^packages = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    assert match is not None
    listed = set(re.findall(r'"([\w.]+)"', match[1]))
    folders = {
        "minigen." + str(path.parent.relative_to(ROOT)).replace("/", ".") for path in SOURCES
    }
    assert listed == {name.replace("minigen.minigen", "minigen") for name in folders}


def test_files_stay_short() -> None:
    assert {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 300} == {}


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def parts(node: ast.AST, *kinds: type[ast.AST]) -> list[ast.AST]:
    return [part for part in ast.walk(node) if isinstance(part, kinds)]


def is_dense(statement: ast.stmt) -> bool:
    """Whether it has two ternaries, or a comprehension within a comprehension."""
    nested = [x for x in parts(statement, *COMPREHENSIONS) if len(parts(x, *COMPREHENSIONS)) > 1]
    return bool(nested) or len(parts(statement, ast.IfExp)) > 1


def dense_statements(text: str) -> list[str]:
    """The dense ones among the statements that contain no others."""
    simple = [x for x in parts(ast.parse(text), ast.stmt) if not hasattr(x, "body")]
    return [ast.unparse(x) for x in simple if isinstance(x, ast.stmt) and is_dense(x)]


def test_no_statement_is_dense() -> None:
    """One idea a line: at most one ternary in a statement, and no comprehension in another."""
    files = [path for top in ("minigen", "cli", "weights", "bench") for path in python_files(top)]
    assert len(files) > 300
    found = {str(path.relative_to(ROOT)): dense_statements(path.read_text()) for path in files}
    assert {path: statements for path, statements in found.items() if statements} == {}


@pytest.mark.parametrize(
    "line",
    [
        "x = 1 if a else 2 if b else 3",
        "f(1 if a else 2, 3 if b else 4)",
        "[[x for x in y] for y in z]",
    ],
)
def test_what_is_dense(line: str) -> None:
    assert dense_statements(line)
    assert not dense_statements("x = [y for y in z] if z else []")


def python_files(top: str) -> list[Path]:
    return sorted((ROOT / top).rglob("*.py"))


def test_every_dependency_has_a_lower_bound_that_can_be_tested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from runpy import run_path

    monkeypatch.syspath_prepend(ROOT / "tests")  # as when it is run
    lowest = run_path(str(ROOT / "tests" / "lowest.py"))
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(
        r'^ *"([\w-]+)(?:\[\w+\])?[>;]',
        re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M)[1],
        re.M,
    )
    assert list(lowest["lowest"]()) == listed
    assert set(lowest["lowest"](*lowest["EXTRAS"])) == {
        "mlx",
        "numba",
        "matplotlib",
    }  # and torch, which pip chooses
    assert lowest["pins"]({"a": "1.2"}) == ["a==1.2"]
    line = "mlx>=0.32.4; sys_platform == 'darwin' and platform_machine == 'arm64'"
    assert line in text
    assert [lowest["meant_for"](system, line) for system in ("darwin", "linux")] == [True, False]
    assert lowest["meant_for"]("linux", "numpy>=1.26")
    tools = {"pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "transformers", "pyte"}
    assert lowest["lowest"]("test").keys() == tools
    assert str(ROOT / "tests" / "chat" / "test_template.py") in lowest["users"]("transformers")


def test_importing_minigen_is_light() -> None:
    code = "import sys, minigen; print(sorted(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert not [
        name
        for name in ("torch", "mlx", "numpy", "safetensors", "tokenizers")
        if f"'{name}'" in out
    ]


def test_public_names() -> None:
    import minigen

    for name in minigen.__all__:
        assert getattr(minigen, name) is not None
    with pytest.raises(AttributeError, match="module 'minigen' has no attribute 'nothing'"):
        _ = minigen.nothing

"""The rooms of the tree: who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground up; a room imports those of the lines below its own.
FLOORS = (
    ("errors", "tree"),
    ("files", "locks", "reading"),
    ("backends", "tokenizer", "sampling"),
    ("layers",),
    ("models",),
    ("families",),
    ("checkpoints",),
    ("generation",),
    ("model",),
    ("prompt_cache",),
    ("evaluation",),
    ("chat",),
    ("training",),
    ("benchmark",),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for top in ("minigen", "cli"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(parts if top == "minigen" else ("minigen", *parts))] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that one imports, late imports too, those for type checking aside."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body.clear()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                target = inner if inner in known else base
                if target in known:
                    yield target


def room_of(name: str) -> str:
    return name.split(".")[1]


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


def test_rooms_import_what_is_below_them(graph: dict[str, set[str]]) -> None:
    assert len(graph) > 200
    wrong = [
        f"{name} imports {target}"
        for name, targets in graph.items()
        for target in targets
        if name != "minigen" and target.count(".") and room_of(name) != room_of(target)
        if name.count(".") and FLOOR.get(room_of(target), -1) >= FLOOR.get(room_of(name), len(FLOORS))
    ]
    assert not wrong


def test_every_room_has_a_floor(graph: dict[str, set[str]]) -> None:
    rooms = {room_of(name) for name in graph if name.count(".")} - {"__main__"}
    assert rooms == FLOOR.keys()


def test_no_circles(graph: dict[str, set[str]]) -> None:
    """Modules that import nothing that is left are taken away, until none is left."""
    left = {name: set(targets) for name, targets in graph.items() if name != "minigen"}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    assert not left

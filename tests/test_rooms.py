"""The rooms of the tree: who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INNER = (
    "models",
    "layers",
    "families",
)  # the rooms that know architectures, kinds of layers, and families
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
            above = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
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
        if name.count(".")
        and FLOOR.get(room_of(target), -1) >= FLOOR.get(room_of(name), len(FLOORS))
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


# -- nothing else asks which architecture runs ------------------------------------------------------------------------
A_TOKENIZER = "name == 'gpt2'"  # `train --tokenizer gpt2` has the name of a family
Known = tuple[
    set[str], set[str]
]  # classes of the inner rooms, and the names of families and of models to train


@pytest.fixture(scope="module")
def known() -> Known:
    from minigen.families import FAMILIES
    from minigen.families.new import NEW_MODELS

    trees = [
        ast.parse(path.read_text())
        for room in INNER
        for path in (ROOT / "minigen" / room).glob("*.py")
    ]
    classes = {
        node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    }
    return classes, {*FAMILIES, *NEW_MODELS}


def names_in(node: ast.AST) -> set[str]:
    """Names, and the last names of attributes."""
    plain = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return plain | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def strings_in(node: ast.AST) -> set[str]:
    constants = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
    return {value for value in constants if isinstance(value, str)}


def function_of(node: ast.AST) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def asks(node: ast.AST, known: Known) -> bool:
    """Whether an expression or a pattern asks for an architecture, a kind of layer or state, or a family."""
    classes, families = known
    if function_of(node) in ("isinstance", "issubclass"):
        assert isinstance(node, ast.Call)
        return bool(names_in(node.args[1]) & classes)
    if function_of(node) in ("hasattr", "getattr"):
        return bool(names_in(node) & {"architecture", "block", "blocks", "state"})
    if isinstance(node, ast.MatchClass):
        return bool(names_in(node.cls) & classes)
    if isinstance(node, ast.MatchValue):
        return bool(strings_in(node) & families)
    if not isinstance(node, ast.Compare):
        return False
    of_type = (
        any(function_of(part) == "type" for part in ast.walk(node)) and names_in(node) & classes
    )
    of_state = "state.kind" in ast.unparse(node)
    return bool(of_type or of_state or strings_in(node) & families)


def questions(text: str, known: Known) -> list[str]:
    return [ast.unparse(node) for node in ast.walk(ast.parse(text)) if asks(node, known)]


def test_only_the_inner_rooms_ask_which_architecture_runs(known: Known) -> None:
    outside = [
        path for name, path in modules().items() if name.count(".") and room_of(name) not in INNER
    ]
    assert len(outside) > 150
    asked = {str(path.relative_to(ROOT)): questions(path.read_text(), known) for path in outside}
    assert {path: found for path, found in asked.items() if found} == {
        "minigen/training/tokenizer_files.py": [A_TOKENIZER]
    }


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(model.architecture, CausalLM)",
        "issubclass(kind, (int, models.causal.CausalLM))",
        "type(block) is PreNormBlock",
        "config['model_type'] == 'llama'",
        "kind in ('gpt2', 'x')",
        "state.kind != 'kv'",
        "hasattr(architecture, 'sinks')",
        "getattr(runner.state, 'rings', None)",
        "match block:\n    case PreNormBlock(): pass",
        "match kind:\n    case 'lstm': pass",
    ],
)
def test_what_counts_as_asking(known: Known, line: str) -> None:
    assert questions(line, known)

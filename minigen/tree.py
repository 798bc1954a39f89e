"""Parameter trees: nested dicts and lists whose leaves are arrays, or anything else.

A NamedTuple is a leaf: its parts belong together, as in a quantized matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Tree = Any


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """{"blocks": [{"norm": w}]} -> {"blocks.0.norm": w}, in the tree's order."""
    if isinstance(tree, Mapping):
        items = list(tree.items())
    elif isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
        items = [(str(index), child) for index, child in enumerate(tree)]
    else:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, child in items:
        path = f"{prefix}.{key}" if prefix else key
        flat.update(flatten(child, path))
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """The inverse of `flatten`: a level whose keys are all numbers is a list."""
    root: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split(".")
        node = root
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return _lists(root)


def _lists(node: Tree) -> Tree:
    if not isinstance(node, dict):
        return node
    children = {key: _lists(child) for key, child in node.items()}
    if children and all(key.isdigit() for key in children):
        return [children[str(index)] for index in range(len(children))]
    return children


def leaves(tree: Tree) -> Iterator[Any]:
    """Every leaf, depth first."""
    yield from flatten(tree).values()

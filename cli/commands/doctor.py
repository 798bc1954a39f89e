"""`minigen doctor`: what this machine has, and what minigen guarantees on it.

(`minigen train --doctor` checks a training run.)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from minigen.backends.memory import gib

from ..display.tables import render, screen, wrapped
from ..parser import Parser

HEAD = ("what", "found")
WIDEST_NOTE = 100  # columns


def add_arguments(parser: Parser) -> None:
    parser.epilog = "To check a training run before it starts, use minigen train --doctor."
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from minigen.benchmark.found import look

    machine = look()
    if args.json:
        print(json.dumps(machine, ensure_ascii=False))
    else:
        show(machine)
    return 1 if "error" in machine["without_flags"] else 0


def show(machine: dict[str, Any]) -> None:
    """Print two tables, of the machine and of the guarantees, and notes."""
    from minigen.backends.promises import HEAD as PROMISES_HEAD
    from minigen.backends.promises import NOTES, PROMISES

    width, terminal = screen()
    print(f"minigen {machine['minigen']}, Python {machine['python']}, {machine['system']}\n")
    print(render(HEAD, list(lines(machine)), width, terminal, left=HEAD))
    rows = []
    for row, promise in zip(machine["promises"], PROMISES, strict=True):
        mark = "*" if row["here"] else ""
        rows.append((mark, *promise.cells()))
    head = ("", *PROMISES_HEAD)
    print(render(head, rows, width, terminal, left=head))
    notes = list(NOTES)
    if any(row["here"] for row in machine["promises"]):
        notes.insert(0, "*: what is used here without flags.")
    for note in notes:
        print(wrapped(note, min(width, WIDEST_NOTE)))


def lines(machine: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The rows of the first table: a name and a value."""
    cores = f"{machine['processors']} processors on {machine['cores']} cores"
    yield "processor", f"{machine['cpu']}, {cores}, {gib(machine['memory_bytes'])}"
    variables = [f"{name}={value}" for name, value in machine["environment"].items()]
    if variables:
        yield "environment", ", ".join(variables)
    for name, facts in machine["frameworks"].items():
        yield from framework_lines(name, facts)
    usual = machine["without_flags"]
    if "error" in usual:
        yield "without flags", usual["error"]
        return
    value = f"{usual['backend']} on {usual['device']}, {usual['dtype']}"
    if usual["threads"] is not None:
        value += f", {usual['threads']} threads"
    yield "without flags", value


def framework_lines(name: str, facts: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """The rows of a framework; `facts` is None if it is not installed."""
    if facts is None:
        yield name, f'not installed: pip install "minigen[{name}]"'
        return
    if "error" in facts:
        yield name, f"{facts['version']}, which cannot be imported: {facts['error']}"
        return
    built = ""
    if facts.get("cuda"):
        built = f", built for CUDA {facts['cuda']}"
    elif "cuda" in facts:
        built = ", built without CUDA"
    yield name, f"{facts['version']}{built}; float32 products in {facts['float32_products']}"
    for gpu in facts["gpus"]:
        value = f"{gpu['device']}: {gpu['name']}, {gib(gpu['memory_bytes'])}"
        if gpu.get("bfloat16"):
            value += ", bfloat16"
        yield "", value
    if facts.get("hint"):
        yield "", facts["hint"]
    if "kernels" in facts:
        yield "", f"CPU kernels: {facts['kernels']}"

"""`minigen doctor`: what this machine has, and what holds on it. (`minigen train --doctor` checks a training.)"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from minigen.backends.memory import gib

from ..display.tables import render, screen, wrapped
from ..parser import Parser


def add_arguments(parser: Parser) -> None:
    parser.epilog = "What is to be trained is checked by minigen train --doctor."
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    from minigen.benchmark.found import look

    found = look()
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        show(found)
    return 1 if "error" in found["without_flags"] else 0


def show(found: dict[str, Any]) -> None:
    from minigen.backends.promises import HEAD, NOTES, PROMISES

    width, terminal = screen()
    rows = list(lines(found))
    head = ("what", "found")
    print(f"minigen {found['minigen']}, Python {found['python']}, {found['system']}\n")
    print(render(head, rows, width, terminal, left=head))
    cells = [
        ("*" if row["here"] else "", *promise.cells()) for row, promise in zip(found["promises"], PROMISES, strict=True)
    ]
    print(render(("", *HEAD), cells, width, terminal, left=("", *HEAD)))
    notes = list(NOTES)
    if any(row["here"] for row in found["promises"]):
        notes.insert(0, "*: what is taken here, where no flag says otherwise.")
    for note in notes:
        print(wrapped(note, min(width, 100)))


def lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What was found, a name and a value a line."""
    cores = f"{found['processors']} processors on {found['cores']} cores"
    yield "processor", f"{found['cpu']}, {cores}, {gib(found['memory_bytes'])}"
    if found["environment"]:
        yield "environment", ", ".join(f"{name}={value}" for name, value in found["environment"].items())
    for name, facts in found["frameworks"].items():
        yield from framework_lines(name, facts)
    usual = found["without_flags"]
    if "error" in usual:
        yield "without flags", usual["error"]
    else:
        threads = "" if usual["threads"] is None else f", {usual['threads']} threads"
        yield "without flags", f"{usual['backend']} on {usual['device']}, {usual['dtype']}{threads}"


def framework_lines(name: str, facts: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if facts is None:
        yield name, f'not installed: pip install "minigen[{name}]"'
        return
    if "error" in facts:
        yield name, f"{facts['version']}, which does not import: {facts['error']}"
        return
    built = ""
    if "cuda" in facts:
        built = f", built for CUDA {facts['cuda']}" if facts["cuda"] else ", built without CUDA"
    yield name, f"{facts['version']}{built}; float32 products in {facts['float32_products']}"
    for gpu in facts["gpus"]:
        also = ", bfloat16" if gpu.get("bfloat16") else ""
        yield "", f"{gpu['device']}: {gpu['name']}, {gib(gpu['memory_bytes'])}{also}"
    if facts.get("hint"):
        yield "", facts["hint"]
    if "kernels" in facts:
        yield "", f"kernels of the CPU: {facts['kernels']}"

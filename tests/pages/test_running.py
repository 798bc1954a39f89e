"""README and the pages tell the truth: their commands and their Python run, in the order of the page.

What a page shows at its real size would take minutes, so every command gets flags that make it small (`SMALL`).
Blocks marked `sh minutes` are parsed here, and run by `pytest -m minutes`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from glob import glob
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.pages.shell import ROOT, TEXTS, Block, Command, blocks, commands

Run = Callable[..., tuple[int, str, str]]
SHAPE = ["--layers", "1", "--heads", "2", "--width", "16", "--context", "32"]
STEPS = [
    "--steps",
    "2",
    "--eval-every",
    "1",
    "--warmup",
    "1",
    "--batch",
    "2",
    "--sample-tokens",
    "2",
]
SMALL = {  # the last one of a flag counts
    "generate": ["-n", "4"],
    "chat": ["-n", "4"],
    "bench": ["-p", "4", "-n", "2", "-r", "1"],
    "train": [*STEPS, *SHAPE, "--tokenizer", "bytes"],
    "prompt": ["--limit", "2"],
}
UNCHANGED = {  # flags with which there is nothing to make smaller
    "train": ("--resume", "--plot"),
    "bench": ("--compare", "--cold"),
    "chat": ("--replay",),
    "generate": (),
    "prompt": ("--check", "--print"),
}
BROUGHT = (
    "--from",
    "--config",
    "--teacher",
    "--tokenizer",
    "--chat",
)  # whoever gives these gives shape or tokenizer
SYNTHETIC = ["--stories", "2", "--chats", "2", "--fewshot", "2"]
EXTRAS = re.compile(r'"?\.\[([\w,]+)\]"?')
LAUNCHERS = {
    "torchrun": ["torchrun", "--nproc-per-node", "2"],
    "mlx.launch": ["mlx.launch", "-n", "2"],
}


def made_small(words: list[str]) -> list[str]:
    """A minigen command with what makes it quick."""
    command = words[1]
    if command not in SMALL or any(flag in words for flag in UNCHANGED[command]):
        return words
    if command == "train":
        brings = any(flag in words for flag in ("--from", "--config"))
        tokenizer = [] if any(flag in words for flag in BROUGHT) else ["--tokenizer", "bytes"]
        return [*words, *STEPS, *([] if brings else SHAPE), *tokenizer]
    return [*words, *SMALL[command]]


def in_place(words: list[str]) -> list[str]:
    """With patterns replaced by the files that they match, and paths of the repository found from anywhere."""
    found = []
    for word in words:
        matches = sorted(glob(word)) if "*" in word else []
        inside = ROOT / word
        is_path = "/" in word and not Path(word).exists() and inside.exists()
        found += matches or [str(inside) if is_path else word]
    return found


def parse(words: list[str]) -> None:
    """Fails where the command is not one of minigen's, or its flags are not."""
    import_module("minigen.cli.main").build_parser(words[1]).parse_args(words[1:])


class Reader:
    """Someone who types what a page says, from top to bottom."""

    def __init__(
        self, run_cli: Run, type_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.run_cli, self.type_in, self.monkeypatch = run_cli, type_in, monkeypatch
        self.names: dict[str, object] = {}

    def follow(self, block: Block) -> None:
        if block.language in ("sh", "console"):
            for command in commands(block):
                self.run(command)
        elif block.language == "python" and block.note:
            self.add_family(block)
        elif block.language == "python":
            code = compile(block.text, block.place, "exec")
            exec(code, self.names)
        elif block.note:
            Path(block.note).write_text(block.text, encoding="utf-8")

    def add_family(self, block: Block) -> None:
        """The module of a new family, as if it were in its folder, with its line in the table."""
        name = Path(block.note).stem
        families = import_module("minigen.families")
        assert name not in families.FAMILIES, f"{name} is a family: work out another one"
        module = types.ModuleType(f"minigen.families.{name}")
        exec(compile(block.text, block.place, "exec"), module.__dict__)
        self.monkeypatch.setitem(sys.modules, module.__name__, module)
        self.monkeypatch.setitem(families.FAMILIES, name, name)

    def run(self, command: Command) -> None:
        words = list(command.words)
        program = words[0]
        if program == "minigen":
            self.minigen(command, in_place(words))
        elif program == "pip":
            check_extras(words, command.place)
        elif program in LAUNCHERS:
            check_launched(words, command.place)
        elif program == "python":
            self.python(command, words)
        else:
            raise AssertionError(f"{command.place}: these tests do not know how to run {program}")

    def minigen(self, command: Command, words: list[str]) -> None:
        parse(words)
        if command.minutes or ("stories260K" in words and not Path("stories260K").exists()):
            return
        if command.output is None:
            words = made_small(words)
        text = Path(command.source).read_text(encoding="utf-8") if command.source else command.typed
        self.type_in("Hello\n" if text is None else text)
        code, out, err = self.run_cli(*words[1:])
        assert code == 0, f"{command.place}: {' '.join(words)}: {err}"
        if command.output is not None:
            assert out == command.output, command.place
        if command.target is not None:
            Path(command.target).write_text(out, encoding="utf-8")

    def python(self, command: Command, words: list[str]) -> None:
        match words[1:]:
            case ["-c", code]:
                exec(code, {})
            case ["-m", "minigen.weights.synthetic", *rest]:
                assert (
                    import_module("minigen.weights.synthetic.__main__").main([*rest, *SYNTHETIC])
                    == 0
                )
            case ["-m", module, *_]:
                assert find_spec(module) is not None, command.place
            case [script, *_]:
                assert (ROOT / script).is_file(), command.place


def of_minutes(name: str) -> list[Command]:
    shell = [block for block in blocks(name) if block.note == "minutes"]
    return [command for block in shell for command in commands(block)]


def check_extras(words: list[str], place: str) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extras in EXTRAS.findall(" ".join(words)):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", text, re.MULTILINE), (
                f"{place}: there is no extra {extra}"
            )


def check_launched(words: list[str], place: str) -> None:
    launcher = LAUNCHERS[words[0]]
    assert words[: len(launcher)] == launcher, place
    rest = words[len(launcher) :]
    assert rest[:1] == ["minigen"] or rest[:2] == ["-m", "minigen"], place
    parse(rest[rest.index("minigen") :])


@pytest.mark.parametrize("name", TEXTS)
def test_page(
    name: str,
    quick: None,
    workplace: Path,
    run_cli: Run,
    type_in: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "adding-a-family":
        for module in ("torch", "mlx", "transformers"):
            pytest.importorskip(module, reason=f"{module} is not installed")
    reader = Reader(run_cli, type_in, monkeypatch)
    for block in blocks(name):
        reader.follow(block)


@pytest.mark.minutes
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "command", [c for name in TEXTS for c in of_minutes(name)], ids=lambda c: c.place
)
def test_what_takes_minutes(
    command: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own, as they are typed, but for how often they repeat it."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    program, *rest = command.words
    if program == "torchrun":
        pytest.importorskip("torch.distributed.run", reason="torch is not installed")
        words = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *rest,
            *STEPS,
            *SHAPE,
            "--tokenizer",
            "bytes",
        ]
    elif program == "mlx.launch":
        if shutil.which(program) is None:
            pytest.skip("mlx.launch is not installed")
        words = [program, *rest, *STEPS, *SHAPE, "--tokenizer", "bytes"]
    else:
        words = [sys.executable, "-m", program, *rest, "-r", "1"]
    reader, writer = os.pipe()  # mlx.launch reads its standard input, and spins at the end of one
    try:
        done = subprocess.run(words, stdin=reader, capture_output=True, text=True)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 0, done.stderr

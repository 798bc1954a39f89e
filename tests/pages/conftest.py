"""A folder in which the commands of README and the pages run, on tiny models and texts."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigen.backends import machine
from minigen.benchmark import run as benchmark
from minigen.benchmark.session import Session

HUB = Path(__file__).parents[1] / "checkpoints" / "hub" / "conftest.py"
_spec = importlib.util.spec_from_file_location("hub_fixtures", HUB)
assert _spec is not None
assert _spec.loader is not None
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
cache, hub = _fixtures.cache, _fixtures.hub

# Matrices that quantize in groups of 64, and room for `bench -d 2048`.
MODEL = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 4096}
STORY = "One day, {name} went to the {place}. {name} saw a big red ball, and played until the sun went down.\n"
STORIES = "<|endoftext|>\n".join(
    STORY.format(name=name, place=place)
    for name in ("Lily", "Tim", "Max", "Anna", "Sue")
    for place in ("park", "beach", "garden", "house", "forest", "school")
)
FEW = "sea otter => loutre de mer\npeppermint => menthe poivrée\n"
TASK = """\
format = 1
examples = [{ input = "2 + 2 =", output = "4" }, { input = "1 + 2 =", output = "3" }]
items = [{ input = "1 + 1 =", output = "2" }]
[generate]
max_tokens = 2
"""
FILES = {
    "task.prompt.toml": TASK,
    "prompt.txt": "Once upon a time",
    "code.txt": "for i in range(10):\n    print(i)\nfor i in range(20):\n    print(",
    "examples.txt": FEW,
    "question.txt": f"{FEW}cheese =>",
    "messages.txt": "Hello\nTell me a story.\n",
    "valid.txt": STORIES,
    "talks.jsonl": "".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"Hello {n}"},
                    {"role": "assistant", "content": "Hi!"},
                ]
            }
        )
        + "\n"
        for n in range(40)
    ),
    **{f"{name}.txt": STORIES for name in ("my_notes", "book", "stories", "letters")},
}


class InProcess(Session):
    """A worker of the benchmark in this process, so that a test need not wait for another."""

    def ask(self, what: str, *args: Any) -> Any:
        return getattr(self, what)(*args)

    def close(self) -> None:
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is spent on measuring the machine."""
    monkeypatch.setattr(benchmark, "Worker", InProcess)
    monkeypatch.setattr(InProcess, "limits", lambda self: (1e10, 1e11))
    monkeypatch.setattr(machine, "measure_peak", lambda ops: 1e9)


@pytest.fixture
def workplace(
    tmp_path: Path, make_model: Callable[..., Path], hub: Any, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder that a reader types in, with everything that the pages name, as the current one."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.move(make_model("llama", **MODEL), folder / "MODEL")
    shutil.move(make_model("llama", seed=1, **MODEL), folder / "SMALLER")
    gpt2 = make_model("gpt2")
    hub.add("openai-community/gpt2", {path.name: path.read_bytes() for path in gpt2.iterdir()})
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    stories = Path(__file__).resolve().parents[2].parent / "shared" / "models" / "stories260K"
    if stories.is_dir():
        (folder / "stories260K").symlink_to(stories)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINIGEN_DATA_CACHE", str(tmp_path / "data"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """type_in(text): what standard input has for the next command."""
    return lambda text: monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()))
    )

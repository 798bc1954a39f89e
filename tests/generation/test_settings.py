"""The types that editors show are those of the tables that decide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from minigen.chat.engine import CHAT_SETTINGS
from minigen.generation import settings
from minigen.generation.options import Options
from minigen.sampling.settings import SETTINGS, Cuts, Penalties, Sampling

ROOT = Path(__file__).resolve().parents[2]


def declared() -> dict[str, Any]:
    """The type of each setting by its flat name, as the dataclasses have it."""
    hints: dict[str, Any] = {}
    for kind in (Options, Sampling, Cuts, Penalties):
        hints |= {
            name: hint for name, hint in get_type_hints(kind).items() if not name.startswith("_")
        }
    return hints


def typed(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def test_sampling_settings() -> None:
    assert typed(settings.SamplingSettings).keys() == set(SETTINGS)


def test_all_settings() -> None:
    own = set(Options.__dataclass_fields__) - {"sampling"}
    assert typed(settings.CompletionSettings).keys() == own | set(SETTINGS)


def test_settings_of_a_chat() -> None:
    assert typed(settings.ChatSettings).keys() == set(CHAT_SETTINGS)


@pytest.mark.parametrize("kind", ["SamplingSettings", "CompletionSettings", "ChatSettings"])
def test_types(kind: str) -> None:
    """`speculate` has one text today, which the checker may know."""
    hints = declared()
    for name, hint in typed(getattr(settings, kind)).items():
        assert name == "speculate" or hint == hints[name], name


def test_a_misspelled_setting_is_a_type_error(tmp_path: Path) -> None:
    path = tmp_path / "use.py"
    path.write_text(
        "import minigen\n"
        "model = minigen.load()\n"
        "model.generate('a', temprature=0.5)\n"
        "model.generate('a', temperature='hot')\n"
        "model.generate_ids([[1]], stop=['a'])\n"
        "minigen.Chat(model, settings={'top_q': 1})\n"
        "reveal_type(model.generate('a', temperature=0.5, seed=1))\n"
        "reveal_type(model.generate(['a'], top_k=3))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(path)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[int, str] = {}
    for line in done.stdout.splitlines():
        if line.startswith(f"{path}:"):
            number, _, message = line.removeprefix(f"{path}:").partition(": ")
            found[int(number)] = f"{found.get(int(number), '')}{message}\n"
    assert 'error: Unexpected keyword argument "temprature"' in found[3], done.stdout
    assert (
        'error: No overload variant of "generate" of "Model" matches argument types "str", "str"'
        in found[4]
    )
    assert 'error: Unexpected keyword argument "stop" for "generate_ids"' in found[5]
    assert 'error: Argument "settings" to "Chat" has incompatible type' in found[6]
    assert 'Revealed type is "str"' in found[7].replace("builtins.", "")
    assert 'Revealed type is "list[str]"' in found[8].replace("builtins.", "")

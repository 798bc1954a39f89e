"""Settings as a TOML file: a user's, and the train.toml that a run saves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigen.errors import UsageError, shown
from minigen.reading import at_home, parse_toml, read_bytes
from minigen.reading.spellings import advice
from minigen.training.config import SETTINGS, SHAPE, Config, checked

MOST_BYTES = 2**20  # of a file of settings


def read_toml(path: Path) -> dict[str, Any]:
    """The settings of a file by name; names of files in it are relative to its folder. Raises UsageError."""
    try:
        content = parse_toml(read_bytes(path, MOST_BYTES, pipes=True).decode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {' '.join(str(error).split())}") from error
    groups = [f.name for f in dataclasses.fields(Config)]
    values: dict[str, Any] = {}
    for group, table in content.items():
        if group not in groups or not isinstance(table, dict):
            raise UsageError(f"{path}: unknown {shown(group)}{home_of(group, groups)}")
        for name, value in table.items():
            if name not in SETTINGS or SETTINGS[name][0] != group:
                raise UsageError(
                    f"{path}: unknown setting {shown(name)} in [{group}]{home_of(name, list(SETTINGS))}"
                )
            values[name] = value
    return {name: checked(name, near(path.parent, name, value)) for name, value in values.items()}


def home_of(name: str, known: Sequence[str]) -> str:
    """Where a name that is not known here belongs, or what it may mean."""
    if name in SETTINGS:
        return f": it belongs in [{SETTINGS[name][0]}]"
    return f": {advice(name, known)}"


def near(folder: Path, name: str, value: Any) -> Any:
    """A name of a file as it is meant in a TOML file of this folder."""
    if name in ("data", "valid_data") and isinstance(value, list):
        return [str(folder / at_home(x)) if isinstance(x, str) and x else x for x in value]
    if (
        name in ("from", "teacher", "tokenizer")
        and isinstance(value, str)
        and value
        and (folder / value).is_dir()
    ):
        return str(folder / value)
    return value


def to_toml(config: Config) -> str:
    """All settings as a file that `read_toml` takes; what `--from` brings is left out, and what a teacher would need.

    A setting of a teacher is an error where there is none."""
    lines: list[str] = []
    values = config.values()
    for group in (f.name for f in dataclasses.fields(Config)):
        if group == "teacher" and not values["teacher"]:
            continue
        lines += [f"[{group}]"]
        for name, (own, _) in SETTINGS.items():
            if own == group and not (values["from"] and name in SHAPE):
                lines.append(f"{name} = {toml_value(values[name])}")
        lines.append("")
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):  # JSON's escapes are TOML's too, but for DEL, which must be one
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return repr(value)

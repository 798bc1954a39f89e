"""Settings as TOML: files of users, and the train.toml that a run saves."""

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
    """The settings of a file by name. Paths in it are relative to its folder. Raises UsageError."""
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
            raise UsageError(f"{path}: unknown {shown(group)}{hint_for(group, groups)}")
        for name, value in table.items():
            if name not in SETTINGS or SETTINGS[name][0] != group:
                hint = hint_for(name, list(SETTINGS))
                raise UsageError(f"{path}: unknown setting {shown(name)} in [{group}]{hint}")
            values[name] = checked(name, relative_to(path.parent, name, value))
    return values


def hint_for(name: str, known: Sequence[str]) -> str:
    """Where an unknown name belongs, or what it may have been meant to be."""
    if name in SETTINGS:
        return f": it belongs in [{SETTINGS[name][0]}]"
    return f": {advice(name, known)}"


def relative_to(folder: Path, name: str, value: Any) -> Any:
    """The value of a setting in a TOML file of this folder; paths are taken relative to it."""
    if name in ("data", "valid_data") and isinstance(value, list):
        paths = list(value)
        for i, path in enumerate(paths):
            if isinstance(path, str) and path:
                paths[i] = str(folder / at_home(path))
        return paths
    if name in ("from", "teacher", "tokenizer") and isinstance(value, str) and value:
        path = folder / value
        if path.is_dir():
            return str(path)
    return value


def to_toml(config: Config) -> str:
    """All settings as a file that `read_toml` accepts.

    Left out is what comes with `--from`, and the settings of a teacher if there is none, with which
    they would be an error.
    """
    values = config.values()
    lines: list[str] = []
    for field in dataclasses.fields(Config):
        if field.name == "teacher" and not values["teacher"]:
            continue
        lines.append(f"[{field.name}]")
        for name, (group, _) in SETTINGS.items():
            comes_with_model = values["from"] and name in SHAPE
            if group == field.name and not comes_with_model:
                lines.append(f"{name} = {toml_value(values[name])}")
        lines.append("")
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):  # as JSON, except that TOML requires an escape for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return repr(value)

"""The line of every key, against documents whose lines are known because they were written here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from minigen.evaluation.fewshot.lines import Key, key_lines

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8) | st.sampled_from(
    ["#", "[x]", "a = 1", '"', "'", "\\", "]", "}", ",", "=", '"""']
)
NAMES = st.sampled_from(["a", "b-1", "c_d", "3", "e.f", "g h", 'i"j', "=", "[k]"])
SCALARS = st.integers() | st.booleans() | TEXTS | st.sampled_from([1.5, -2e9])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(
    NAMES,
    VALUES
    | st.lists(st.dictionaries(NAMES, VALUES, min_size=1, max_size=2), min_size=1, max_size=3),
    max_size=5,
)


def quote(text: str, flag: bool = False) -> str:
    if flag and "'" not in text and text.isprintable():
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


class Writer:
    """Writes values as TOML in one of several styles, and notes the line of each key as it goes."""

    def __init__(self, choose: Callable[[], bool]) -> None:
        self.text, self.lines, self.choose = "", dict[Key, int](), choose

    def put(self, text: str) -> None:
        self.text += text

    def mark(self, path: Key) -> None:
        self.lines[path] = self.text.count("\n") + 1

    def name(self, name: str) -> str:
        bare = name.replace("-", "").replace("_", "").isalnum() and self.choose()
        return name if bare else quote(name, self.choose())

    def value(self, path: Key, value: Any) -> None:
        if isinstance(value, bool):
            self.put(str(value).lower())
        elif isinstance(value, str):
            self.put(
                f'"""\n{quote(value)[1:-1]}\n"""' if self.choose() else quote(value, self.choose())
            )
        elif isinstance(value, list):
            self.put("[ # a ] in a comment\n" if self.choose() else "[")
            for index, entry in enumerate(value):
                self.mark((*path, index))
                self.value((*path, index), entry)
                self.put(",\n  " if self.choose() else ", ")
            self.put("]")
        elif isinstance(value, dict):
            self.put("{ ")
            for index, (name, entry) in enumerate(value.items()):
                self.put(", " if index else "")
                self.pair((*path, name), entry)
            self.put(" }")
        else:
            self.put(repr(value))

    def pair(self, path: Key, value: Any) -> None:
        self.mark(path)
        self.put(self.name(str(path[-1])) + (" = " if self.choose() else "="))
        self.value(path, value)

    def document(self, values: dict[str, Any]) -> None:
        tables = {name: v for name, v in values.items() if is_tables(v) and self.choose()}
        for name, value in values.items():
            if name not in tables:
                self.put("\n# name = 1\n" if self.choose() else "")
                self.pair((name,), value)
                self.put("  # end\n" if self.choose() else "\n")
        for name, table in tables.items():
            for index, entries in enumerate(table):
                self.mark((name, index))
                self.lines.setdefault((name,), self.lines[name, index])
                self.put(f"[[ {self.name(name)} ]]\n")
                for key, value in entries.items():
                    self.pair((name, index, key), value)
                    self.put("\n\n")


def is_tables(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)
    )


@given(DOCUMENTS, st.randoms(use_true_random=False))
def test_every_key_has_its_line(values: dict[str, Any], random: Any) -> None:
    writer = Writer(lambda: random.random() < 0.5)
    writer.document(values)
    tomllib.loads(writer.text)  # what is written is TOML
    assert dict(key_lines(writer.text)) == writer.lines


def test_headers_and_dotted_keys() -> None:
    text = """\
a.b = 1
"c d".'e' = '''
[not.a.header]
'''
when = 1979-05-27 07:32:00
[t.u]
x = \"\"\"a\\\"\"\"\"\"
[[t.v]]
x = 1
[t.v.w]
y = 2
[[t.v]]
[t.v.w]
y = 3"""
    tomllib.loads(text)
    lines = key_lines(text)
    assert {key: lines[key] for key in [("a", "b"), ("c d", "e"), ("when",), ("t", "u", "x")]} == {
        ("a", "b"): 1,
        ("c d", "e"): 2,
        ("when",): 5,
        ("t", "u", "x"): 7,
    }
    assert lines["t", "v", 0, "x"] == 9
    assert lines["t", "v", 0, "w", "y"] == 11
    assert lines["t", "v", 1] == 12
    assert lines["t", "v", 1, "w", "y"] == 14
    assert key_lines("") == {}

"""What a chat template may call: the methods, filters and tests that real templates use, each with its price.

What is not in these tables is refused by its name.
"""

from __future__ import annotations

from minigen.chat.prices import (
    Price,
    arithmetic,
    as_json,
    braces,
    cased,
    filter_format,
    found,
    free,
    indented,
    join_method,
    joined,
    listed,
    looked,
    quoted,
    replaced,
    rounded,
    same,
    sorted_,
    split,
    split_lines,
    stripped,
    summed,
)

METHODS: dict[type, dict[str, Price]] = {
    str: {
        **dict.fromkeys(("capitalize", "casefold", "lower", "swapcase", "title", "upper"), cased),
        **dict.fromkeys(("strip", "lstrip", "rstrip"), stripped),
        **dict.fromkeys(("partition", "rpartition", "removeprefix", "removesuffix"), same),
        **dict.fromkeys(
            ("count", "find", "index", "rfind", "rindex", "startswith", "endswith"), looked
        ),
        **dict.fromkeys(
            ("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier"), looked
        ),
        **dict.fromkeys(
            ("islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper"), looked
        ),
        **dict.fromkeys(("split", "rsplit"), split),
        "splitlines": split_lines,
        "replace": replaced,
        "join": join_method,
        "format": braces,
    },
    dict: {**dict.fromkeys(("items", "keys", "values"), free), "get": found, "copy": listed},
    list: {"count": looked, "index": looked, "copy": listed},
    tuple: {"count": looked, "index": looked},
}
FILTERS: dict[str, Price] = {
    **dict.fromkeys(("count", "d", "default", "first", "last", "length"), free),
    **dict.fromkeys(("abs", "float", "int"), looked),
    **dict.fromkeys(("capitalize", "lower", "title", "upper"), cased),
    **dict.fromkeys(("e", "escape"), quoted),
    **dict.fromkeys(("safe", "string"), same),
    **dict.fromkeys(
        ("items", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr"), listed
    ),
    **dict.fromkeys(("dictsort", "max", "min", "sort", "unique"), sorted_),
    "format": filter_format,
    "indent": indented,
    "join": joined,
    "replace": replaced,
    "round": rounded,
    "sum": summed,
    "tojson": as_json,
    "trim": stripped,
}
TESTS: dict[str, Price] = {
    **dict.fromkeys(
        ("boolean", "callable", "defined", "escaped", "false", "float", "integer", "iterable"), free
    ),
    **dict.fromkeys(
        ("mapping", "none", "number", "sameas", "sequence", "string", "true", "undefined"), free
    ),
    **dict.fromkeys(("filter", "test"), looked),
    **dict.fromkeys(("lower", "upper"), cased),
    **dict.fromkeys(
        ("in", "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", ">=", "ge"), looked
    ),
    **dict.fromkeys(("<", "lt", "lessthan", "<=", "le"), looked),
    "even": lambda value: arithmetic("%", value, 2),
    "odd": lambda value: arithmetic("%", value, 2),
    "divisibleby": lambda value, number: arithmetic("%", value, number),
}

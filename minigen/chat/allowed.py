"""What a chat template may call: the methods, filters and tests that real templates use.

Each has its price. Whatever is not in these tables is refused by name.
"""

from __future__ import annotations

from minigen.chat.arithmetic import divided, rounded
from minigen.chat.prices import (
    Price,
    brace_formatted,
    case_changed,
    compared,
    copied,
    free,
    indented,
    join_method,
    joined,
    json_written,
    keyed,
    passed_through,
    percent_filter,
    quoted,
    replaced,
    sorted_,
    split_lines,
    split_up,
    stripped,
    summed,
)

METHODS: dict[type, dict[str, Price]] = {
    str: {
        **dict.fromkeys(
            ("capitalize", "casefold", "lower", "swapcase", "title", "upper"), case_changed
        ),
        **dict.fromkeys(("strip", "lstrip", "rstrip"), stripped),
        **dict.fromkeys(
            ("partition", "rpartition", "removeprefix", "removesuffix"), passed_through
        ),
        **dict.fromkeys(
            ("count", "find", "index", "rfind", "rindex", "startswith", "endswith"), compared
        ),
        **dict.fromkeys(
            ("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier"), compared
        ),
        **dict.fromkeys(
            ("islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper"), compared
        ),
        **dict.fromkeys(("split", "rsplit"), split_up),
        "splitlines": split_lines,
        "replace": replaced,
        "join": join_method,
        "format": brace_formatted,
    },
    dict: {**dict.fromkeys(("items", "keys", "values"), free), "get": keyed, "copy": copied},
    list: {"count": compared, "index": compared, "copy": copied},
    tuple: {"count": compared, "index": compared},
}
FILTERS: dict[str, Price] = {
    **dict.fromkeys(("count", "d", "default", "first", "last", "length"), free),
    **dict.fromkeys(("abs", "float", "int"), compared),
    **dict.fromkeys(("capitalize", "lower", "title", "upper"), case_changed),
    **dict.fromkeys(("e", "escape"), quoted),
    **dict.fromkeys(("safe", "string"), passed_through),
    **dict.fromkeys(
        ("items", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr"), copied
    ),
    **dict.fromkeys(("dictsort", "max", "min", "sort", "unique"), sorted_),
    "format": percent_filter,
    "indent": indented,
    "join": joined,
    "replace": replaced,
    "round": rounded,
    "sum": summed,
    "tojson": json_written,
    "trim": stripped,
}
TESTS: dict[str, Price] = {
    **dict.fromkeys(
        ("boolean", "callable", "defined", "escaped", "false", "float", "integer", "iterable"), free
    ),
    **dict.fromkeys(
        ("mapping", "none", "number", "sameas", "sequence", "string", "true", "undefined"), free
    ),
    **dict.fromkeys(("filter", "test"), compared),
    **dict.fromkeys(("lower", "upper"), case_changed),
    **dict.fromkeys(
        ("in", "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", ">=", "ge"), compared
    ),
    **dict.fromkeys(("<", "lt", "lessthan", "<=", "le"), compared),
    **dict.fromkeys(("even", "odd", "divisibleby"), divided),
}

"""A hostile template is stopped by a count of what it does, whatever it does it with, and the limit is named."""

from __future__ import annotations

import signal
import threading

import pytest

from minigen.chat import budget
from minigen.chat.template import ChatTemplate
from minigen.errors import ChatError

HI = [{"role": "user", "content": "Hi"}]
NS = "{% set ns = namespace(x=[], y=[], t=(), s='aaaaaaaaaa') %}"
NESTED = (
    NS
    + "{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
)
TUPLES = NS + "{% for i in range(60) %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}"
MANY = "{% for i in range(99999) %}"
STEPS, BYTES, WIDE = "takes more than", "makes more than", "formats to more than 1000 columns"
INDENT, DEEP = "indents by more than 100 columns", "reads lists that are nested more than 100 deep"
TOO_MUCH = {
    # loops and recursion
    "three ranges": (f"{MANY}{MANY}{MANY}" + "{% endfor %}" * 3, STEPS),
    "a filtered range": (f"{MANY}{{% for j in range(99999) if j is string %}}x{{% endfor %}}{{% endfor %}}", STEPS),
    "broken off": (f"{MANY}{MANY}{{% break %}}{{% endfor %}}{{% endfor %}}", STEPS),
    "macros": ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}", STEPS),
    "many blocks": ("{% block a %}{% endblock %}" + f"{MANY}{MANY}{{{{ self.a() }}}}" + "{% endfor %}" * 2, ""),
    "a recursive loop": ("{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "RecursionError"),
    "a list in a loop": (f"{MANY}{{% set x = [{'1, ' * 999}] %}}{{% endfor %}}", STEPS),
    "earning": (f"{{{{ [-10**9] | map(' pay') | list }}}}{MANY}{MANY}" + "{% endfor %}" * 2, STEPS),
    "filters in a loop": (f"{MANY}{{% set x = range(99999) | map('string') | join %}}{{% endfor %}}", ""),
    "sums of lists": ("{{ [[1] * 999] * 9999 | sum(start=[]) }}", ""),
    "searched ranges": (f"{MANY}{{{{ [] in range(99999) }}}}{{% endfor %}}", STEPS),
    "searched ranges, a test": (f"{MANY}{{{{ [] is in range(99999) }}}}{{% endfor %}}", STEPS),
    "a searched loop": (f"{MANY}{MANY}{{{{ [] in loop }}}}" + "{% endfor %}" * 2, "its loop"),
    "a joined loop": (f"{MANY}{MANY}{{{{ loop | join }}}}" + "{% endfor %}" * 2, "its loop"),
    "a joined loop, a method": (f"{MANY}{MANY}{{{{ ''.join(loop) }}}}" + "{% endfor %}" * 2, "its loop"),
    "a loop as a dict": (f"{MANY}{MANY}{{{{ dict(loop) }}}}" + "{% endfor %}" * 2, "its loop"),
    # texts
    "output": (f"{MANY}{{{{ 'x' * 99999 }}}}{{% endfor %}}", BYTES),
    "output of its own": (f"{MANY}{'x' * 9999}{{% endfor %}}", STEPS),
    "doubling": (NS + "{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", BYTES),
    "adding": (NS + "{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", BYTES),
    "a block that doubles": (
        NS + "{% for i in range(60) %}{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}{% endfor %}", BYTES,
    ),
    "a macro that doubles": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% else %}xxxxxxxx{% endif %}{% endmacro %}{{ f(60) }}", "",
    ),
    "replace": ("{{ ('a' * 99999) | replace('a', 'b' * 9999) }}", BYTES),
    "replace, nothing": ("{{ ('a' * 99999).replace('', 'b' * 9999) }}", BYTES),
    "join": ("{{ range(999) | join('x' * 99999) }}", BYTES),
    "join, letters": ("{{ ('a' * 9999) | join('x' * 9999) }}", BYTES),
    "join, a method": ("{{ ('x' * 99999).join(range(99999) | map('string')) }}", BYTES),
    "indent": ("{{ 'x' | indent(3000000000, true) }}", INDENT),
    "indent, a text": ("{{ ('a\n' * 9999) | indent('x' * 9999) }}", INDENT),
    "tojson": ("{{ [1] | tojson(indent=3000000000) }}", INDENT),
    "tojson, separators": ("{{ range(9999) | list | tojson(separators=('x' * 9999, ':')) }}", INDENT),
    "percent": ("{{ '%1000000000d' % 1 }}", WIDE),
    "percent, star": ("{{ '%*d' % (10**9, 1) }}", WIDE),
    "percent, precision": ("{{ '%.1000000000f' % 1.5 }}", WIDE),
    "percent, keys": ("{{ '%(a(b)c)1000000000d' % {'a(b)c': 1} }}", "formats with a key that has parentheses"),
    "percent, hidden": ("{{ '%l%%1000000000d' % (1, 2) }}", WIDE),
    "percent, a test": ("{{ '%1000000000d' is odd }}", WIDE),
    "percent, by name": ("{{ ['%1000000000d'] | select('odd') | list }}", WIDE),
    "percent, a filter": ("{{ '%1000000000d' | format(1) }}", WIDE),
    "percent, many": ("{{ ('%s' * 9999) % ((('x' * 9999),) * 9999) }}", BYTES),
    "format": ("{{ '{:2000000000}'.format(1) }}", WIDE),
    "format, nested": ("{{ '{:{}}'.format(1, 10**9) }}", WIDE),
    "format, many": ("{{ ('{0}' * 9999).format('x' * 99999) }}", BYTES),
    "the date": ("{{ strftime_now('%999999999d') }}", "formats the date in more than 100 characters, or with a width"),
    "strip": ("{{ ('a' * 999999).strip('b' * 999999) }}", "strips more than 100 characters"),
    "trim": ("{{ ('a' * 999999) | trim('b' * 999999) }}", "strips more than 100 characters"),
    "split": (f"{MANY}{{% set x = ('a ' * 99999).split() %}}{{% endfor %}}", BYTES),
    "slices": (f"{{% set a = 'a' * 999999 %}}{MANY}{{% set b = a[::-1] %}}{{% endfor %}}", BYTES),
    "searches": (f"{{% set a = 'a' * 999999 %}}{MANY}{{% if 'b' in a %}}{{% endif %}}{{% endfor %}}", STEPS),
    "searches, a method": (f"{{% set a = 'a' * 999999 %}}{MANY}{{% set b = a.find('b') %}}{{% endfor %}}", STEPS),
    "comparisons": (f"{{% set a = 'a' * 999999 %}}{{% set b = a[:] %}}{MANY}{{{{ a == b }}}}{{% endfor %}}", STEPS),
    "escapes": ("{{ ('\"' * 999999) | e }}", BYTES),
    "letters of three": ("{{ ('ΐ' * 999999) | upper }}", BYTES),
    # lists in lists, and each of them twice
    "nested, shown": (NESTED + "{{ ns.x }}", STEPS),
    "nested, a text": (NESTED + "{% set s = ns.x ~ '' %}", STEPS),
    "nested, refusing": (NESTED + "{{ raise_exception(ns.x) }}", STEPS),
    "nested, a format": (NESTED + "{{ ns.x | format(1) }}", STEPS),
    "nested, json": (NESTED + "{{ ns.x | tojson }}", STEPS),
    "nested, percent": (NESTED + "{{ '%s' % [ns.x] }}", STEPS),
    "nested, compared": (NESTED + "{{ ns.x == ns.y }}", STEPS),
    "nested, searched": (NESTED + "{{ ns.x in [ns.y] }}", STEPS),
    "nested, selected": (NESTED + "{{ [ns.x] | select('equalto', ns.y) | list }}", STEPS),
    "nested, sorted": (NESTED + "{{ [ns.x, ns.y] | sort }}", STEPS),
    "nested, changed": (NESTED + "{% for i in [0, 1] %}{{ loop.changed([ns.x, ns.y][i]) }}{% endfor %}", STEPS),
    "nested, a key": (TUPLES + "{{ {ns.t: 1} | length }}", STEPS),
    "nested, a subscript": (TUPLES + "{{ {}[ns.t] }}", STEPS),
    "nested, a lookup": (TUPLES + "{{ {}.get(ns.t) }}", STEPS),
    "nested, unique": (TUPLES + "{{ [ns.t] | unique | list }}", STEPS),
    "nested, namespaces": (
        NS + "{% for i in range(60) %}{% set ns.x = namespace(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x }}", STEPS,
    ),
    "deep": (NS + "{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", DEEP),
    # numbers
    "squares": (NS + "{% set ns.s = 10 %}{% for i in range(60) %}{% set ns.s = ns.s * ns.s %}{% endfor %}", ""),
    "powers": (f"{MANY}{{% set x = 7**300000 %}}{{% endfor %}}", STEPS),
    "divisions": ("{{ (7**600000) // (7**300000) }}", STEPS),
    "digits": ("{{ 7**300000 }}", STEPS),
    "round": ("{{ 1.5 | round(1000000000, 'ceil') }}", "rounds to more than 100 digits"),
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same limits, lower, so that they are met sooner."""
    monkeypatch.setattr(budget, "STEPS", 50_000)
    monkeypatch.setattr(budget, "BYTES", 4 << 20)


def refusal(source: str) -> str:
    with pytest.raises(ChatError) as caught:
        ChatTemplate(source, where="f.jinja").render(HI, generate=True)
    message = str(caught.value)
    assert message.startswith("the chat template (f.jinja) ")
    assert "\n" not in message
    return message


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_a_template_may_use(name: str) -> None:
    source, limit = TOO_MUCH[name]
    assert limit in refusal(source)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("{{ 'x'.center(3000000000) }}", "'center' of 'str'"),
        ("{{ 'x'.zfill(3000000000) }}", "'zfill' of 'str'"),
        ("{{ '\t'.expandtabs(3000000000) }}", "'expandtabs' of 'str'"),
        ("{{ 'x'.translate({}) }}", "'translate' of 'str'"),
        ("{{ 'x'.encode() }}", "'encode' of 'str'"),
        ("{{ '{x}'.format_map({'x': 1}) }}", "'format_map' of 'str'"),
        ("{{ (1).to_bytes(3000000000, 'big') }}", "'to_bytes' of 'int'"),
        ("{{ (['x'] | map(attribute='center') | first)(9) }}", "'center' of 'str'"),
        ("{{ 'x' | center(3000000000) }}", "the filter 'center'"),
        ("{{ [1] | batch(2000000000, 'x') | list }}", "the filter 'batch'"),
        ("{{ [1] | slice(2000000000) | list }}", "the filter 'slice'"),
        ("{{ ('a.' * 200000) | urlize }}", "the filter 'urlize'"),
        ("{{ ('<' * 300000) | striptags }}", "the filter 'striptags'"),
        ("{{ 'a ' | wordwrap(1) }}", "the filter 'wordwrap'"),
        ("{{ ['x'] | map('center', 10**9) | list }}", "the filter 'center'"),
        ("{{ lipsum(n=100000) }}", "'lipsum'"),
    ],
)
def test_what_is_refused_by_its_name(source: str, name: str) -> None:
    assert name in refusal(source)


@pytest.mark.parametrize("name", ["map('string')", "reverse", "select"])
def test_generators_are_not_stacked(name: str) -> None:
    """Taken apart, thousands of them within each other end the process."""
    loop = f"{{% for i in range(30000) %}}{{% set ns.x = ns.x | {name} %}}{{% endfor %}}"
    text = ChatTemplate("{% set ns = namespace(x=[1]) %}" + loop + "{{ ns.x | list }}").render(
        HI, generate=False
    )
    assert text in ("[1]", "['1']")


def test_a_long_program() -> None:
    with pytest.raises(ChatError) as caught:
        ChatTemplate("x" * 200_000, where="f.jinja")
    assert (
        str(caught.value)
        == "the chat template (f.jinja) has more than 131,072 characters: it is refused"
    )


def test_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "OUTPUT", 1000)
    assert refusal("{{ 'x' * 9999 }}").endswith(" characters: it is stopped")


@pytest.mark.usefixtures("small")
def test_limits_grow_with_the_conversation() -> None:
    """A long conversation is no reason to stop a template that does little with each message of it."""
    source = (
        "{% for m in messages %}{{ '<' + m.role + '>' + m.content | trim | replace('x', 'yy') + "
        "'\n' }}{% endfor %}"
    )
    messages = [{"role": ("user", "assistant")[i % 2], "content": "x" * 2000} for i in range(1000)]
    text = ChatTemplate(source).render(messages, generate=False)
    assert len(text) > 4_000_000
    long = [{"role": "user", "content": "some words " * 200_000}]
    assert (
        len(
            ChatTemplate("{{ messages[0].content.split() | join(' ') }}").render(
                long, generate=False
            )
        )
        > 2_000_000
    )


def test_ctrl_c_ends_a_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "STEPS", 10**9)  # would take minutes
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            ChatTemplate(f"{MANY}{MANY}" + "{% endfor %}" * 2).render(HI, generate=False)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)

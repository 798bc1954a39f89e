"""Chat templates: rendered as transformers renders them, found in every kind of file, and safe against hostile ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from minigen.chat import today
from minigen.chat.template import ChatTemplate, find_template
from minigen.errors import ChatError

Messages = Sequence[Mapping[str, Any]]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
HI = [{"role": "user", "content": "Hi"}]


def said(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def ours(template: ChatTemplate, messages: Messages, generate: bool) -> str | None:
    """None for a refusal."""
    try:
        return template.render(messages, generate=generate)
    except ChatError:
        return None


@pytest.fixture(scope="module")
def peer() -> Callable[..., Any]:
    """peer(source, tokens)(messages, generate): what transformers makes of it; None where it raises."""
    transformers = pytest.importorskip("transformers")
    from jinja2 import TemplateError
    from tokenizers import Tokenizer, models

    def make(source: str, special: Mapping[str, str]) -> Callable[[Messages, bool], str | None]:
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.BPE()), **special
        )

        def render(messages: Messages, generate: bool) -> str | None:
            try:
                return tokenizer.apply_chat_template(  # type: ignore[no-any-return]
                    messages, chat_template=source, tokenize=False, add_generation_prompt=generate
                )
            except (TemplateError, TypeError, ValueError, OverflowError):
                return None

        return render

    return make


def test_importing_it_is_light() -> None:
    names = "jinja2 torch mlx transformers tokenizers tiktoken numpy"
    code = f"import sys, minigen.chat.template; print([n for n in '{names}'.split() if n in sys.modules])"
    here = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here
    )
    assert result.stdout.strip() == "[]"


# -- the templates of real models, against transformers --
COUNTS = {  # cases refused: of the odd ones; without control tokens, of the even and of the odd ones
    "alpaca": (8, 20, 16),
    "amberchat": (8, 18, 16),
    "chatml": (8, 0, 8),
    "chatqa": (10, 20, 16),
    "falcon-instruct": (12, 0, 12),
    "gemma-it": (12, 0, 12),
    "granite-3.0-instruct": (4, 0, 4),
    "llama-2-chat": (12, 20, 14),
    "llama-3-instruct": (8, 0, 8),
    "mistral-instruct": (8, 20, 16),
    "openchat-3.5": (12, 18, 16),
    "phi-3": (8, 0, 8),
    "phi-3-small": (8, 0, 8),
    "qwen2.5-instruct": (4, 0, 4),
    "saiga": (8, 20, 16),
    "solar-instruct": (8, 0, 8),
    "vicuna": (8, 20, 16),
    "zephyr": (8, 18, 16),
}
SPACES = "  \n\tfirst line  \r\n\r\n    second line\n\n\n"
UNICODE = "naïve 東京 🙂👩‍👩‍👧 שלום \u00a0\u2003\u2028x\x85 \x00 \ufeff <b>&amp;'\"</b> {{ 1 }} {% x %} \\n </s>"
EVEN = {
    "user": said(("user", "Hi")),
    "three": said(("user", "Hi"), ("assistant", "Hello!"), ("user", "Why?")),
    "answered": said(("user", "Hi"), ("assistant", "Hello!")),
    "system": said(("system", "Be brief."), ("user", "Hi")),
    "system, four": said(
        ("system", "B"), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")
    ),
    "spaces": said(("system", SPACES), ("user", SPACES), ("assistant", SPACES), ("user", SPACES)),
    "unicode": said(
        ("system", UNICODE), ("user", UNICODE), ("assistant", UNICODE), ("user", UNICODE)
    ),
    "empty texts": said(("system", ""), ("user", ""), ("assistant", ""), ("user", "")),
    "more keys": [
        {"role": "user", "content": "Hi", "name": "Al", "tool_calls": None, "n": [1, {"a": 2.5}]}
    ],
}
ODD = {
    "two users": said(("user", "Hi"), ("user", "Hello?")),
    "assistant first": said(("assistant", "Hi"), ("user", "Hello")),
    "late system": said(("user", "Hi"), ("system", "Be brief.")),
    "two systems": said(("system", "1"), ("system", "2"), ("user", "Hi")),
    "system alone": said(("system", "Be brief.")),
    "another role": said(("tool", "42"), ("user", "Hi")),
    "no content": [{"role": "user", "content": None}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
}


def test_the_collection_is_complete(shared: Path) -> None:
    folder = shared / "tokenizers" / "chat_templates"
    assert {path.stem for path in folder.glob("*.jinja")} == set(COUNTS)
    named = [json.loads(path.read_text())["chat_template"] for path in folder.glob("*.json")]
    assert len(named) == 19
    assert {Path(name).stem for name in named} == set(COUNTS) - {
        "falcon-instruct",
        "qwen2.5-instruct",
    }


@pytest.mark.parametrize("compact", [False, True], ids=["as it is", "compact"])
@pytest.mark.parametrize("name", COUNTS)
def test_real_templates(name: str, compact: bool, shared: Path, peer: Callable[..., Any]) -> None:
    folder = shared / "tokenizers" / "chat_templates"
    source = (folder / f"{name}.jinja").read_text()
    if compact:
        source = source.replace("    ", "").replace("\n", "")
    about = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    prompts = {
        a["system_prompt"]
        for a in about
        if a["system_prompt"] and Path(a["chat_template"]).stem == name
    }
    own = [
        said(("system", prompt), ("user", SPACES), ("assistant", "Yes"), ("user", "東"))
        for prompt in prompts
    ]
    refused = []
    for tokens in (TOKENS, {}):
        template, expected = ChatTemplate(source, tokens), peer(source, tokens)
        for group in ([*own, *EVEN.values()], ODD.values()):
            texts = [
                (ours(template, m, g), expected(m, g), m, g) for m in group for g in (False, True)
            ]
            for text, true, messages, generate in texts:
                assert text == true, (messages, generate, tokens)
            assert len(texts) == 2 * len(group)
            refused.append(sum(text is None for text, *_ in texts))
    assert refused == [0, *COUNTS[name]]


# -- one feature at a time, against transformers too where it has the same --
FEATURES = [
    ("lines", "{% if true %}\n    {% set x = 1 %}\n  a\n    {%- if x %} b {% endif -%}\n  c\n{% endif %}\nd\n",
     "  a b c\nd"),
    ("break", "{% for i in [0, 1, 2, 3] %}{% if i == 1 %}{% continue %}{% elif i > 2 %}{% break %}{% endif %}{{ i }}"
     "{% endfor %}", "02"),
    ("tojson", """{{ {'b': '<é東🙂>&"', 'a': [1, none]} | tojson }}""", r'{"b": "<é東🙂>&\"", "a": [1, null]}'),
    ("tojson, indent", "{{ {'b': 1, 'a': ['é']} | tojson(indent=2) }}", '{\n  "b": 1,\n  "a": [\n    "é"\n  ]\n}'),
    ("tojson, all", "{{ {'b': 1, 'a': 'é'} | tojson(true, none, (',', ':'), true) }}", '{"a":"\\u00e9","b":1}'),
    ("tojson, message", "{{ messages | tojson }}", '[{"role": "user", "content": "Hi"}]'),
    ("generation", "a{% generation %}{% set x = 1 %}b{{ x }}{% endgeneration %}c{{ x is defined }}", "ab1cFalse"),
    ("generation, loop", "{% for m in messages %}{% set x = 0 %}{% generation %}{{ loop.index }}{{ x }}{{ m.role }}"
     "{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}{% endfor %}", "10user10"),
    ("generation, -", "a {%- generation -%} {{ messages[0].content }} {%- endgeneration -%} c", "aHic"),
    ("namespace", "{% set n = namespace(x=1) %}{% for m in messages %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}",
     "2"),
    ("private", "{% set n = namespace(_x=1) %}", None),
    ("private, set", "{% set n = namespace() %}{% set n.__x__ = 1 %}", None),
    ("dict", "{{ dict([('a', 1)], b=2) }}{{ dict.fromkeys('ab', 0) }}{{ dict.items is defined }}",
     "{'a': 1, 'b': 2}{'a': 0, 'b': 0}False"),
    ("macro", "{% macro f(x, y='!') %}{{ x }}{{ y }}{% endmacro %}{{ f('a') }}{{ f('b', y='?') }}", "a!b?"),
    ("trim", "[{{ messages[0]['content'] | trim }}]{{ messages[-1].role | capitalize }}", "[Hi]User"),
    ("autoescape", "{{ '<b>' }}{{ '<' | e }}", "<b>&lt;"),
    ("missing", "[{{ nothing }}]{% if nothing %}x{% endif %}{{ messages[0].name }}{{ nothing is defined }}", "[]False"),
    ("missing, within", "{{ nothing.more }}", None),
    ("missing, added", "{{ nothing + 'x' }}", None),
    ("tools", "{{ tools is none }}{{ documents is none }}{{ tools is defined }}{% for t in tools or [] %}x{% endfor %}",
     "TrueTrueTrue"),
    ("tools, listed", "{% for t in tools %}{{ t }}{% endfor %}", None),
    ("prompt", "{{ add_generation_prompt }}", "True"),
    ("tokens", "{{ bos_token }}{{ eos_token }}[{{ pad_token }}]{{ unk_token is defined }}", "<s></s>[]False"),
    ("refused", "{{ raise_exception('no') }}", None),
    ("range", "{% for i in range(10**9) %}{% endfor %}", None),
    ("power", "{{ 2 ** 10 }}{{ 'ab' * 2 }}{{ 2 * [1] }}{{ 2 ** -1 }}{{ 1.5 * 2 }}", "1024abab[1, 1]0.53.0"),
    ("long", "{{ ('ab' * 3000000) | length }}{{ (2 ** 4000000) % 7 }}", "60000002"),
    ("newline", "a\r\nb\rc\n\n", "a\nb\nc\n"),
    ("pieces", "{% set t = 'a</think>b</think>\n c ' %}{{ t.split('</think>')[-1].lstrip('\n') }}"
     "{{ t.rsplit('a', 1) | length }}{{ t.startswith('a') and not t.endswith('a') }}{{ t.rstrip() ~ 1 ~ none }}"
     "{{ t.find('b') ~ t.partition('b')[2] }}{{ t.replace('b', 'x', 1) }}{{ 'a\nb'.splitlines() }}{{ t.count('b') }}"
     "{{ '-'.join(['a', 'b']) }}{{ 'aB'.title() }}{{ t.removeprefix('a') }}{{ 'ab'.upper().lower().capitalize() }}",
     " c 2Truea</think>b</think>\n c1None9</think>\n c a</think>x</think>\n c ['a', 'b']1"
     "a-bAb</think>b</think>\n c Ab"),
    ("formats", "{{ '%s: %5.1f%%' % ('a', 2.25) }}{{ '%(x)s' % {'x': 1} }}{{ '%d-%s' | format(1, 'b') }}"
     "{{ '{:>4}|{a!r:.3}|{0[0]}'.format([7][0] ~ '', a='abc') }}", "a:   2.2%11-b   7|'ab|7"),
    ("lists", "{% set l = [3, 1, 2] %}{{ l[::-1] }}{{ l[1:] + [4] }}{{ l | sort | join(',') }}{{ l | first }}"
     "{{ l | last }}{{ l | map('string') | list }}{{ l | select('odd') | list }}{{ l | sum }}{{ l | min }}"
     "{{ l | reverse | list }}{{ l | unique | list | length }}{{ 1 in l }}{{ l == [3, 1, 2] }}{{ l is not mapping }}",
     "[2, 1, 3][1, 2, 4]1,2,332['3', '1', '2'][3, 1]61[2, 1, 3]3TrueTrueTrue"),
    ("dicts", "{% set d = {'b': 1, 'a': [1]} %}{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}{{ d | dictsort }}"
     "{{ d.get('c', 5) }}{{ d | items | list | length }}{{ 'a' in d }}{{ d.keys() | list }}{{ d['b'] }}",
     "b1a[1][('a', [1]), ('b', 1)]52True['b', 'a']1"),
    ("messages", "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}"
     "{{ messages | rejectattr('role', 'in', ['user']) | list }}{% for m in messages if m.role == 'user' %}"
     "{{ loop.first }}{{ loop.last }}{{ loop.index0 }}{{ loop.previtem is defined }}{{ loop.length }}{% endfor %}",
     "['Hi'][]TrueTrue0False1"),
    ("macro, again", "{% macro f(x, n=0) %}{% if x is mapping %}{% for k in x %}{{ f(x[k], n + 1) }}{% endfor %}"
     "{% else %}{{ ('  ' * n ~ x) | indent(2, true) }}{% endif %}{% endmacro %}{{ f({'a': {'b': 1}, 'c': 2}) }}"
     "{% filter upper %}a{% endfilter %}{% set z %}b{{ 1 }}{% endset %}{{ z }}", "      1    2Ab1"),
    ("loops", "{% for i in [[1, [2]], [3]] recursive %}{{ i if i is number else '(' ~ loop(i) ~ ')' }}{% endfor %}"
     "{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{{ loop.cycle('a', 'b') }}{% endfor %}"
     "{% for i in [] %}{% else %}none{% endfor %}{% with x = 1 %}{{ x }}{% endwith %}",
     "(1(2))(3)TrueaFalsebTrueanone1"),
    ("escaped texts", "{{ ('<a> ' | e).strip().split(';')[0] }}{{ ('<' | safe).replace('<', 'x') }}"
     "{{ '%s' | e % '<' }}", "&ltx&lt;"),
    ("loop, given", "{% macro f(l) %}{{ l.index }}{% endmacro %}{% for i in 'ab' %}{{ f(loop) }}{{ loop is defined }}"
     "{{ 'a' in (messages | map(attribute='role')) }}{% endfor %}", "1TrueFalse2TrueFalse"),
    ("numbers", "{{ 7 // 2 }}{{ 7 % 2 }}{{ -7 | abs }}{{ '12' | int + 1 }}{{ 2.567 | round(2) }}{{ 7 / 2 }}",
     "317132.573.5"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "text"), [pytest.param(*rest, id=name) for name, *rest in FEATURES]
)
def test_features(source: str, text: str | None, peer: Callable[..., Any]) -> None:
    assert ours(ChatTemplate(source, TOKENS), HI, True) == text
    assert peer(source, TOKENS)(HI, True) == text


def test_the_date(monkeypatch: pytest.MonkeyPatch, peer: Callable[..., Any]) -> None:
    source = "{{ strftime_now('%Y') }}{{ strftime_now(format='-%d %b %H:%M') }}"
    assert peer("{{ strftime_now('%Y')[:2] }}{{ strftime_now(format='')}}", {})(HI, False) == "20"

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            assert tz is None  # local time
            return datetime(2031, 2, 3, 4, 5)

    monkeypatch.setattr(today, "datetime", Clock)
    assert ChatTemplate(source).render(HI, generate=False) == "2031-03 Feb 04:05"


class Role(str, Enum):
    USER = "user"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "x", "thinking": "hm"},
        {"role": "assistant", "reasoning": "hm", "content": "x"},
        {"reasoning_content": "a", "thinking": "b", "role": "assistant"},
        {"role": Role.USER, "content": None, "n": {Role.USER: [(1, True), 2.5, None]}},
    ],
)
def test_what_a_template_sees_of_a_message(
    message: dict[str, Any], peer: Callable[..., Any]
) -> None:
    source, copy = "{{ messages }}{{ messages | tojson }}", dict(message)
    text = ChatTemplate(source).render([message], generate=False)
    assert text == peer(source, {})([message], False)
    assert message == copy


# -- where a template is found --
def write(folder: Path, **files: Any) -> Path:
    """Files by name, "__" for "."; a text as it is, anything else as JSON."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


LISTED = [{"name": "rag", "template": "R"}, {"name": "default", "template": "D{{ bos_token }}"}]


@pytest.mark.parametrize(
    ("files", "where", "source"),
    [
        ({"chat_template__jinja": "é\n"}, "chat_template.jinja", "é\n"),
        ({"chat_template__json": {"chat_template": "J"}}, "chat_template.json", "J"),
        (
            {"chat_template__json": {"chat_template": LISTED}},
            "chat_template.json",
            LISTED[1]["template"],
        ),
        ({"tokenizer_config__json": {"chat_template": "T"}}, "tokenizer_config.json", "T"),
        (
            {"tokenizer_config__json": {"chat_template": LISTED}},
            "tokenizer_config.json",
            LISTED[1]["template"],
        ),
    ],
)
def test_each_kind_of_file(tmp_path: Path, files: dict[str, Any], where: str, source: str) -> None:
    template = find_template(write(tmp_path, **files))
    assert template is not None
    assert (template.source, template.where) == (source, str(tmp_path / where))


def test_the_order_of_the_files(tmp_path: Path) -> None:
    seen = []
    for files in (
        {"tokenizer_config__json": {"chat_template": "T{{ bos_token }}", "bos_token": "<s>"}},
        {"chat_template__json": {"chat_template": "J{{ bos_token }}"}},
        {"chat_template__jinja": "F{{ bos_token }}"},
    ):
        template = find_template(write(tmp_path, **files))
        seen.append(template and template.render(HI, generate=False))
    assert seen == ["T<s>", "J<s>", "F<s>"]


def test_a_folder_without_one(tmp_path: Path) -> None:
    assert find_template(tmp_path) is None
    assert find_template(tmp_path / "nowhere") is None
    assert (
        find_template(
            write(tmp_path, tokenizer_config__json={"chat_template": None, "bos_token": "x"})
        )
        is None
    )


OBJECT = {
    "content": "<s>",
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "single_word": False,
}
KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
WITH = {
    "added_tokens_decoder": {"0": {**OBJECT, "special": True}}
}  # its presence makes the map a second source


@pytest.mark.parametrize(
    ("config", "token_map", "special"),
    [
        ({}, {}, {}),
        (
            {f"{kind}_token": f"<{kind}>" for kind in KINDS},
            {},
            {f"{kind}_token": f"<{kind}>" for kind in KINDS},
        ),
        ({}, {"bos_token": OBJECT, "eos_token": "</s>"}, TOKENS),
        ({"bos_token": {**OBJECT, "__type": "AddedToken"}, "eos_token": "</s>"}, {}, TOKENS),
        (
            {"x_token": "x", "add_bos_token": True},
            {"y_token": OBJECT},
            {"x_token": "x", "y_token": "<s>"},
        ),
        ({"extra_special_tokens": {"image": "<img>"}}, {}, {"image": "<img>"}),
        (
            {"bos_token": "<s>", "pad_token": None},
            {"eos_token": "</s>", "extra_special_tokens": ["<x>"]},
            TOKENS,
        ),
        ({"bos_token": "<s>", "eos_token": "<e>"}, {"eos_token": "</s>"}, TOKENS),
        ({"bos_token": "<s>", "eos_token": None}, {"eos_token": "</s>"}, TOKENS),
        (WITH | {"bos_token": "<s>", "eos_token": "</s>"}, {"eos_token": "<e>"}, TOKENS),
        (
            WITH | {"bos_token": "<s>", "eos_token": None},
            {"eos_token": "</s>"},
            {"bos_token": "<s>"},
        ),
        ({"bos_token": ""}, {}, {"bos_token": ""}),
    ],
)
def test_the_control_tokens_are_those_of_transformers(
    tmp_path: Path, config: dict[str, Any], token_map: dict[str, Any], special: dict[str, str]
) -> None:
    transformers = pytest.importorskip("transformers")
    source = "".join(f"[{{{{ {kind}_token }}}}]" for kind in (*KINDS, "x")) + "{{ image }}"
    spec = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    write(
        tmp_path, chat_template__jinja=source, tokenizer_config__json=config, tokenizer__json=spec
    )
    if token_map:
        write(tmp_path, special_tokens_map__json=token_map)
    template = find_template(tmp_path)
    assert template is not None
    assert template.special == special
    true = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert true.special_tokens_map == special
    assert true.apply_chat_template(HI, tokenize=False) == template.render(HI, generate=False)


def test_a_token_that_only_the_map_names(tmp_path: Path) -> None:
    """Where transformers has a default of the tokenizer's class, or none."""
    write(
        tmp_path,
        chat_template__jinja="x",
        tokenizer_config__json=WITH,
        special_tokens_map__json=TOKENS,
    )
    template = find_template(tmp_path)
    assert template is not None
    assert template.special == TOKENS


def message_of(act: Callable[[], object]) -> str:
    with pytest.raises(ChatError) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    return text


NAMED = "a list of named templates"
ENTRY = "an entry of chat_template needs a name and a template"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "chat_template.jinja",
            "",
            "the chat template is empty: write one, or remove it to do without",
        ),
        (
            "chat_template.jinja",
            " \n",
            "the chat template is empty: write one, or remove it to do without",
        ),
        ("chat_template.jinja", b"\xff", "not UTF-8: byte 0xFF at 0"),
        (
            "chat_template.json",
            "{",
            "not valid JSON: Expecting property name enclosed in double quotes at line 1 column 2",
        ),
        ("chat_template.json", [], "must be a JSON object, not list"),
        ("chat_template.json", {}, "it has no chat_template: give one, or remove the file"),
        (
            "chat_template.json",
            {"chat_template": 5},
            f"chat_template must be a text or {NAMED}, not int",
        ),
        ("tokenizer_config.json", "nonsense", "not valid JSON: Expecting value at line 1 column 1"),
        (
            "tokenizer_config.json",
            {"chat_template": 5},
            f"chat_template must be a text or {NAMED}, not int",
        ),
        (
            "tokenizer_config.json",
            {"chat_template": {}},
            f"chat_template must be a text or {NAMED}, not dict",
        ),
        (
            "tokenizer_config.json",
            {"chat_template": ""},
            "the chat template is empty: write one, or remove it to do without",
        ),
        (
            "tokenizer_config.json",
            {"chat_template": [{"name": "default"}]},
            f"{ENTRY}: {{'name': 'default'}}",
        ),
        (
            "tokenizer_config.json",
            {"chat_template": [{"name": 1, "template": ""}]},
            f"{ENTRY}: {{'name': 1, 'template': ''}}",
        ),
        ("tokenizer_config.json", {"chat_template": ["x"]}, f"{ENTRY}: 'x'"),
        (
            "tokenizer_config.json",
            {
                "chat_template": [
                    {"name": "tool\nuse", "template": "x"},
                    {"name": "rag", "template": "y"},
                ]
            },
            "no chat template is named 'default', there are 'rag', 'tool\\nuse': rename the one to use",
        ),
        (
            "tokenizer_config.json",
            {"chat_template": []},
            "no chat template is named 'default', there are none at all: rename the one to use",
        ),
        (
            "tokenizer_config.json",
            {"chat_template": "x", "bos_token": 5},
            "bos_token must be a string or an object with a content, not 5",
        ),
        (
            "tokenizer_config.json",
            {"chat_template": "x", "extra_special_tokens": {"image": 1}},
            "image must be a string or an object with a content, not 1",
        ),
        (
            "tokenizer_config.json",
            {"chat_template": "x", "eos_token": {"id": 2}},
            "eos_token must be a string or an object with a content, not {'id': 2}",
        ),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: Any, message: str) -> None:
    text = content if isinstance(content, bytes | str) else json.dumps(content)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message_of(lambda: find_template(tmp_path)) == f"{tmp_path / name}: {message}"


# -- templates that are broken, refuse, or mean harm --
FAILS = "the chat template (f.jinja) fails: "


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "a\nb {{ x",
            "is not valid: line 2: unexpected end of template, expected 'end of print statement'.",
        ),
        ("\n\n{% nothing %}", "is not valid: line 3: Encountered unknown tag 'nothing'."),
        ("{{ 1 | nothing }}", "is not valid: line 1: No filter named 'nothing'."),
        ("{% break %}", "cannot be compiled: SyntaxError: 'break' outside loop"),
        (
            "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
            "cannot be compiled: RecursionError: maximum recursion depth exceeded",
        ),
    ],
)
def test_what_is_no_template(source: str, message: str) -> None:
    text = message_of(lambda: ChatTemplate(source, where="f.jinja"))
    assert text.startswith(
        f"the chat template (f.jinja) {message}"
    )  # a version of Python may say where it stood


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "{{ ''.__class__.__mro__ }}",
            "access to attribute '__class__' of 'str' object is unsafe.",
        ),
        (
            "{{ cycler.__init__.__globals__ }}",
            "access to attribute '__init__' of 'type' object is unsafe.",
        ),
        (
            "{{ '{0.__class__.__mro__}'.format(1) }}",
            "access to attribute '__class__' of 'int' object is unsafe.",
        ),
        ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe."),
        ("{% include '/etc/passwd' %}", "TypeError: no loader for this environment specified"),
        (
            "{% for i in range(10**9) %}{% endfor %}",
            "OverflowError: Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).",
        ),
        ("{{ 'x' * 10**9 }}", "OverflowError: the result of * would be too large"),
        ("{{ 10**9 * [1] }}", "OverflowError: the result of * would be too large"),
        ("{{ (9**9)**(9**9) }}", "OverflowError: the result of ** would be too large"),
        (
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "RecursionError: maximum recursion depth exceeded",
        ),
        ("{{ messages[1].content }}", "list object has no element 1"),
        ("{{ none + 'x' }}", "TypeError: unsupported operand type(s) for +: 'NoneType' and 'str'"),
        ("{{ nothing | tojson }}", "TypeError: Object of type Undefined is not JSON serializable"),
        ("{{ '%(a)s' % {} }}", "KeyError: 'a'"),
        (
            "{% set n = namespace(_x=1) %}",
            "a namespace of a chat template may not have the name '_x'",
        ),
        (
            "{{ {}['a\n\x1b[2J' + 'x' * 900].b }}",
            f"'dict object' has no attribute 'a\\n\\x1b[2J{'x' * 257}…",
        ),
    ],
)
def test_what_fails(source: str, reason: str) -> None:
    template = ChatTemplate(source, where="f.jinja")
    text = message_of(lambda: template.render(HI, generate=True))
    assert text.startswith(FAILS + reason)
    assert (
        len(text) - len(FAILS + reason) < 40
    )  # a version of Python may say where its recursion stood


REFUSES = "the chat template refuses this conversation: "
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No  system\n role\x1b!') "
    "}}{% endif %}"
)
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ "
    "raise_exception('Turns') }}"
)
END = "{% endif %}{% endfor %}"
LEADS = "{% if messages[0].role == 'system' %}{% set messages = messages[1:] %}{% endif %}"
LONG = "{% if messages|length > 1 %}{{ raise_exception('Long') }}{% endif %}"
NO_TOOLS = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('Turns') }}{% endif %}{% endfor %}"
TWO = "(it wants user and assistant to alternate)"


@pytest.mark.parametrize(
    ("source", "messages", "message"),
    [
        ("{{ raise_exception('never') }}", HI, "never"),
        (
            "{{ raise_exception('never') }}",
            said(("system", "x"), ("user", "y"), ("user", "z")),
            "never",
        ),
        ("{{ raise_exception('') }}", HI, "it gives no reason"),
        ("{{ raise_exception(messages[0].role) }}", HI, "user"),
        (
            NO_SYSTEM + "{% endfor %}",
            said(("system", "x"), ("user", "y")),
            "No system role\\x1b! (it takes no system message: drop it)",
        ),
        (NO_SYSTEM + "{% endfor %}", said(("system", "x")), "No system role\\x1b!"),
        (ALTERNATES + END, said(("user", "x"), ("user", "y")), f"Turns {TWO}"),
        (
            ALTERNATES + END,
            said(("user", "x"), ("assistant", "y"), ("assistant", "z")),
            f"Turns {TWO}",
        ),
        (
            "{{ messages[0].role + '' }}" + ALTERNATES + END,
            said(("assistant", "x")),
            f"Turns {TWO}",
        ),
        (
            LEADS + ALTERNATES + END,
            said(("system", "x"), ("user", "y"), ("user", "z")),
            f"Turns {TWO}",
        ),
        (
            LEADS + ALTERNATES + END,
            said(("system", "x"), ("system", "y"), ("user", "z")),
            f"Turns {TWO}",
        ),
        (
            LEADS + ALTERNATES + END,
            said(("user", "x"), ("assistant", "y"), ("system", "z")),
            f"Turns {TWO}",
        ),
        (LONG, said(("user", "x"), ("assistant", "y")), "Long"),
        (NO_TOOLS, said(("user", "x"), ("assistant", "y"), ("tool", "z")), f"Turns {TWO}"),
    ],
)
def test_what_is_refused(source: str, messages: Messages, message: str) -> None:
    assert (
        message_of(lambda: ChatTemplate(source).render(messages, generate=True))
        == REFUSES + message
    )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "a chat template cannot render an empty conversation: give at least one message"),
        (["Hi"], "a message must be a mapping with a role and a content, not str"),
        (
            [{"role": "user", "content": [{"image": object()}]}],
            "a message holds an object of type object: give text, numbers, lists or mappings",
        ),
    ],
)
def test_what_is_no_conversation(messages: Any, message: str) -> None:
    assert message_of(lambda: ChatTemplate("x").render(messages, generate=True)) == message

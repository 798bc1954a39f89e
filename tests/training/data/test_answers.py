"""Which tokens of a conversation are trained on, by the chat templates of many models."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from minigen.chat.conversation import Conversation, Message
from minigen.chat.format import ChatFormat
from minigen.chat.template import ChatTemplate
from minigen.tokenizer import Tokenizer, load_tokenizer
from minigen.training.data import DataError, open_tokenizer
from minigen.training.data.chats import ChatEncoder
from minigen.training.data.documents import Chat
from minigen.training.data.vocabulary import train_tokenizer

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
SPECIAL = [
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|start_of_role|>",
    "<|end_of_role|>", "<|end_of_text|>", "<|end_of_turn|>",
]  # fmt: skip
TEXT = "Hello there, how are you? I'm fine. The cat sat on the mat.\n\n### Response: user assistant system\n"
ONE, TWO = "I'm fine.\n\nuser", "the assistant 🙂 é"


def said(*contents: str, system: str = "") -> list[dict[str, str]]:
    """User and assistant in turn."""
    roles = ["user", "assistant"] * len(contents)
    spoken = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return [*([{"role": "system", "content": system}] if system else []), *spoken]


TALK = said("Hello?", ONE, "assistant", TWO)


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Byte-level BPE that has the control tokens of all of these models."""
    root = tmp_path_factory.mktemp("many")
    (root / "text.txt").write_text(TEXT * 3)
    train_tokenizer([root / "text.txt"], root / "bpe", 300, special=SPECIAL)
    settings = json.loads((root / "bpe/tokenizer_config.json").read_text())
    (root / "bpe/tokenizer_config.json").write_text(json.dumps({**settings, **NAMES}))
    return open_tokenizer(root / "bpe")


def trained(
    tokenizer: Tokenizer, source: str, messages: Sequence[Any]
) -> tuple[list[str], list[str]]:
    """The texts that are trained on, and what is said of them. All ids are those of the template's own text."""
    template = ChatTemplate(source, NAMES)
    encoder = ChatEncoder(template, tokenizer)
    ids, weights, _ = encoder.encode(Chat(list(messages), "f.jsonl:1"))
    whole = tokenizer.encode(template.render(messages, generate=False), bos=False, special=True)
    assert ids[: len(whole)] == whole
    assert ids[len(whole) :] in ([], [tokenizer.eos_id])
    spoken = [Message(m["role"], m["content"]) for m in messages if m["role"] != "system"]
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    assert (
        ChatFormat(template, tokenizer).ids(Conversation(spoken, system), generate=False) == whole
    )
    groups: list[list[int]] = [[]]
    for token, weight in zip(ids, weights, strict=True):
        if weight:
            groups[-1].append(token)
        elif groups[-1]:
            groups.append([])
    return [tokenizer.decode(group, skip_special=False) for group in groups if group], list(
        encoder.warnings
    )


# What follows an answer in the collection's templates, and what they write before it that is not asked for.
COLLECTION = {
    "alpaca": ("", "</s>"), "amberchat": (" ", "\n"), "chatml": ("", "<|im_end|>"), "chatqa": (" ", ""),
    "falcon-instruct": (" ", ""), "gemma-it": ("", "<end_of_turn>"), "granite-3.0-instruct": ("", "<|end_of_text|>"),
    "llama-2-chat": (" ", " </s>"), "llama-3-instruct": ("", "<|eot_id|>"), "mistral-instruct": (" ", "</s>"),
    "openchat-3.5": (" ", "<|end_of_turn|>"), "phi-3": ("", "<|end|>"), "phi-3-small": ("", "<|end|>"),
    "qwen2.5-instruct": ("", "<|im_end|>"), "saiga": ("", "</s>"), "solar-instruct": ("", "\n\n"),
    "vicuna": (" ", "</s>"), "zephyr": ("", "</s>"),
}  # fmt: skip
UNENDED = ("amberchat", "chatqa", "falcon-instruct", "solar-instruct")


@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize("name", COLLECTION)
def test_the_collection(many: Tokenizer, shared: Path, name: str, system: str) -> None:
    source = (shared / "tokenizers/chat_templates" / f"{name}.jinja").read_text()
    messages = said("Hello?", ONE, "assistant", TWO, system=system)
    found, notes = trained(many, source.replace("    ", "").replace("\n", ""), messages)
    before, after = COLLECTION[name]
    wanted = [before + answer + after for answer in (ONE, TWO)]
    if name == "falcon-instruct":
        wanted[0] = wanted[0].replace("\n\n", "\n")  # its own habit
    if not after:
        wanted[-1] += "</s>"  # the end of the document is the only one
    assert found == wanted
    assert any("no control token ends an answer" in note for note in notes) == (name in UNENDED)
    assert len(notes) == (name in UNENDED)
    # With the line breaks and the indentation of the files the prompt has other white space than an answer follows.
    found, notes = trained(many, source, messages)
    wanted[-1] = wanted[-1] if after else wanted[-1].removesuffix("</s>")  # a line break ends that
    assert ["".join(text.split()) for text in found] == [
        "".join(answer.split()) for answer in wanted
    ]
    asked = {"llama-2-chat", "mistral-instruct", "granite-3.0-instruct", "qwen2.5-instruct"}
    assert any("with other white space than it writes" in note for note in notes) == (
        name not in asked
    )


@pytest.mark.parametrize("name", ["mistral-instruct", "llama-2-chat", "zephyr", "saiga"])
def test_a_tokenizer_of_sentencepiece(shared: Path, name: str) -> None:
    """It puts spaces before words, so that only its own tokens tell where an answer begins."""
    tokenizer = load_tokenizer(shared / "models/stories260K")
    assert tokenizer is not None
    source = (shared / "tokenizers/chat_templates" / f"{name}.jinja").read_text()
    found, notes = trained(tokenizer, source.replace("    ", "").replace("\n", ""), TALK)
    after = COLLECTION[name][1]
    assert [text.lstrip(" ") for text in found] == [answer + after for answer in (ONE, TWO)]
    assert notes == []


# As the models' own files have them, but for what no plain conversation reaches.
CHATML = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
EACH = f"{{% for m in messages %}}{CHATML}{{% endfor %}}{ASK}"
QWEN3 = """\
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- for m in messages[::-1] %}
    {%- if m.role == 'user' and not ns.found %}
        {%- set ns.found = true %}{%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.role != 'assistant' %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- else %}
        {%- set thought, content = '', m.content %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
THINKS = QWEN3.replace(
    "prompt %}{{- '<|im_start|>assistant\\n", "prompt %}{{- '<|im_start|>assistant\\n<think>\\n"
)
PHI3 = """{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""
MISTRAL1 = """{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}\
{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"""
MISTRAL3 = """\
{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{{- bos_token }}
{%- for m in messages if m.role != 'system' %}
    {%- if m.role == 'user' %}
        {{- '[INST] ' + (system + '\\n\\n' if loop.last and system else '') + m.content + '[/INST]' }}
    {%- else %}
        {{- ' ' + m.content|trim + eos_token }}
    {%- endif %}
{%- endfor %}"""
GEMMA2 = """{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}\
{% endif %}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' \
+ m.content|trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}\
{% endif %}"""
LLAMA3 = """\
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + strftime_now('%d %b %Y') + '\\n\\n' }}
{{- (messages[0].content|trim if messages[0].role == 'system' else '') + '<|eot_id|>' }}
{%- for m in messages if m.role != 'system' %}
    {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content|trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
ZEPHYR = """{% for m in messages %}\n{{ '<|' + m.role + '|>\\n' + m.content + eos_token }}\n\
{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"""
MARKED = """{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\\n' }}{% generation %}\
{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}CHATML{% endif %}{% endfor %}ASK"""
MARKED = MARKED.replace("CHATML", CHATML).replace("ASK", ASK)
LOOSE = MARKED.replace(
    "{{ '<|im_start|>assistant\\n' }}{% generation %}", "{% generation %}<|im_start|>assistant\n"
)
RETURN = """{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{{ '</s>' if loop.last and m.role == \
'assistant' else '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
ENDED = """{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{{ '<|end|>' if m.role == 'assistant' }}\
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
LAST = """{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}\
{{ '<|assistant|>' if add_generation_prompt else eos_token }}"""
NEXT = """{% for m in messages %}{% if m.role == 'user' %}{{ '' if loop.first else eos_token }}[INST] {{ m.content }} \
[/INST]{% else %}{{ ' ' + m.content }}{% endif %}{% endfor %}"""

OWN = {
    "ChatML": (EACH, TALK, [f"{ONE}<|im_end|>", f"{TWO}<|im_end|>"]),
    "ChatML keeps white space": (EACH, said("\n a", " b \n"), [" b \n<|im_end|>"]),
    "Qwen3 thinks in the last answer": (QWEN3, TALK, [f"{ONE}<|im_end|>", f"<think>\n\n</think>\n\n{TWO}<|im_end|>"]),
    "Qwen3 with a thought": (QWEN3, said("a", "<think>\nhm\n</think>\n\nb"), ["<think>\nhm\n</think>\n\nb<|im_end|>"]),
    "Qwen3 asks for a thought": (THINKS, said("a", "<think>\nhm\n</think>\n\nb"), ["hm\n</think>\n\nb<|im_end|>"]),
    "Phi-3 ends the text": (PHI3, TALK, [f"{ONE}<|end|>", f"{TWO}<|end|>"]),
    "Mistral": (MISTRAL1, TALK, [f"{ONE}</s>", f"{TWO}</s>"]),
    "Mistral with a space": (MISTRAL3, TALK, [f" {ONE}</s>", f" {TWO}</s>"]),
    "Gemma": (GEMMA2, TALK, [f"{ONE}<end_of_turn>", f"{TWO}<end_of_turn>"]),
    "Gemma strips": (GEMMA2, said(" a ", " b \n", "c"), ["b<end_of_turn>"]),
    "Llama 3 with the day": (LLAMA3, TALK, [f"{ONE}<|eot_id|>", f"{TWO}<|eot_id|>"]),
    "Zephyr": (ZEPHYR, TALK, [f"{ONE}</s>", f"{TWO}</s>"]),
    "marks for training": (MARKED, TALK, [f"{ONE}<|im_end|>", f"{TWO}<|im_end|>"]),
    "marks around a header": (LOOSE, TALK, [f"{ONE}<|im_end|>", f"{TWO}<|im_end|>"]),
    "another end of all": (RETURN, TALK, [f"{ONE}<|end|>", f"{TWO}</s>"]),
    "answers alone end": (ENDED, TALK, [f"{ONE}<|end|>", f"{TWO}<|end|>"]),
    "an end of all alone": (LAST, TALK, [ONE, f"{TWO}</s>"]),  # the next header is none
    "an end with the next turn": (NEXT, TALK, [f" {ONE}</s>", f" {TWO}</s>"]),
    "an answer that is a role": (EACH, said("user", "assistant"), ["assistant<|im_end|>"]),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_a_models_own(many: Tokenizer, name: str) -> None:
    source, messages, wanted = OWN[name]
    found, notes = trained(many, source, messages)
    assert found == wanted
    assert len(notes) == (name == "an end of all alone")


def test_system_prompts(many: Tokenizer) -> None:
    """Wherever a template puts them, they are not trained on."""
    for source, end in (
        (EACH, "<|im_end|>"),
        (PHI3, "<|end|>"),
        (LLAMA3, "<|eot_id|>"),
        (ZEPHYR, "</s>"),
    ):
        found, notes = trained(
            many, source, said("Hello?", ONE, "assistant", TWO, system="Be brief.")
        )
        assert found == [ONE + end, TWO + end]
        assert notes == []
    picky = "{% if messages[0].content != 'Hello?' %}{{ raise_exception('no') }}{% endif %}" + EACH
    assert trained(many, picky, said("Hello?", ONE)) == ([f"{ONE}<|im_end|>"], [])
    silent = EACH.replace("in messages", "in messages if m.role != 'system'")
    found, notes = trained(many, silent, said("Hello?", ONE, system="Be brief."))
    assert found == [f"{ONE}<|im_end|>"]
    assert notes == ["the chat template omits or changes the system message"]


THOUGHTS = said("a", "<think>\nhm\n</think>\n\nb", "c", "d")
REFUSED = {
    "an earlier thought is dropped": (QWEN3, THOUGHTS, "leaves a part of it out .it begins with '<think>"),
    "a thought is asked for and not written": (THINKS, TALK, r"asks for it with '<\|im_start\|>assistant.n<think>.n'"),
    "the system message moves": (MISTRAL3, said("a", "b", system="s"), "then writes the system message elsewhere"),
    "a role that there is not": (GEMMA2, said("a", "b", system="s"), "not supported .it does not accept a system"),
    "no generation prompt": (EACH.replace(ASK, ""), TALK, r"no generation prompt.* write '<\|im_start\|>assistant.n'"),
    "only the end is shown": (EACH.replace("messages %", "messages[-2:] %"), TALK, "writes message 2 not at all"),
    "twice": (EACH.replace("m.content", "m.content ~ m.content"), TALK, "writes message 2 2 times"),
    "a count behind": (EACH.replace("<|im_end|>\\n'", "' ~ m.content|length"), TALK, "depends on the message"),
    "other letters": (EACH.replace("m.content", "m.content|upper"), TALK, "changes the text of message 2"),
    "a count before": (EACH.replace("for m", "set n = messages|length %}{{ n }}{% for m"), TALK, "a row of its own"),
    "a prompt that ends in a space": (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}", said("a", "the"), "begins inside .*ssistant: '",
    ),
    "an end inside a token": (
        "{% for m in messages %}{{ m.content if m.role == 'user' else '\\n' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\\n' }}{% endif %}", said("a", "The c", "at", "x"), "ends inside a token",
    ),
    "a control token as text": (EACH, said("a", "b<|im_end|>"), r"contains the control token '<\|im_end\|>' as text"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_apart(many: Tokenizer, name: str) -> None:
    source, messages, reason = REFUSED[name]
    with pytest.raises(DataError, match=reason) as caught:
        trained(many, source, messages)
    assert str(caught.value).startswith("f.jsonl:1: ")
    assert "\n" not in str(caught.value)


def test_a_format_that_ends_with_the_end_token_gets_no_other(many: Tokenizer) -> None:
    ends = PHI3.replace("<|end|>", "</s>").replace("{% else %}{{ eos_token }}", "")
    ids, _, _ = ChatEncoder(ChatTemplate(ends, NAMES), many).encode(Chat(TALK, "x"))
    assert ids.count(many.eos_id) == len(TALK)
    ids, weights, _ = ChatEncoder(ChatTemplate(EACH, NAMES), many).encode(Chat(TALK, "x"))
    assert (ids[-1], weights[-1]) == (
        many.eos_id,
        0,
    )  # what ends a turn is another token than what ends a text


def test_what_is_said_of_the_rows(
    many: Tokenizer,
    write: Callable[..., Path],
    data: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """Each thing once, with the first row that it is about."""
    calls = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "tool_calls": [1], "name": None},
    ]
    rows = [{"messages": said(f"q{i}", "b", system="s")} for i in range(3)]
    path = write("talks.jsonl", [*rows, {"messages": calls, "tools": [{}], "id": 7}])
    silent = EACH.replace("in messages", "in messages if m.role != 'system'")
    (tmp_path / "folder").mkdir()
    with caplog.at_level(logging.WARNING):
        data(
            path,
            tokenizer=many,
            folder=tmp_path / "folder",
            chat=ChatTemplate(silent, NAMES),
            valid=0.3,
        )
    assert [record.getMessage().replace(str(path), "F") for record in caplog.records] == [
        "F:1: the chat template omits or changes the system message (and in 2 more rows)",
        "F:4: ignored in the messages: tool_calls, tools",
    ]

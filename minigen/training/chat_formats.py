"""Chat formats to train with: the model's own, or a common one that is saved with the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from minigen.chat.template import ChatTemplate, find_template
from minigen.chat.today import on_day
from minigen.errors import ChatError, UsageError
from minigen.training.config import Config
from minigen.training.data import find_files
from minigen.training.data.documents import is_rows

log = logging.getLogger("minigen.training")


@dataclass(frozen=True)
class ChatFormat:
    """A template, and the control tokens that it writes."""

    template: ChatTemplate
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class RunTemplate:
    """The chat template of a run. If it uses the date, a resumed run gives it the same one."""

    template: ChatTemplate
    day: date | None = None

    @property
    def source(self) -> str:
        if self.day is None:
            return self.template.source
        return f"{self.template.source}\n{self.day}"

    @property
    def special(self) -> Mapping[str, str]:
        return self.template.special

    def render(self, messages: Sequence[Mapping[str, Any]], *, generate: bool) -> str:
        with on_day(self.day):
            return self.template.render(messages, generate=generate)


def make_format(head: str, end: str, tokens: tuple[str, ...]) -> ChatFormat:
    """A format that writes each message as `head` with its role, the content, and `end`."""
    before, after = head.split("{role}")
    message = [
        literal(before),
        "message['role']",
        literal(after),
        "message['content']",
        literal(end),
    ]
    prompt = literal(head.format(role="assistant"))
    source = (
        "{% for message in messages %}{{ "
        + " + ".join(message)
        + " }}{% endfor %}{% if add_generation_prompt %}{{ "
        + prompt
        + " }}{% endif %}"
    )
    return ChatFormat(ChatTemplate(source), tokens)


def literal(text: str) -> str:
    """A text as a string of Jinja."""
    return "'" + text.replace("\n", "\\n") + "'"


FORMATS = {
    "phi3": ("<|{role}|>\n", "<|end|>\n", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "chatml": ("<|im_start|>{role}\n", "<|im_end|>\n", ("<|im_start|>", "<|im_end|>")),
}


def chat_format(name: str) -> ChatFormat | None:
    """The format of this name; None for an empty one. Raises UsageError for an unknown name."""
    if not name:
        return None
    if name not in FORMATS:
        raise UsageError(f"unknown chat format {name!r}: choose {', '.join(FORMATS)}")
    return make_format(*FORMATS[name])


def run_template(config: Config, folder: Path) -> tuple[Config, RunTemplate | None]:
    """The template by which the conversations of a run are written, and the settings with its date.

    It is the format of the settings, or else the template in `folder`, that of the tokenizer.
    None if there is neither, or if the data has no conversations.

    Raises UsageError for an invalid date, ChatError for a template that cannot be used.
    """
    named = chat_format(config.data.chat)
    template = None
    if named is not None:
        warn_of_replacing(config, named, folder)
        template = named.template
    elif has_rows([*config.data.data, *config.data.valid_data]):
        template = find_template(folder)
    if template is None:
        return config, None
    if "strftime_now" not in template.source:
        return config, RunTemplate(template)
    if not config.data.chat_date:
        config = config.replace(chat_date=date.today().isoformat())
    try:
        return config, RunTemplate(template, date.fromisoformat(config.data.chat_date))
    except ValueError:
        raise UsageError(
            f"chat_date is {config.data.chat_date!r}: write it as 2026-01-31"
        ) from None


def has_rows(sources: Sequence[str]) -> bool:
    """Whether some files of the sources have rows, which may be conversations."""
    if not sources:
        return False
    return any(is_rows(path) for path in find_files(sources).files)


def warn_of_replacing(config: Config, named: ChatFormat, folder: Path) -> None:
    """Warns that a format replaces the chat template of the model or the tokenizer."""
    try:
        own = find_template(folder)
        replaced = own is not None and own.source != named.template.source
    except ChatError:  # it cannot be used, which may be why a format is named
        replaced = True
    if replaced:
        log.warning(
            "--chat %s replaces the chat template of %s",
            config.data.chat,
            config.model.from_model or config.data.tokenizer,
        )

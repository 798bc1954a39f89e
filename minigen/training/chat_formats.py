"""Chat formats to train with: a model's own, or one that other programs know, which goes into the checkpoint."""

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
    """The chat template of a run. One that asks for the date is told the same whenever the run goes on."""

    template: ChatTemplate
    day: date | None = None

    @property
    def source(self) -> str:
        return self.template.source if self.day is None else f"{self.template.source}\n{self.day}"

    @property
    def special(self) -> Mapping[str, str]:
        return self.template.special

    def render(self, messages: Sequence[Mapping[str, Any]], *, generate: bool) -> str:
        with on_day(self.day):
            return self.template.render(messages, generate=generate)


def written(head: str, end: str, tokens: tuple[str, ...]) -> ChatFormat:
    """Each message is `head`, with its role, then the content, then `end` and a line break."""
    before, after = head.split("{role}")
    source = (
        "{% for message in messages %}"
        f"{{{{ {literal(before)} + message['role'] + {literal(after)} + message['content'] + {literal(end)} }}}}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ {literal(head.format(role='assistant'))} }}}}{{% endif %}}"
    )
    return ChatFormat(ChatTemplate(source), tokens)


def literal(text: str) -> str:
    return "'" + text.replace("\n", "\\n") + "'"


FORMATS = {
    "phi3": ("<|{role}|>\n", "<|end|>\n", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "chatml": ("<|im_start|>{role}\n", "<|im_end|>\n", ("<|im_start|>", "<|im_end|>")),
}


def chat_format(name: str) -> ChatFormat | None:
    """The format of this name; none for none. Raises UsageError for one that there is not."""
    if name and name not in FORMATS:
        raise UsageError(f"unknown chat format {name!r}: choose {', '.join(FORMATS)}")
    return written(*FORMATS[name]) if name else None


def run_template(config: Config, folder: Path) -> tuple[Config, RunTemplate | None]:
    """How the conversations of a run are written: by the format that the settings name, else by the template in the
    folder of its tokenizer, which `--from` brings; None where there is neither, or no conversation. The settings come
    back with the day that the template is told.

    Raises UsageError for a day that is none, ChatError for a template that cannot be used.
    """
    named = chat_format(config.data.chat)
    if named is not None:
        warn_of_replacing(config, named, folder)
    sources = [*config.data.data, *config.data.valid_data]
    rows = bool(sources) and any(is_rows(path) for path in find_files(sources).files)
    template = named.template if named is not None else find_template(folder) if rows else None
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


def warn_of_replacing(config: Config, named: ChatFormat, folder: Path) -> None:
    """Says that a format takes the place of a model's own."""
    try:
        own = find_template(folder)
        replaced = own is not None and own.source != named.template.source
    except ChatError:  # it cannot be used, which may be why another is named
        replaced = True
    if replaced:
        log.warning(
            "--chat %s replaces the chat template of %s",
            config.data.chat,
            config.model.from_model or config.data.tokenizer,
        )

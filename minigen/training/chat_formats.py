"""Chat formats to train with: a few that other programs know, as the templates that go into the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from minigen.chat.template import ChatTemplate
from minigen.errors import UsageError


@dataclass(frozen=True)
class ChatFormat:
    """A template, the control tokens that it writes, and the one that ends a turn."""

    template: ChatTemplate
    tokens: tuple[str, ...]
    end: str


def written(head: str, end: str, tokens: tuple[str, ...]) -> ChatFormat:
    """Each message is `head`, with its role, then the content, then `end` and a line break."""
    before, after = head.split("{role}")
    source = (
        "{% for message in messages %}"
        f"{{{{ {literal(before)} + message['role'] + {literal(after)} + message['content'] + {literal(end)} }}}}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ {literal(head.format(role='assistant'))} }}}}{{% endif %}}"
    )
    return ChatFormat(ChatTemplate(source), tokens, end.strip())


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

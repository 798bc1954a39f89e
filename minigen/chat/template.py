"""A model's own chat template: a Jinja text that turns messages into the text that the model was trained on.

Rendered as transformers renders it, to the character.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigen.chat.budget import Budget, LimitError, RefusalError, size_of, spending
from minigen.errors import ChatError, TokenizerError
from minigen.tokenizer.files import read_object, read_text
from minigen.tokenizer.names import CONFIG, OLD_TEMPLATE, TEMPLATE, TOKEN_MAP
from minigen.tokenizer.special import named_tokens

_REASONING = (
    "reasoning_content",
    "thinking",
    "reasoning",
)  # the names of one thing; templates read the first two


class ChatTemplate:
    """A chat template, compiled. It sees `messages`, `add_generation_prompt`, and the texts of control tokens.

    `source` is its text, `special` the control tokens by name (bos_token, eos_token, ...), `where` its file, for
    messages. Raises ChatError, with the line, where the text is no template.
    """

    def __init__(
        self, source: str, special: Mapping[str, str] = {}, where: str = "chat template"
    ) -> None:
        from jinja2 import TemplateSyntaxError

        from minigen.chat.sandbox import compile_template  # imports Jinja

        self.source, self.special, self.where = source, dict(special), where
        try:
            self._compiled = compile_template(source)
        except TemplateSyntaxError as error:
            reason = _line(error.message or "")
            raise ChatError(
                f"the chat template ({where}) is not valid: line {error.lineno}: {reason}"
            ) from None
        except LimitError as error:
            raise ChatError(f"the chat template ({where}) {error}: it is refused") from None
        except (
            Exception
        ) as error:  # Python's own limits: loops nested too deep, expressions too long
            raise ChatError(
                f"the chat template ({where}) cannot be compiled: {_reason(error)}"
            ) from None

    def render(self, messages: Sequence[Mapping[str, Any]], *, generate: bool) -> str:
        """The text of a conversation; with `generate`, up to where the next answer begins.

        A message has a role and a content, and what else the template reads; an entry that is None counts as missing.

        Raises ChatError: the template refuses the conversation, or fails; there is no message, or one is not plain
        data.
        """
        if not messages:
            raise ChatError(
                "a chat template cannot render an empty conversation: give at least one message"
            )
        plain = [_message(message) for message in messages]
        budget = Budget(_size(plain))
        with spending(budget):
            return self._rendered(plain, generate, budget)

    def _rendered(self, plain: list[dict[str, Any]], generate: bool, budget: Budget) -> str:
        try:
            text = self._render(plain, generate)
            budget.check_output(text)
            return text
        except RefusalError as error:
            reason = _line(str(error)) or "it gives no reason"
            advice = self._advice(plain, generate)
            raise ChatError(
                f"the chat template refuses this conversation: {reason}{advice}"
            ) from None
        except LimitError as error:
            raise ChatError(f"the chat template ({self.where}) {error}: it is stopped") from None
        except Exception as error:  # whatever a stranger's program can raise
            raise ChatError(f"the chat template ({self.where}) fails: {_reason(error)}") from None

    def _render(self, messages: list[dict[str, Any]], generate: bool) -> str:
        given = {
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": generate,
        }
        return self._compiled.render({**self.special, **given})

    def _advice(self, messages: list[dict[str, Any]], generate: bool) -> str:
        """What would mend a refused conversation, as far as trying tells."""
        system = [message for message in messages if message.get("role") == "system"]
        spoken = [message for message in messages if message.get("role") != "system"]
        if (
            system
            and spoken
            and self._takes(spoken, generate)
            and not self._takes([*system[:1], *spoken], generate)
        ):
            return " (it takes no system message: drop it)"
        start = 1 if messages[0].get("role") == "system" else 0
        turns = messages[start:]
        even: list[dict[str, Any]] = []
        for message in turns:
            if message.get("role") == ("user", "assistant")[len(even) % 2]:
                even.append(message)
        if len(even) < len(turns):
            even = even or [{**turns[0], "role": "user"}]
            if self._takes([*messages[:start], *even], generate):
                return " (it wants user and assistant to alternate)"
        return ""

    def _takes(self, messages: list[dict[str, Any]], generate: bool) -> bool:
        try:
            self._render(messages, generate)
        except Exception:
            return False
        return True


def _size(messages: list[dict[str, Any]]) -> int:
    """The bytes of a conversation, about."""
    values = [value for message in messages for value in message.values()]
    return sum(size_of(value if isinstance(value, str) else str(value)) for value in values)


def find_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a model folder; None where it has none.

    chat_template.jinja comes first, then chat_template.json, then tokenizer_config.json. Of several templates the one
    named "default" is taken.

    Raises ChatError: a file is broken, a template is empty or not valid, or none of several is the default.
    """
    folder = Path(folder)
    settings = folder / CONFIG
    try:
        config, token_map = read_object(settings), read_object(folder / TOKEN_MAP)
        path, found = folder / TEMPLATE, None
        if path.is_file():
            found = read_text(path)
        elif (path := folder / OLD_TEMPLATE).is_file():
            content = read_object(path)
            if content.get("chat_template") is None:
                raise ChatError(f"{path}: it has no chat_template: give one, or remove the file")
            found = _default(path, content["chat_template"])
        elif config.get("chat_template") is not None:
            path, found = settings, _default(settings, config["chat_template"])
    except TokenizerError as error:
        raise ChatError(str(error)) from None
    if found is None:
        return None
    if not found.strip():
        raise ChatError(
            f"{path}: the chat template is empty: write one, or remove it to do without"
        )
    return ChatTemplate(found, _special(folder, config, token_map), str(path))


def _default(path: Path, value: Any) -> str:
    """The template to use, from a text or from a list of named ones."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        kind = type(value).__name__
        raise ChatError(
            f"{path}: chat_template must be a text or a list of named templates, not {kind}"
        )
    named: dict[str, str] = {}
    for entry in value:
        name, text = (
            (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        )
        if not isinstance(name, str) or not isinstance(text, str):
            raise ChatError(
                f"{path}: an entry of chat_template needs a name and a template: {entry!r:.80}"
            )
        named[name] = text
    if "default" not in named:
        names = _line(", ".join(map(repr, sorted(named)))) or "none at all"
        raise ChatError(
            f"{path}: no chat template is named 'default', there are {names}: rename the one to use"
        )
    return named["default"]


def _special(
    folder: Path, config: Mapping[str, Any], token_map: Mapping[str, Any]
) -> dict[str, str]:
    """The texts of the control tokens that the two files name; one that is null is no token."""
    try:
        named = named_tokens(folder / CONFIG, config, folder / TOKEN_MAP, token_map)
    except TokenizerError as error:
        raise ChatError(str(error)) from None
    return {key: text for key, text in named.items() if text is not None}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as a template sees it: plain data, nothing that is None, what was thought under each of its names."""
    if not isinstance(message, Mapping):
        raise ChatError(
            f"a message must be a mapping with a role and a content, not {type(message).__name__}"
        )
    plain = {_plain(key): _plain(value) for key, value in message.items() if value is not None}
    thought = next((plain[key] for key in _REASONING if key in plain), None)
    return (
        plain if thought is None else {"thinking": thought} | plain | {"reasoning_content": thought}
    )


def _plain(value: Any) -> Any:
    """A copy out of JSON's own types: the methods of any other object would be open to the template."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # a subclass, such as an enum, may say otherwise of itself
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    raise ChatError(
        f"a message holds an object of type {type(value).__name__}: give text, numbers, lists or mappings"
    )


def _line(text: str) -> str:
    """A stranger's text as a part of one line of a message: no control characters, no more than a few hundred."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text[:2000].split()))
    return shown if len(shown) <= 300 else f"{shown[:299]}…"


def _reason(error: Exception) -> str:
    from jinja2 import TemplateError

    kind = "" if isinstance(error, TemplateError) else type(error).__name__
    text = (
        error.msg if isinstance(error, SyntaxError) else str(error)
    )  # its line would be one of Jinja's own making
    return ": ".join(part for part in (kind, _line(text)) if part) or type(error).__name__

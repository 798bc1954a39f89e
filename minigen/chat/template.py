"""A model's chat template: a Jinja template that turns messages into the text it was trained on.

It is rendered exactly as transformers renders it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigen.chat.budget import Budget, LimitError, RefusalError, spending
from minigen.chat.template_data import bytes_of, row_of
from minigen.errors import ChatError, TokenizerError
from minigen.tokenizer.files import read_object, read_text
from minigen.tokenizer.names import CONFIG, OLD_TEMPLATE, TEMPLATE, TOKEN_MAP
from minigen.tokenizer.special import named_tokens


class ChatTemplate:
    """A compiled chat template.

    It is given `messages`, `add_generation_prompt`, and the texts of control tokens.

    Args:
        source: its text.
        special: the control tokens by name (bos_token, eos_token, ...).
        where: the name of its file, for messages.

    Raises ChatError, with the line, if the text is not a valid template.
    """

    def __init__(
        self, source: str, special: Mapping[str, str] = {}, where: str = "chat template"
    ) -> None:
        from jinja2 import TemplateSyntaxError

        from minigen.chat.sandbox import compile_template  # imports Jinja

        self.source = source
        self.special = dict(special)
        self.where = where
        try:
            self._compiled = compile_template(source)
        except TemplateSyntaxError as error:
            reason = _line(error.message or "")
            raise ChatError(
                f"the chat template ({where}) is not valid: line {error.lineno}: {reason}"
            ) from None
        except LimitError as error:
            raise ChatError(f"the chat template ({where}) {error}: it is refused") from None
        except Exception as error:  # Python's own limits, as on the depth of loops
            reason = _reason(error)
            raise ChatError(f"the chat template ({where}) cannot be compiled: {reason}") from None

    def render(self, messages: Sequence[Mapping[str, Any]], *, generate: bool) -> str:
        """The text of a conversation; with `generate`, up to the beginning of the next answer.

        A message has a role, a content, and whatever else the template reads; a value of None
        counts as missing.

        Raises ChatError if the template refuses the conversation or fails, if there is no message,
        or if a message is not plain data.
        """
        if not messages:
            raise ChatError(
                "a chat template cannot render an empty conversation: give at least one message"
            )
        rows = [row_of(message) for message in messages]
        budget = Budget(bytes_of(rows))
        with spending(budget):
            return self._render_within(budget, rows, generate)

    def _render_within(self, budget: Budget, rows: list[dict[str, Any]], generate: bool) -> str:
        try:
            text = self._render(rows, generate)
            budget.check_output(text)
            return text
        except RefusalError as error:
            reason = _line(str(error)) or "it gives no reason"
            advice = self._advice(rows, generate)
            raise ChatError(
                f"the chat template refuses this conversation: {reason}{advice}"
            ) from None
        except LimitError as error:
            raise ChatError(f"the chat template ({self.where}) {error}: it is stopped") from None
        except Exception as error:  # whatever an untrusted program can raise
            raise ChatError(f"the chat template ({self.where}) fails: {_reason(error)}") from None

    def _render(self, messages: list[dict[str, Any]], generate: bool) -> str:
        return self._compiled.render(
            **self.special
            | {
                "messages": messages,
                "tools": None,
                "documents": None,
                "add_generation_prompt": generate,
            }
        )

    def _advice(self, messages: list[dict[str, Any]], generate: bool) -> str:
        """How to change a conversation that was refused, found by trying; empty if that fails."""
        system = [message for message in messages if message.get("role") == "system"]
        others = [message for message in messages if message.get("role") != "system"]
        without_system = system and others and self._accepts(others, generate)
        if without_system and not self._accepts([*system[:1], *others], generate):
            return " (it does not accept a system message: drop it)"
        start = 1 if messages[0].get("role") == "system" else 0
        turns = messages[start:]
        alternating: list[dict[str, Any]] = []
        for message in turns:
            expected = "assistant" if len(alternating) % 2 else "user"
            if message.get("role") == expected:
                alternating.append(message)
        if len(alternating) < len(turns):
            if not alternating:
                alternating = [{**turns[0], "role": "user"}]
            if self._accepts([*messages[:start], *alternating], generate):
                return " (user and assistant must alternate)"
        return ""

    def _accepts(self, messages: list[dict[str, Any]], generate: bool) -> bool:
        try:
            self._render(messages, generate)
        except Exception:
            return False
        return True


def find_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a model folder; None if it has none.

    chat_template.jinja comes first, then chat_template.json, then tokenizer_config.json. Of several
    templates, it is the one named "default".

    Raises ChatError if a file is invalid, if a template is empty or invalid, or if none of several
    templates is the default.
    """
    folder = Path(folder)
    try:
        config = read_object(folder / CONFIG)
        token_map = read_object(folder / TOKEN_MAP)
        path, source = _find_source(folder, config)
    except TokenizerError as error:
        raise ChatError(str(error)) from None
    if source is None:
        return None
    if not source.strip():
        raise ChatError(
            f"{path}: the chat template is empty: write one, or remove it to do without"
        )
    return ChatTemplate(source, _special(folder, config, token_map), str(path))


def _find_source(folder: Path, config: Mapping[str, Any]) -> tuple[Path, str | None]:
    """(file, text) of the chat template; `config` is that of tokenizer_config.json."""
    path = folder / TEMPLATE
    if path.is_file():
        return path, read_text(path)
    path = folder / OLD_TEMPLATE
    if path.is_file():
        value = read_object(path).get("chat_template")
        if value is None:
            raise ChatError(f"{path}: it has no chat_template: add one, or remove the file")
        return path, _default(path, value)
    path = folder / CONFIG
    value = config.get("chat_template")
    if value is None:
        return path, None
    return path, _default(path, value)


def _default(path: Path, value: Any) -> str:
    """The template to use, from a text or from a list of named templates."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        kind = type(value).__name__
        raise ChatError(
            f"{path}: chat_template must be a string or a list of named templates, not {kind}"
        )
    templates: dict[str, str] = {}
    for entry in value:
        name = text = None
        if isinstance(entry, dict):
            name, text = entry.get("name"), entry.get("template")
        if not isinstance(name, str) or not isinstance(text, str):
            raise ChatError(
                f"{path}: an entry of chat_template needs a name and a template: {entry!r:.80}"
            )
        templates[name] = text
    if "default" not in templates:
        names = _line(", ".join(repr(name) for name in sorted(templates))) or "none at all"
        raise ChatError(
            f"{path}: no chat template is named 'default', there are {names}: rename the one to use"
        )
    return templates["default"]


def _special(
    folder: Path, config: Mapping[str, Any], token_map: Mapping[str, Any]
) -> dict[str, str]:
    """The texts of the control tokens that the two files name, without those that are null."""
    try:
        named = named_tokens(folder / CONFIG, config, folder / TOKEN_MAP, token_map)
    except TokenizerError as error:
        raise ChatError(str(error)) from None
    return {key: text for key, text in named.items() if text is not None}


def _line(text: str) -> str:
    """An untrusted text as a part of a line: at most 300 characters, no control characters."""
    line = ""
    for character in " ".join(text[:2000].split()):
        line += character if character.isprintable() else ascii(character)[1:-1]
    if len(line) > 300:
        line = f"{line[:299]}…"
    return line


def _reason(error: Exception) -> str:
    """What an error says, with its type unless it is one of Jinja's."""
    from jinja2 import TemplateError

    kind = type(error).__name__
    text = str(error)
    if isinstance(error, SyntaxError):
        text = error.msg  # without the line, which is of the Python code that Jinja generates
    text = _line(text)
    if not text:
        return kind
    return text if isinstance(error, TemplateError) else f"{kind}: {text}"

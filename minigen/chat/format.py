"""From a conversation to the tokens that a model reads, by its own chat template or as a plain transcript.

The tokens of an answer are those that the model wrote, wherever the template repeats its text as it is: so what the
state has read stays a prefix of the next turn, and only what is new is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from minigen.chat.conversation import Conversation, Message
from minigen.chat.marks import RIGHT, unused_mark
from minigen.chat.template import ChatTemplate
from minigen.errors import ChatError
from minigen.tokenizer import Tokenizer

# For base models: what is said line by line, so that a model of any text can go on with it.
PLAIN = """\
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ message.content + '\\n\\n' }}
{%- elif message.role == 'user' -%}{{ 'User: ' + message.content + '\\n' }}
{%- else -%}{{ 'Assistant:' + message.content + '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}
"""


@dataclass(frozen=True)
class Piece:
    """A part of a rendered conversation: text of the template's, or message `number`, which is set apart."""

    text: str
    number: int | None = None
    ids: tuple[int, ...] | None = (
        None  # the message's own tokens; without, its text is text, whatever it looks like
    )


class ChatFormat:
    """How a tokenizer's model is talked to. `plain`: the transcript above in place of a template of the model's."""

    def __init__(
        self, template: ChatTemplate, tokenizer: Tokenizer, *, plain: bool = False
    ) -> None:
        self.template, self.tokenizer, self.plain = template, tokenizer, plain
        self.stop_ids, self.stops = self._ends()

    @classmethod
    def transcript(cls, tokenizer: Tokenizer) -> ChatFormat:
        return cls(ChatTemplate(PLAIN, where="plain transcript"), tokenizer, plain=True)

    def render(self, messages: Sequence[Message], *, generate: bool) -> str:
        """The text of a conversation. `generate`: up to where the next answer begins. Raises ChatError."""
        return self.template.render(
            [{"role": m.role, "content": m.content} for m in messages], generate=generate
        )

    def ids(
        self, talk: Conversation, first: int = 0, *, generate: bool = True, going_on: bool = False
    ) -> list[int]:
        """The tokens of a conversation whose spoken messages before `first` are left out.

        `generate`: up to where the next answer begins; `going_on`: up to the end of the last message, an answer that
        is not over. Raises ChatError where the template refuses, TokenizerError for a text without tokens.
        """
        messages = self._messages(talk, first)
        if not going_on:
            return self._encoded(self._pieces(messages, generate))
        said = messages[-1].ids
        if said is None:
            return self._encoded(self._up_to_the_end(messages))
        # What was read, and what the model then said: the template may show an answer in another way than it began.
        return [*self._encoded(self._pieces(messages[:-1], generate=True)), *said]

    def left_out(self, talk: Conversation, first: int = 0) -> list[int]:
        """The messages that the template does not show, of those from the spoken one `first` on: their numbers among
        the spoken, and -1 for the system prompt. Each is tried with a mark in its place; none where it refuses those.
        """
        messages = self._messages(talk, first)
        if not messages:
            return []
        left, right = self._marks(messages)
        marked = [
            replace(message, content=f"{left}{i}{right}") for i, message in enumerate(messages)
        ]
        try:
            text = self.render(marked, generate=messages[-1].role == "user")
        except ChatError:
            return []
        before = first - 1 if talk.system else first
        missing = [i for i, message in enumerate(marked) if message.content not in text]
        return [-1 if messages[i].role == "system" else before + i for i in missing]

    def _messages(self, talk: Conversation, first: int) -> list[Message]:
        """What the template is given: the system prompt, and the spoken messages from `first` on."""
        messages = [self._prepared(message) for message in talk.spoken[first:]]
        return [Message("system", talk.system), *messages] if talk.system else messages

    def _encoded(self, pieces: Sequence[Piece]) -> list[int]:
        ids: list[int] = []
        for piece, before in zip(pieces, [None, *pieces], strict=False):
            ids += piece.ids if piece.ids is not None else self._encode(piece, before)
        return ids

    def _prepared(self, message: Message) -> Message:
        """In a transcript an answer begins with the white space that the model writes after the colon."""
        if (
            self.plain
            and message.role == "assistant"
            and message.ids is None
            and not message.content[:1].isspace()
        ):
            return replace(message, content=f" {message.content}")
        return message

    def _encode(self, piece: Piece, before: Piece | None) -> list[int]:
        """The tokens of a piece that has none of its own; control tokens are made of the template's text alone."""
        special = piece.number is None and not self.plain
        if before is not None and self.tokenizer.kind == "tokenizers":
            # Such a tokenizer may treat the beginning of a text in its own way; this is not a beginning.
            head = self.tokenizer.encode(before.text, bos=False, special=special)
            whole = self.tokenizer.encode(before.text + piece.text, bos=False, special=special)
            if before.text and whole[: len(head)] == head:
                return whole[len(head) :]
        return self.tokenizer.encode(piece.text, bos=self.plain and before is None, special=special)

    def _pieces(self, messages: Sequence[Message], generate: bool) -> list[Piece]:
        """The rendered text, with the messages that keep their own tokens set apart: answers, and control tokens that
        a user wrote, which must stay text.

        A template may change what it is given. Each message is tried with a mark in the place of its text; where the
        marked text does not give the true one, an answer becomes text like any other.
        """
        true = self.render(messages, generate=generate)
        hostile = {
            i: name for i, message in enumerate(messages) if (name := self._control_in(message))
        }
        apart = [i for i, message in enumerate(messages) if message.ids is not None or i in hostile]
        pieces = self._marked(messages, apart, true, generate)
        if pieces is None:
            apart = [i for i in apart if self._marked(messages, [i], true, generate) is not None]
            pieces = self._marked(messages, apart, true, generate) or [Piece(true)]
        kept = {piece.number for piece in pieces}
        for i, name in hostile.items():
            if i not in kept and messages[i].content.strip() in true:
                raise ChatError(
                    f"a message of the {messages[i].role} has the control token {name!r}, and the chat template "
                    "changes its text, so it cannot be kept apart: leave it out"
                )
        return pieces

    def _control_in(self, message: Message) -> str | None:
        """A control token that stands in a message as text."""
        if self.plain:
            return None
        return next(
            (name for name in self.tokenizer.special_tokens if name and name in message.content),
            None,
        )

    def _marked(
        self, messages: Sequence[Message], apart: Sequence[int], true: str, generate: bool
    ) -> list[Piece] | None:
        """The pieces of the render with those messages set apart; None where the template changes them."""
        if not apart:
            return [Piece(true)]
        left, right = self._marks(messages)
        marked = list(messages)
        for i in apart:
            lead, _, trail = around(messages[i].content)
            marked[i] = replace(messages[i], content=f"{lead}{left}{i}{right}{trail}")
        try:
            parts = re.split(f"{left}([0-9]+){right}", self.render(marked, generate=generate))
        except ChatError:
            return None
        pieces: list[Piece] = []
        text = parts[0]
        for number, after in zip(map(int, parts[1::2]), parts[2::2], strict=True):
            if number not in apart:
                return None  # a mark that the template wrote itself
            message = messages[number]
            lead, core, trail = around(message.content)
            whole = text.endswith(lead) and after.startswith(trail)
            if message.ids is not None and whole:
                pieces += [
                    Piece(text[: len(text) - len(lead)]),
                    Piece(message.content, number, message.ids),
                ]
                text = after[len(trail) :]
            elif self._control_in(message):
                pieces += [Piece(text), Piece(core, number)]
                text = after
            else:  # the template took its white space, and with it tokens
                text += core + after
        pieces = [
            piece for piece in [*pieces, Piece(text)] if piece.text or piece.number is not None
        ]
        return pieces if "".join(piece.text for piece in pieces) == true else None

    def _up_to_the_end(self, messages: Sequence[Message]) -> list[Piece]:
        """The pieces up to where the text of the last message ends. As transformers, a mark behind it tells where that
        is, and a space behind the mark whether the template takes white space away.
        """
        last = messages[-1]
        end = "".join(self._marks(messages))
        pieces = self._pieces(
            [*messages[:-1], replace(last, content=f"{last.content}{end} ")], generate=False
        )
        number = max((i for i, piece in enumerate(pieces) if end in piece.text), default=None)
        if number is None:
            raise ChatError(
                "the chat template does not show the last answer, so it cannot be continued"
            )
        text, _, after = pieces[number].text.rpartition(end)
        behind = after + "".join(piece.text for piece in pieces[number + 1 :])
        _, core, trail = around(last.content)
        if core.strip() and not behind.startswith(" "):
            text = text.removesuffix(trail)
        return [*pieces[:number], replace(pieces[number], text=text)]

    def _marks(self, messages: Sequence[Message]) -> tuple[str, str]:
        """What a message is set apart by, on its left and on its right."""
        return unused_mark(message.content for message in messages), RIGHT

    def _ends(self) -> tuple[frozenset[int], tuple[str, ...]]:
        """What ends an answer besides the model's own stop tokens: what the template writes after one.

        A control token there is a stop token; a line of text, as "### Instruction:", is a stop string.
        """
        talk = [
            Message("user", "\ue000"),
            Message("assistant", "\ue001"),
            Message("user", "\ue002"),
        ]
        try:
            between = re.split("\ue001|\ue002", self.render(talk, generate=False))[1]
        except (ChatError, IndexError):
            return frozenset(), ()
        control = self.tokenizer.special_tokens
        begins = [name for name in control if name and between.lstrip().startswith(name)]
        if begins:
            return frozenset({control[max(begins, key=len)]}), ()
        line = between.lstrip().split("\n")[0].rstrip()
        lead = between[: len(between) - len(between.lstrip())]
        return frozenset(), (("\n" if "\n" in lead else "") + line,) if len(line) > 2 else ()


def around(text: str) -> tuple[str, str, str]:
    """(white space before, the rest, white space after)."""
    core = text.strip()
    if not core:
        return "", text, ""
    start = text.index(core)
    return text[:start], core, text[start + len(core) :]

"""From a conversation to the tokens that a model reads, by its chat template or as a transcript.

An answer keeps the tokens that the model generated, if the template repeats its text unchanged.
What the model's state has read is then a prefix of the next turn, and only new tokens are read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from minigen.chat.conversation import Conversation, Message
from minigen.chat.pieces import Piece, around, marks_for, separated
from minigen.chat.template import ChatTemplate
from minigen.errors import ChatError
from minigen.tokenizer import Tokenizer

SYSTEM = -1  # stands for the system prompt among the numbers of messages

# For base models: a text of lines, which any language model can continue.
PLAIN = """\
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ message.content + '\\n\\n' }}
{%- elif message.role == 'user' -%}{{ 'User: ' + message.content + '\\n' }}
{%- else -%}{{ 'Assistant:' + message.content + '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}
"""


class ChatFormat:
    """Turns conversations into tokens. `plain`: the template is the transcript above."""

    def __init__(
        self, template: ChatTemplate, tokenizer: Tokenizer, *, plain: bool = False
    ) -> None:
        self.template = template
        self.tokenizer = tokenizer
        self.plain = plain
        self.stop_ids, self.stops = self._ends()

    @classmethod
    def transcript(cls, tokenizer: Tokenizer) -> ChatFormat:
        return cls(ChatTemplate(PLAIN, where="plain transcript"), tokenizer, plain=True)

    def render(self, messages: Sequence[Message], *, generate: bool) -> str:
        """The text of a conversation, with `generate` up to the next answer. Raises ChatError."""
        rows = [{"role": message.role, "content": message.content} for message in messages]
        return self.template.render(rows, generate=generate)

    def ids(
        self,
        conversation: Conversation,
        first: int = 0,
        *,
        generate: bool = True,
        going_on: bool = False,
    ) -> list[int]:
        """The tokens of a conversation without its messages before `first`.

        `generate`: up to the beginning of the next answer; `going_on`: up to the end of the last
        message, an answer that is to be continued. Raises ChatError if the template refuses the
        conversation, TokenizerError for a text that has no tokens.
        """
        messages = self._messages(conversation, first)
        if not going_on:
            return self._encoded(self._pieces(messages, generate))
        answer_ids = messages[-1].ids
        if answer_ids is None:
            return self._encoded(self._pieces_to_the_end(messages))
        # As it was generated: a template may show a finished answer in another way.
        prompt = self._encoded(self._pieces(messages[:-1], generate=True))
        return [*prompt, *answer_ids]

    def left_out(self, conversation: Conversation, first: int = 0) -> list[int]:
        """The messages from `first` on that the template does not show; SYSTEM: the system prompt.

        The template is rendered with a mark in the place of every message. If it refuses those,
        the result is empty.
        """
        messages = self._messages(conversation, first)
        if not messages:
            return []
        left, right = marks_for(messages)
        marks = [f"{left}{i}{right}" for i in range(len(messages))]
        marked = [replace(m, content=mark) for m, mark in zip(messages, marks, strict=True)]
        try:
            text = self.render(marked, generate=messages[-1].role == "user")
        except ChatError:
            return []
        numbers = list(range(first, len(conversation.spoken)))
        if conversation.system:
            numbers.insert(0, SYSTEM)
        return [number for number, mark in zip(numbers, marks, strict=True) if mark not in text]

    def _messages(self, conversation: Conversation, first: int) -> list[Message]:
        """The messages for the template: the system prompt, and those from `first` on."""
        messages = [self._prepared(message) for message in conversation.spoken[first:]]
        if conversation.system:
            messages.insert(0, Message("system", conversation.system))
        return messages

    def _encoded(self, pieces: Sequence[Piece]) -> list[int]:
        ids: list[int] = []
        before = None
        for piece in pieces:
            ids += self._encode(piece, before) if piece.ids is None else piece.ids
            before = piece
        return ids

    def _prepared(self, message: Message) -> Message:
        """Adds the space after the colon of a transcript, which a model generates by itself."""
        typed_answer = message.role == "assistant" and message.ids is None
        if self.plain and typed_answer and not message.content[:1].isspace():
            return replace(message, content=f" {message.content}")
        return message

    def _encode(self, piece: Piece, before: Piece | None) -> list[int]:
        """The tokens of a piece that has none of its own.

        Only the template's text may contain control tokens; the text of a message may not.
        """
        special = piece.number is None and not self.plain
        if before is not None and self.tokenizer.kind == "tokenizers":
            # Such a tokenizer may treat the beginning of a text specially; this is not one.
            head = self.tokenizer.encode(before.text, bos=False, special=special)
            whole = self.tokenizer.encode(before.text + piece.text, bos=False, special=special)
            if before.text and whole[: len(head)] == head:
                return whole[len(head) :]
        return self.tokenizer.encode(piece.text, bos=self.plain and before is None, special=special)

    def _pieces(self, messages: Sequence[Message], generate: bool) -> list[Piece]:
        """The rendered text in pieces: messages that must keep their tokens are separate pieces.

        Those are answers with ids, and messages with a control token in them, which must stay text.
        A template may change what it is given, so it is rendered with a mark in the place of each
        of them. If the pieces do not add up to the true text, the answer is treated as text.
        """
        true_text = self.render(messages, generate=generate)
        control_tokens: dict[int, str] = {}  # message -> a control token that it has as text
        numbers: list[int] = []
        for i, message in enumerate(messages):
            name = self._control_token_in(message)
            if name:
                control_tokens[i] = name
            if name or message.ids is not None:
                numbers.append(i)

        def separate(numbers: Sequence[int]) -> list[Piece] | None:
            return separated(
                messages,
                numbers,
                true_text,
                lambda marked: self.render(marked, generate=generate),
                lambda message: self._control_token_in(message) is not None,
            )

        pieces = separate(numbers)
        if pieces is None:
            possible = [i for i in numbers if separate([i]) is not None]
            pieces = separate(possible) or [Piece(true_text)]
        kept = {piece.number for piece in pieces}
        for i, name in control_tokens.items():
            if i not in kept and messages[i].content.strip() in true_text:
                raise ChatError(
                    f"a message of the {messages[i].role} has the control token {name!r}, and "
                    "the chat template changes its text, so it cannot be kept as text: remove it"
                )
        return pieces

    def _control_token_in(self, message: Message) -> str | None:
        """A control token that a message contains as text."""
        if self.plain:
            return None
        for name in self.tokenizer.special_tokens:
            if name and name in message.content:
                return name
        return None

    def _pieces_to_the_end(self, messages: Sequence[Message]) -> list[Piece]:
        """The pieces up to the end of the last message's text.

        As in transformers, a mark after the message shows where that is; a space after the mark
        shows whether the template strips white space.
        """
        last = messages[-1]
        end = "".join(marks_for(messages))
        marked = replace(last, content=f"{last.content}{end} ")
        pieces = self._pieces([*messages[:-1], marked], generate=False)
        with_end = [i for i, piece in enumerate(pieces) if end in piece.text]
        if not with_end:
            raise ChatError(
                "the chat template does not show the last answer, so it cannot be continued"
            )
        number = with_end[-1]
        text, _, after = pieces[number].text.rpartition(end)
        after += "".join(piece.text for piece in pieces[number + 1 :])
        _, core, trail = around(last.content)
        if core.strip() and not after.startswith(" "):
            text = text.removesuffix(trail)
        return [*pieces[:number], replace(pieces[number], text=text)]

    def _ends(self) -> tuple[frozenset[int], tuple[str, ...]]:
        """(stop tokens, stop strings) that end an answer besides the model's own stop tokens.

        That is what the template writes after an answer: a control token is a stop token, and a
        line of text, such as "### Instruction:", is a stop string.
        """
        messages = [
            Message("user", "\ue000"),
            Message("assistant", "\ue001"),
            Message("user", "\ue002"),
        ]
        try:
            between = re.split("\ue001|\ue002", self.render(messages, generate=False))[1]
        except (ChatError, IndexError):
            return frozenset(), ()
        after = between.lstrip()
        special_tokens = self.tokenizer.special_tokens
        names = [name for name in special_tokens if name and after.startswith(name)]
        if names:
            return frozenset({special_tokens[max(names, key=len)]}), ()
        line = after.split("\n")[0].rstrip()
        if len(line) <= 2:
            return frozenset(), ()
        lead = between[: len(between) - len(after)]
        if "\n" in lead:
            line = f"\n{line}"
        return frozenset(), (line,)

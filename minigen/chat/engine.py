"""A conversation with a model: each answer reads only what the state has not read yet.

An answer is a function of the conversation, the settings and the seed; what the state happens to hold changes the
time it takes and nothing else (but the rounding, where torch computes in 16 bits).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from minigen.chat.conversation import Conversation, Message, Run
from minigen.chat.format import ChatFormat
from minigen.chat.kept import KeptReader, fitted, kept_ids, without_half
from minigen.chat.left_out import LeftOut
from minigen.chat.template import find_template
from minigen.chat.window import SINKS, Window
from minigen.errors import MinigenError, UsageError
from minigen.generation.dispatch import steps
from minigen.generation.options import Options
from minigen.generation.rows import Row, Timing, set_limits
from minigen.generation.shared_text import OnRead, SharedText
from minigen.generation.speculation import check_speculation
from minigen.generation.text import RowText
from minigen.model import Model
from minigen.reading import has_half_character
from minigen.reading.spellings import advice
from minigen.sampling import SETTINGS
from minigen.tokenizer import Tokenizer

if TYPE_CHECKING:
    from minigen.generation.settings import ChatSettings

GUESSING = ("speculate", "draft_tokens")  # how fast an answer comes, not what it says
CHAT_SETTINGS = ("max_tokens", "stop", *SETTINGS, *GUESSING)


@dataclass
class Reading:
    """What one answer cost. Seconds as in Timing."""

    tokens_read: int = 0  # of the prompt
    tokens_reused: int = 0
    timing: Timing = field(default_factory=Timing)


class Chat:
    """A model, a conversation, and the settings of the next answer; `say`, `again`, `edit` and `go_on` give one.

    `settings` are those of `Options.of` named in CHAT_SETTINGS; without a seed one is drawn, and all answers use it.
    `context` makes the window smaller than the model's. `plain` asks for the transcript where the model has a chat
    template. `draft` is a smaller model that guesses tokens. Raises UsageError for a setting that is unknown or out of
    range, or a draft model with another vocabulary.
    """

    def __init__(
        self,
        model: Model,
        conversation: Conversation | None = None,
        *,
        settings: ChatSettings | None = None,
        overflow: str = "stop",
        context: int | None = None,
        plain: bool = False,
        draft: Model | None = None,
    ) -> None:
        self.model, self.plain, self.draft = model, plain, model.text_of(draft)
        self.tokenizer: Tokenizer = model.needed_tokenizer
        template = None if plain else find_template(model.text_folder)
        self.format = (
            ChatFormat(template, self.tokenizer)
            if template
            else ChatFormat.transcript(self.tokenizer)
        )
        self.settings: dict[str, Any] = {}
        self.configure(**(settings or {}))
        self.readings: list[Reading] = []
        self._counted: tuple[Any, int | MinigenError] = (
            None,
            0,
        )  # a conversation, and its tokens, or why it has none
        self.left_out = LeftOut(self.format)
        self.shared = SharedText(model.runner)  # what the model has read
        self.set_window(overflow, context)
        self.conversation = Conversation()
        if conversation is not None:
            self.take(conversation)

    # -- settings -----------------------------------------------------------------------------------------------------
    def configure(self, **settings: Any) -> None:
        """Changes settings; None takes one back to its default. Raises UsageError and changes nothing for a bad one."""
        for name in settings:
            if name not in CHAT_SETTINGS:
                raise UsageError(f"{name} is no setting of a chat: {advice(name, CHAT_SETTINGS)}")
        merged = {
            name: value for name, value in (self.settings | settings).items() if value is not None
        }
        options = Options.of(**merged)
        if any(map(has_half_character, options.stop)):
            raise UsageError("stop is not valid Unicode: it has half of a surrogate pair")
        if options.speculate is not None or self.draft is not None:
            check_speculation(self.model.runner, options, self.draft is not None)
        self.options = options
        self.settings = merged | {"seed": self.options.sampling.seed}

    def set_window(self, overflow: str, context: int | None = None) -> None:
        """The policy for a conversation that is longer than the window. Raises UsageError or ContextError."""
        architecture = self.model.architecture
        if context is not None:
            if architecture.context is None:
                raise UsageError("this model has no context to make smaller: drop --context")
            if not 8 <= context <= architecture.context:
                raise UsageError(
                    f"context is {context}: it must be from 8 to the model's {architecture.context}"
                )
            architecture = replace(architecture, context=context)  # type: ignore[type-var]
        window = Window(architecture.context, overflow)
        if overflow == "sinks":
            architecture = architecture.with_sinks(SINKS)
        self.window, self.context = window, context
        if self.shared.runner.architecture != architecture:  # what has been read may stay
            self.shared = SharedText(replace(self.model.runner, architecture=architecture))

    @property
    def used(self) -> int:
        """The tokens of the conversation that are in the window, where nothing has left it."""
        talk = self.conversation
        of = (list(talk.spoken), talk.system)
        if of != self._counted[0]:  # asked for at every key that is pressed
            try:
                counted: int | MinigenError = (
                    len(self.format.ids(talk, talk.first, generate=False)) if talk.spoken else 0
                )
            except MinigenError as error:
                counted = error
            self._counted = of, counted
        used = self._counted[1]
        if isinstance(used, MinigenError):
            raise used
        return (
            used if self.window.bound is None else min(used, self.window.bound)
        )  # how the last turn ends may not fit

    def warning(self, used: int | None = None) -> tuple[str, str] | None:
        """What to say before the window overflows, with a name for its kind; None where it has room."""
        return self.window.warning(
            self.used if used is None else used, self.window.answer(self.options.max_tokens)
        )

    def set_system(self, text: str | None) -> None:
        """The system prompt. Raises ChatError, and leaves the old one, where the template does not take it; warns
        where the template leaves it out.
        """
        first = Conversation([Message("user", "Hello")], text)
        self.format.ids(first)
        self.conversation.system = text
        self.left_out.tell(first, 0)

    def take(self, conversation: Conversation) -> None:
        """Goes on with another conversation, which may come from a file: see `fitted`."""
        self.conversation = fitted(conversation, self.tokenizer, self.model.architecture.vocab_size)
        self.left_out.tell(self.conversation, self.conversation.first)

    # -- answers ------------------------------------------------------------------------------------------------------
    # A message or a request that is refused leaves the conversation as it was. `on_read(done, all)` is called while
    # the prompt is read. Raised are ChatError where the template refuses, ContextError where the window has no room,
    # TokenizerError for a text without tokens, UsageError where there is nothing to answer, regenerate or continue.
    def say(self, text: str, seed: int | None = None, on_read: OnRead = None) -> Answer:
        """The user's next message, and the answer to it."""
        with self._unchanged_on_error():
            self.conversation.say(text)
            return self._reply(seed, on_read)

    def again(self, seed: int | None = None, on_read: OnRead = None) -> Answer:
        """Another answer in the place of the last one; without a seed, with the one after the last one's.

        A message that has no answer yet gets its first.
        """
        with self._unchanged_on_error():
            if not self.conversation.waits:
                old = self.conversation.take_answer()
                if seed is None:
                    seed = (
                        (old.runs[-1].settings if old.runs else self.settings)["seed"] + 1
                    ) % 2**64
            return self._reply(seed, on_read)

    def edit(self, text: str, seed: int | None = None, on_read: OnRead = None) -> Answer:
        """The last message of the user in other words, and the answer to it."""
        with self._unchanged_on_error():
            self.conversation.take_turn()
            return self.say(text, seed, on_read)

    def go_on(self, seed: int | None = None, on_read: OnRead = None) -> Answer:
        """The last answer, continued from where it ended."""
        talk = self.conversation
        last = talk.last_answer()
        return self._answer(last, len(talk.spoken) - 2, seed, on_read)

    def _reply(self, seed: int | None, on_read: OnRead) -> Answer:
        return self._answer(
            Message("assistant", "", ()), len(self.conversation.spoken) - 1, seed, on_read
        )

    def _answer(self, begun: Message, turn: int, seed: int | None, on_read: OnRead) -> Answer:
        """An answer to the spoken message `turn`, from what is there of it."""
        talk, window = self.conversation, self.window
        going_on = turn < len(talk.spoken) - 1
        limit = window.answer(self.options.max_tokens)
        ids, first = window.fit(self.format, talk, turn, limit, going_on=going_on)
        self.left_out.tell(talk, first)
        if window.bound is not None:
            limit = min(limit, window.bound - len(ids))
        settings = {name: value for name, value in self.settings.items() if name not in GUESSING}
        settings |= {"max_tokens": limit} | ({} if seed is None else {"seed": seed})
        sinks = window.size if window.policy == "sinks" else None
        run = Run(len(begun.ids or ()), 0, "interrupted", first, settings, talk.system, sinks)
        answer = Answer(self, begun, ids, run, on_read)
        answer.left_out = first - talk.first
        return answer

    @contextmanager
    def _unchanged_on_error(self) -> Iterator[None]:
        before = list(self.conversation.spoken)
        try:
            yield
        except BaseException:
            self.conversation.spoken = before
            raise


class Answer:
    """One answer while it is made: iterate for its text as it comes, stop whenever you like, then `finish`."""

    def __init__(
        self, chat: Chat, begun: Message, ids: list[int], run: Run, on_read: OnRead = None
    ) -> None:
        self.chat, self.begun, self.run = chat, begun, run
        self.left_out = (
            0  # spoken messages that the answer before had in its window, and this one has not
        )
        self.reading = Reading()
        guessing = {name: getattr(chat.options, name) for name in GUESSING}
        options = replace(Options.of(**run.settings), **guessing)
        self.stop_ids = chat.model.stop_ids | chat.format.stop_ids
        self.row = Row(list(ids))
        # Now, so that what does not fit is said before the first piece is asked for.
        set_limits([self.row], options, chat.shared.runner.architecture)
        self.text = RowText(chat.tokenizer, self.row, (*options.stop, *chat.format.stops))
        self.reader = KeptReader(chat.shared, on_read)
        timing = self.reading.timing
        self.steps = steps(self.reader, [self.row], options, self.stop_ids, timing, chat.draft)

    def __iter__(self) -> Iterator[str]:
        shared = self.reader.shared
        before = shared.tokens_read
        for _ in self.steps:
            if len(self.row.ids) == 1:
                self.reading.tokens_read = shared.tokens_read - before
                self.reading.tokens_reused = len(self.row.prompt) - self.reading.tokens_read
            piece = self.text.push(self.row, self.stop_ids)
            if piece:
                yield piece

    def finish(self) -> Message:
        """Puts what was said into the conversation, whether the answer is over or not, and returns it."""
        self.steps.close()  # the backend is told that this text is over
        row, begun, talk = self.row, self.begun, self.chat.conversation
        run = replace(self.run, tokens=len(row.ids), finish=row.finish or "interrupted")
        new = row.ids[:-1] if row.ids and row.ids[-1] in self.stop_ids else row.ids
        text = without_half(self.chat.tokenizer, row.prompt, new, self.text.text)
        ids = kept_ids(self.chat.tokenizer, row.prompt, new, text)
        whole = None if ids is None or begun.ids is None else (*begun.ids, *ids)
        message = Message("assistant", begun.content + text, whole, (*begun.runs, run))
        if len(talk.spoken) % 2 == 0:
            talk.take_answer()
        talk.answer(message)
        self.chat.readings.append(self.reading)
        return message

"""What a user can cause, drawn as a tree. Each message is one line: what, which value, what to do.

Our own mistakes are asserts, never these.
"""


class MinigenError(Exception):
    """Something a user can cause and mend; the command line prints it as one line and exits with `exit_code`."""

    exit_code = 1


class UsageError(MinigenError):
    """The command or the call itself is wrong: an unknown setting, a value out of its range."""

    exit_code = 2


class SourceError(MinigenError):
    """No model could be found or fetched at the given place."""


class CheckpointError(MinigenError):
    """A model folder whose config or weights cannot be used."""


class TokenizerError(MinigenError):
    """A tokenizer is missing or broken, or a text cannot be encoded with it."""


class ChatError(MinigenError):
    """A conversation that a chat template refuses, or that does not fit."""


class ContextError(MinigenError):
    """More tokens than the model's context, or than a state has room for."""


class SharedError(MinigenError):
    """What all processes that train together see alike: the first of them says it, the others only end."""


class BackendError(MinigenError):
    """A framework, device or dtype that is not available here."""

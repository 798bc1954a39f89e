"""The state of a prompt on disk. Prompts that begin with it read only what follows.

A file is a saved state (state_file.py) with metadata: the fingerprint of the model, the dtype and
the token ids. The state is the one before the last id. The last one is read again for its logits,
which no state contains, and a recurrent state cannot go back by a token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from minigen import __version__
from minigen.backends.base import Array
from minigen.checkpoints.checkpoint import read_file, read_metadata
from minigen.checkpoints.fingerprint import fingerprint
from minigen.checkpoints.state_file import load_state, save_state
from minigen.errors import CheckpointError, ContextError, UsageError, shown
from minigen.files import check_writable
from minigen.generation.options import Options
from minigen.generation.reader import Reader
from minigen.generation.rows import check_ids
from minigen.generation.shared_text import BranchReader, SharedText, common_length
from minigen.generation.text import TextRun
from minigen.model import Model
from minigen.reading import parse_object
from minigen.tokenizer import Tokenizer

KEY = "minigen_prompt"  # in the file's metadata, with a `PromptInfo` as JSON
FORMAT = 1


@dataclass(frozen=True)
class PromptInfo:
    """The metadata of a file.

    Fields:
        format: The version of the format.
        model: The name of the model, for messages.
        fingerprint: Of the model's files. It must be the same when the file is used.
        dtype: `Model.precision`, which must be the same too.
        ids: The ids of the prompt.
        made_with: The version of minigen that wrote the file.
    """

    format: int
    model: str
    fingerprint: str
    dtype: str
    ids: list[int]
    made_with: str

    def check(self) -> None:
        """Raises ValueError for a value of the wrong type."""
        for text in (self.model, self.fingerprint, self.dtype, self.made_with):
            if not isinstance(text, str) or not text.isprintable():
                raise ValueError
        if not isinstance(self.ids, list) or len(self.ids) < 2:
            raise ValueError
        if any(type(i) is not int or i < 0 for i in self.ids):
            raise ValueError


def save_prompt(
    model: Model, ids: Sequence[int], path: Path, name: str | None = None
) -> PromptInfo:
    """Reads a prompt and saves the state.

    Args:
        model: The model.
        ids: The ids of the prompt.
        path: The file to write.
        name: The name of the model in messages; None for the name of its folder.

    Returns the metadata of the file.

    Raises UsageError for fewer than two tokens or one outside the vocabulary, ContextError if the
    prompt leaves no room for an answer, and MinigenError if the file cannot be written.
    """
    ids = [int(i) for i in check_ids(ids, model.architecture.vocab_size)]
    context = model.architecture.context
    if len(ids) < 2:
        raise UsageError("the prompt is a single token: a cache of it saves nothing")
    if context is not None and len(ids) >= context:
        raise ContextError(
            f"the prompt has {len(ids)} tokens and the model's context is {context}: shorten it to "
            "leave room for an answer"
        )
    check_writable(path)  # raises before the work, not after it
    shared = SharedText(model.runner, len(ids))
    shared.seek(ids[:-1])
    info = PromptInfo(
        format=FORMAT,
        model=name or model.folder.name,
        fingerprint=fingerprint(model.folder),
        dtype=model.precision,
        ids=ids,
        made_with=f"minigen {__version__}",
    )
    save_state(model.runner.ops, shared.state, path, {KEY: json.dumps(asdict(info))})
    return info


def read_prompt_info(path: Path) -> PromptInfo:
    """The metadata of a file, for which no model is needed.

    Raises CheckpointError if the file is missing or damaged, or is not a prompt cache.
    """
    try:
        read_file(path)
        metadata = read_metadata(path)
    except CheckpointError as error:
        # The advice for a damaged model file does not help here.
        raise CheckpointError(str(error).replace("download it again", "build it again")) from error
    try:
        values = parse_object(metadata[KEY])
        version = values["format"]
        if type(version) is not int:
            raise ValueError
        if version == FORMAT:
            info = PromptInfo(**{field.name: values[field.name] for field in fields(PromptInfo)})
            info.check()
            return info
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a prompt cache: make one with minigen cache build"
        ) from error
    raise CheckpointError(
        f"{path} is a prompt cache of format {shown(version)}, and this minigen reads {FORMAT}: "
        "build it again"
    )


def load_prompt(model: Model, path: Path) -> tuple[Any, list[int]]:
    """The state after all tokens of a file except the last, and all its tokens.

    Raises CheckpointError for a damaged file, and for one of another model or dtype.
    """
    info = read_prompt_info(path)
    own = fingerprint(model.folder)
    if info.fingerprint != own:
        raise CheckpointError(
            f"{path} was built by the model {info.model} ({info.fingerprint[:12]}), this one is "
            f"{model.folder.name} ({own[:12]}): build it again with this model"
        )
    if info.dtype != model.precision:
        raise CheckpointError(
            f"{path} was built in {info.dtype} and the model runs in {model.precision}: run it in "
            f"{info.dtype}, or build it again in {model.precision}"
        )
    check_ids(info.ids, model.architecture.vocab_size)
    state, _ = load_state(model.runner.ops, model.architecture, path)
    if state.length != len(info.ids) - 1 or state.batch != 1 or state.starts is not None:
        raise CheckpointError(
            f"{path} holds a state of {state.length} tokens for a prompt of {len(info.ids)}: "
            "build it again"
        )
    return state, info.ids


def shared_text(model: Model, path: Path) -> SharedText:
    """The prompt of a file as a shared text that has been read, except for its last token.

    Raises the errors of `load_prompt`.
    """
    state, ids = load_prompt(model, path)
    shared = SharedText(model.runner, 1)
    shared.state, shared.ids = state, ids[:-1]
    return shared


class CachedReader:
    """A Reader of prompts that begin with a text that has been read.

    Several prompts continue as branches of the text. A single one continues in the text's own
    state, so that the text cannot be used any more.
    """

    ahead = False  # the tokens of a branch must be known before it grows

    def __init__(self, shared: SharedText) -> None:
        self.shared, self.runner = shared, shared.runner
        self.branches = BranchReader(shared)
        self.reader: Reader = self.runner  # to which the state of the prompts belongs

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, Any]:
        if len(prompts) > 1:
            self.reader = self.branches
            return self.branches.prefill(prompts, capacity)
        self.reader = self.runner
        (prompt,) = prompts
        self.shared.tokens_asked += len(prompt)
        self.shared.state.reserve(self.runner.ops, capacity)
        logits = self.shared.seek(prompt, [len(prompt) - 1])
        assert logits is not None
        return logits[:, None], self.shared.state

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Array:
        return self.reader.read(ids, state, at)


@dataclass(frozen=True)
class CachedRun:
    """A run over prompts that begin with a cached one, and the text that they share."""

    run: TextRun
    shared: SharedText


def cached_run(
    model: Model, path: Path, texts: Sequence[str], options: Options, draft: Model | None = None
) -> CachedRun:
    """As `Model.run`, continuing from the prompt in a file.

    Args:
        model: The model.
        path: The file.
        texts: The prompts, which must begin with the tokens of the file.
        options: How to generate.
        draft: A draft model, for speculation.

    Raises the errors of `load_prompt` and `Model.run`, and UsageError for a text that does not
    begin with the tokens of the file.
    """
    info = read_prompt_info(path)
    shared = shared_text(model, path)
    tokenizer, draft_text = model.needed_tokenizer, model.text_of(draft)
    reader = BranchReader(shared) if options.beams > 1 else CachedReader(shared)
    run = TextRun(reader, tokenizer, texts, options, model.stop_ids, draft_text)
    for row in run.rows:
        check_beginning(tokenizer, row.prompt, info.ids, path)
    run.timing.cached_tokens = len(shared.ids)
    return CachedRun(run, shared)


def check_beginning(
    tokenizer: Tokenizer, prompt: Sequence[int], cached: Sequence[int], path: Path
) -> None:
    """Raises UsageError unless a prompt begins with the cached tokens of the file `path`."""
    same = common_length(prompt, cached)
    if same == len(cached):
        return
    if same == len(prompt):
        raise UsageError(
            f"the prompt ends after {same} of the {len(cached)} tokens of {path}: it must begin "
            "with all"
        )
    hint = "give a prompt that begins with it"
    if same == len(cached) - 1:
        # The last token of a text is often a different one if something follows it.
        hint = "build the cache from less of the text"
    there, here = (
        repr(tokenizer.token_bytes(token).decode("utf-8", "replace"))
        for token in (cached[same], prompt[same])
    )
    raise UsageError(
        f"the prompt does not begin with the {len(cached)} tokens of {path}: token {same + 1} is "
        f"{there} there and {here} in the prompt; {hint}"
    )

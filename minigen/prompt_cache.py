"""The state of a prompt on disk: read once, then every prompt that begins with it reads only what follows.

A file is a saved state (state_file.py) with metadata: the model by its fingerprint, the dtype and the token ids. The
state is the one before the last of the ids, so that the logits after it can be computed whatever the architecture: a
recurrent state cannot go back a token.
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

KEY = "minigen_prompt"  # of the file's metadata: what was read by which model, as JSON
FORMAT = 1


@dataclass(frozen=True)
class PromptInfo:
    """What a file says of itself. `model` is for people; what counts are `fingerprint` and `dtype`, the model's
    `precision`."""

    format: int
    model: str
    fingerprint: str
    dtype: str
    ids: list[int]
    made_with: str

    def check(self) -> None:
        """Raises ValueError for values of the wrong kind."""
        texts = (self.model, self.fingerprint, self.dtype, self.made_with)
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise ValueError
        if (
            not isinstance(self.ids, list)
            or len(self.ids) < 2
            or any(type(i) is not int or i < 0 for i in self.ids)
        ):
            raise ValueError


def save_prompt(
    model: Model, ids: Sequence[int], path: Path, name: str | None = None
) -> PromptInfo:
    """Reads the tokens and saves the state; `name` is what to call the model, its folder's name if not given.

    Raises UsageError for fewer than two tokens or one outside the vocabulary, ContextError where they leave no room
    for an answer, MinigenError where the file cannot be written.
    """
    ids, context = (
        [int(i) for i in check_ids(ids, model.architecture.vocab_size)],
        model.architecture.context,
    )
    if len(ids) < 2:
        raise UsageError("the prompt is a single token: a cache of it saves nothing")
    if context is not None and len(ids) >= context:
        raise ContextError(
            f"the prompt has {len(ids)} tokens and the model's context is {context}: shorten it to leave room for an "
            "answer"
        )
    check_writable(path)  # said before the work, not after it
    shared = SharedText(model.runner, len(ids))
    shared.seek(ids[:-1])
    name = name or model.folder.name
    info = PromptInfo(
        FORMAT, name, fingerprint(model.folder), model.precision, ids, f"minigen {__version__}"
    )
    save_state(model.runner.ops, shared.state, path, {KEY: json.dumps(asdict(info))})
    return info


def read_prompt_info(path: Path) -> PromptInfo:
    """What a file says of itself; no model is needed. Raises CheckpointError where it is damaged or no such file."""
    try:
        read_file(path)
        metadata = read_metadata(path)
    except CheckpointError as error:
        # What a broken model file is told to do does not help here.
        raise CheckpointError(str(error).replace("download it again", "build it again")) from error
    try:
        about = parse_object(metadata[KEY])
        if about["format"] == FORMAT:
            info = PromptInfo(**{field.name: about[field.name] for field in fields(PromptInfo)})
            info.check()
            return info
        found = about["format"]
        if type(found) is not int:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no prompt cache: make one with minigen cache build"
        ) from error
    what = f"{path} is a prompt cache of format {shown(found)}"
    raise CheckpointError(f"{what}, this minigen reads {FORMAT}: build it again")


def load_prompt(model: Model, path: Path) -> tuple[Any, list[int]]:
    """The state of all tokens of a file but the last, and all its tokens.

    Raises CheckpointError, naming what the file has and what is wanted, for one of another model or dtype.
    """
    info = read_prompt_info(path)
    own = fingerprint(model.folder)
    if info.fingerprint != own:
        raise CheckpointError(
            f"{path} was built by the model {info.model} ({info.fingerprint[:12]}), this one is {model.folder.name} "
            f"({own[:12]}): build it again with this model"
        )
    if info.dtype != model.precision:
        raise CheckpointError(
            f"{path} was built in {info.dtype} and the model runs in {model.precision}: run it in {info.dtype}, or "
            f"build it again in {model.precision}"
        )
    check_ids(info.ids, model.architecture.vocab_size)
    state, _ = load_state(model.runner.ops, model.architecture, path)
    if state.length != len(info.ids) - 1 or state.batch != 1 or state.starts is not None:
        raise CheckpointError(
            f"{path} holds a state of {state.length} tokens for a prompt of {len(info.ids)}: build it again"
        )
    return state, info.ids


def shared_text(model: Model, path: Path) -> SharedText:
    """The prompt of a file as a shared text that has been read, but for its last token."""
    state, ids = load_prompt(model, path)
    shared = SharedText(model.runner, 1)
    shared.state, shared.ids = state, ids[:-1]
    return shared


class CachedReader:
    """A Reader of prompts that begin with a text which has been read.

    Several prompts go on as branches of the text; a lone one goes on in the text's own state, of
    which the text does not know any more then.
    """

    ahead = False  # branches need their tokens

    def __init__(self, shared: SharedText) -> None:
        self.shared, self.runner = shared, shared.runner
        self.branches = BranchReader(shared)
        self.reader: Reader = self.runner  # whose state the prompts are in

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
    """A run over prompts that begin with a cached one, and the text they share, which counts what was read."""

    run: TextRun
    shared: SharedText


def cached_run(
    model: Model, path: Path, texts: Sequence[str], options: Options, draft: Model | None = None
) -> CachedRun:
    """`Model.run` from the prompt in a file on. Raises UsageError for a text that does not begin with its tokens."""
    info = read_prompt_info(path)
    shared = shared_text(model, path)
    tokenizer, drafts = model.needed_tokenizer, model.text_of(draft)
    reader = BranchReader(shared) if options.beams > 1 else CachedReader(shared)
    run = TextRun(reader, tokenizer, texts, options, model.stop_ids, drafts)
    for row in run.rows:
        check_beginning(tokenizer, row.prompt, info.ids, path)
    run.timing.cached_tokens = len(shared.ids)
    return CachedRun(run, shared)


def check_beginning(
    tokenizer: Tokenizer, prompt: Sequence[int], cached: Sequence[int], path: Path
) -> None:
    """Raises UsageError, naming the first difference, unless a prompt begins with the cached tokens."""
    same = common_length(prompt, cached)
    if same == len(cached):
        return
    if same == len(prompt):
        raise UsageError(
            f"the prompt ends after {same} of the {len(cached)} tokens of {path}: it must begin with all"
        )

    def shown(token: int) -> str:
        return repr(tokenizer.token_bytes(token).decode("utf-8", "replace"))

    # A text's last token is often another one when something follows it.
    hint = (
        "build the cache from less of the text"
        if same == len(cached) - 1
        else "give a prompt that begins with it"
    )
    raise UsageError(
        f"the prompt does not begin with the {len(cached)} tokens of {path}: token {same + 1} is "
        f"{shown(cached[same])} there and {shown(prompt[same])} in the prompt; {hint}"
    )

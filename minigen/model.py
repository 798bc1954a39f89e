"""A loaded model, as a user of the library holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from minigen.backends import choose_backend, get_backend
from minigen.checkpoints.loading import stored_dtype
from minigen.checkpoints.opening import generation_file, open_stored, text_folder
from minigen.checkpoints.quantization import name_of
from minigen.checkpoints.weight_files import read_object
from minigen.errors import CheckpointError, ContextError, TokenizerError, UsageError, shown
from minigen.generation.dispatch import steps
from minigen.generation.options import Options
from minigen.generation.reader import Runner
from minigen.generation.rows import Row, check_ids
from minigen.generation.shared_text import SharedText
from minigen.generation.speculation import draft_text
from minigen.generation.text import Completion, TextRun
from minigen.models.architecture import Architecture, kv_name
from minigen.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from minigen.generation.settings import CompletionSettings, IdSettings, TextSettings


def load(
    source: str | os.PathLike[str] | None = None,
    backend: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    *,
    quant: str | int | None = None,
    kv_bits: int | None = None,
    threads: int | None = None,
    offline: bool = False,
) -> Model:
    """Loads a model from a folder, a hub id (`org/name[@revision]`), or, with None, the one that ships. A folder with a
    LoRA adapter is the model that it belongs to, with the adapter merged in.

    `backend` is "auto", "torch" or "mlx"; `device` what the framework calls it; `dtype` float32, bfloat16 or float16
    (without it: float32 on a CPU, the checkpoint's own on a GPU). `quant` holds the weights of a plain model in "8" or
    "4" bits, or "mixed": 4, with the embedding and the head in 8. `kv_bits` holds the keys and values of what a decoder
    has read in 8 or 4. `threads` is how many threads of the CPU torch computes with, in the whole process. `offline`
    never opens a socket. Raises MinigenError: SourceError, CheckpointError, BackendError or UsageError, each one line.
    """
    backend = choose_backend(backend)
    stored = open_stored(source, offline=offline)
    ops = get_backend(backend, device, dtype, stored=stored_dtype(stored.tensors), threads=threads)
    packings = stored.choose(quant)
    runner = Runner(ops, stored.architecture.with_kv_bits(kv_bits), stored.params(ops, packings))
    return Model(runner, stored.folder, stored.config, stored.base, name_of(packings))


class Model:
    """A decoder or recurrent model on one backend; `load` makes it.

    `config` is its config.json, `architecture` what that makes, `tokenizer` None for a folder without one.
    `base` is the folder of an adapter's model, which has what the adapter's own does not. `quant` is "q8",
    "mxfp4" or "mixed", say, for quantized weights, else "".
    """

    def __init__(
        self,
        runner: Runner,
        folder: Path,
        config: Mapping[str, Any],
        base: Path | None = None,
        quant: str = "",
    ) -> None:
        self.runner, self.folder, self.config, self.base = runner, folder, config, base or folder
        self.quant = quant

    def __repr__(self) -> str:
        return (
            f"Model({str(self.folder)!r}, backend={self.backend!r}, device={self.device!r}, "
            f"dtype={self.precision!r})"
        )

    @property
    def architecture(self) -> Architecture:
        """What it is made of, and what it computes."""
        return self.runner.architecture

    @property
    def backend(self) -> str:
        return self.runner.ops.name

    @property
    def device(self) -> str:
        return self.runner.ops.device

    @property
    def dtype(self) -> str:
        return self.runner.ops.dtype

    @property
    def kv(self) -> str:
        """ "kv8" or "kv4" for keys and values in so many bits, else ""."""
        return kv_name(self.architecture)

    @property
    def precision(self) -> str:
        """What decides its numbers beside its files: "float32", "float32 q4", "float32 kv8"."""
        return " ".join(filter(None, (self.dtype, self.quant, self.kv)))

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """Read when first needed. Raises TokenizerError where its files are broken."""
        return load_tokenizer(self.text_folder, self.config)

    @property
    def text_folder(self) -> Path:
        """Where the tokenizer and the chat template are."""
        return text_folder(self.folder, self.base)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a text: eos_token_id of generation_config.json and config.json, and the tokenizer's."""
        try:
            tokenizer = self.tokenizer
        except TokenizerError:  # those who bring ids need none; whoever brings text is told
            tokenizer = None
        return frozenset(
            stop_ids(generation_file(self.folder, self.base), self.config, tokenizer, self.base)
        )

    @property
    def needed_tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises TokenizerError where the folder has none."""
        if self.tokenizer is None:
            raise TokenizerError(
                f"{self.folder} has no tokenizer (tokenizer.json, vocab.json, ...), so it takes no text: "
                "add one, or use generate_ids"
            )
        return self.tokenizer

    # -- text ---------------------------------------------------------------------------------------------------------
    @overload
    def generate(  # type: ignore[overload-overlap]  # a text is a sequence of texts too
        self, text: str, *, draft: Model | None = None, **settings: Unpack[TextSettings]
    ) -> str: ...

    @overload
    def generate(
        self, text: Sequence[str], *, draft: Model | None = None, **settings: Unpack[TextSettings]
    ) -> list[str]: ...

    def generate(
        self,
        text: str | Sequence[str],
        *,
        draft: Model | None = None,
        **settings: Unpack[TextSettings],
    ) -> str | list[str]:
        """The text that follows a prompt; for a list of prompts, run as one batch, a list.

        In float32 each of these is the text that its prompt gives alone. In 16 bits on torch the rows of a batch are
        rounded in another way, and a near tie may fall otherwise.

        `settings` are those of `Options.of` (max_tokens, temperature, seed, stop, ...) but for num_samples, which
        `complete` takes. One prompt may be sped up by guesses, which change no token but by rounding:
        `speculate="lookup"` takes them from the text, `draft` is a smaller model with the same tokenizer. After an
        empty prompt a document begins, as `Tokenizer.encode_prompt` has it. Raises UsageError for a setting that is
        unknown or out of range or an empty prompt that nothing can begin, ContextError for one that does not fit.
        """
        check_one_sample("generate", settings)
        completions = self.complete(
            [text] if isinstance(text, str) else text, draft=draft, **settings
        )
        return completions[0].text if isinstance(text, str) else [c.text for c in completions]

    def stream(
        self, text: str, *, draft: Model | None = None, **settings: Unpack[TextSettings]
    ) -> Iterator[str]:
        """The same text in pieces, as they come: never half a character, never a part of a stop string."""
        check_one_sample("stream", settings)
        run = self.run([text], Options.of(**settings), draft)
        return (piece for _, piece in run)

    def complete(
        self,
        texts: Sequence[str],
        *,
        draft: Model | None = None,
        **settings: Unpack[CompletionSettings],
    ) -> list[Completion]:
        """Text, ids, how it ended and log-probabilities for each prompt, `num_samples` of each side by side."""
        run = self.run(texts, Options.of(**settings), draft)
        for _ in run:
            pass
        return run.completions()

    def run(self, texts: Sequence[str], options: Options, draft: Model | None = None) -> TextRun:
        """A run that is ready to be iterated; what is wrong with the prompts is raised here."""
        return TextRun(
            self.runner, self.needed_tokenizer, texts, options, self.stop_ids, self.text_of(draft)
        )

    def text_of(self, draft: Model | None) -> SharedText | None:
        """The text of a draft model for this one. Raises UsageError where it has another vocabulary."""
        return None if draft is None else draft_text(self.runner, draft.runner)

    # -- ids ----------------------------------------------------------------------------------------------------------
    def logits(self, ids: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Logits (B, T, V) float32 for ids (B, T): row t is the prediction after token t.

        Raises UsageError for ids that are no such array or outside the vocabulary, ContextError for too many.
        """
        try:
            array = np.asarray(ids)
        except ValueError:
            raise UsageError(
                "ids must have the shape (batch, tokens); these rows are of unequal lengths"
            ) from None
        if array.ndim != 2 or array.size == 0:
            raise UsageError(
                f"ids must have the shape (batch, tokens) and not be empty; they have {array.shape}"
            )
        check_ids(array.reshape(-1), self.architecture.vocab_size)
        if self.architecture.context is not None and array.shape[1] > self.architecture.context:
            raise ContextError(
                f"{array.shape[1]} tokens exceed the model's context of {self.architecture.context}"
            )
        ops = self.runner.ops
        logits = ops.numpy(self.architecture.forward(ops, self.runner.params, ops.asarray(array)))
        return logits.astype(np.float32, copy=False)

    def generate_ids(
        self,
        rows: Sequence[Sequence[int]],
        *,
        draft: Model | None = None,
        **settings: Unpack[IdSettings],
    ) -> list[list[int]]:
        """The new ids of each row of ids, run as one batch of any lengths; a row that ends early has its stop id last.

        Nothing is added to the rows. Settings and errors are those of `generate`, less what concerns text.
        """
        for name in ("stop", "special", "num_samples", "logprobs"):
            if name in settings:
                raise UsageError(f"{name} is no setting of generate_ids: call complete with text")
        options = Options.of(**settings)
        batch = [
            Row([int(i) for i in check_ids(row, self.architecture.vocab_size)]) for row in rows
        ]
        ends = () if options.ignore_eos else self.stop_ids
        for _ in steps(self.runner, batch, options, ends, draft=self.text_of(draft)):
            pass
        return [row.ids for row in batch]


def check_one_sample(method: str, settings: Mapping[str, Any]) -> None:
    """Raises UsageError where several texts are asked for."""
    if settings.get("num_samples", 1) != 1:
        raise UsageError(f"{method} gives one text per prompt: call complete for num_samples")


def stop_ids(
    path: Path, config: Mapping[str, Any], tokenizer: Tokenizer | None, folder: Path
) -> set[int]:
    """eos_token_id of generation_config.json, which is `path`, and of config.json in `folder`, each a number or a list,
    and the tokenizer's own."""
    found: set[int] = set()
    for where, values in (
        (path, read_object(path) if path.is_file() else {}),
        (folder / "config.json", config),
    ):
        ids = values.get("eos_token_id")
        ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
        if not all(type(i) is int for i in ids):
            raise CheckpointError(
                f"{where}: eos_token_id is {shown(values['eos_token_id'])}: it must be an id or a list of ids"
            )
        found.update(ids)
    if tokenizer is not None and tokenizer.eos_id is not None:
        found.add(tokenizer.eos_id)
    return found

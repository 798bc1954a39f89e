"""A loaded model, as a user of the library sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from minigen.backends import choose_backend, get_backend
from minigen.checkpoints.loading import stored_dtype
from minigen.checkpoints.opening import open_stored
from minigen.checkpoints.quantization import name_of
from minigen.errors import ContextError, UsageError
from minigen.generation.dispatch import steps
from minigen.generation.loaded_model import LoadedModel
from minigen.generation.options import Options
from minigen.generation.reader import Runner
from minigen.generation.rows import Row, check_ids
from minigen.generation.shared_text import SharedText
from minigen.generation.speculation import draft_text
from minigen.generation.text import Completion, TextRun

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
    """Loads a model.

    Args:
        source: A folder, a hub id (`org/name[@revision]`), or None for the model that comes with
            minigen. A folder with a LoRA adapter gives the adapter's base model with the adapter
            merged into it.
        backend: "auto", "torch" or "mlx".
        device: A device by the framework's name; None to choose one.
        dtype: "float32", "bfloat16" or "float16"; None for float32 on a CPU, and the checkpoint's
            dtype on a GPU.
        quant: Quantizes the weights to 8 or 4 bits, or "mixed": 4 bits, with the embedding and the
            head in 8. None keeps them as they are stored.
        kv_bits: Quantizes the keys and values that a decoder keeps, to 8 or 4 bits.
        threads: How many CPU threads torch computes with, in the whole process.
        offline: Never opens a network connection.

    Raises SourceError, CheckpointError, BackendError or UsageError, with a message of one line.
    """
    backend = choose_backend(backend)
    stored = open_stored(source, offline=offline)
    ops = get_backend(backend, device, dtype, stored=stored_dtype(stored.tensors), threads=threads)
    packings = stored.choose(quant)
    runner = Runner(ops, stored.architecture.with_kv_bits(kv_bits), stored.params(ops, packings))
    return Model(runner, stored.folder, stored.config, stored.base, name_of(packings))


class Model(LoadedModel):
    """A model that generates text. `load` makes it; see `LoadedModel` for its attributes."""

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
        """Generates the text that follows a prompt, or each of several prompts, run as one batch.

        In float32, a prompt gives the same text in a batch as alone. In 16-bit dtypes on torch, two
        nearly equal tokens may swap, because a batch is rounded differently.

        Args:
            text: A prompt or a list of prompts. After an empty prompt, a new document begins.
            draft: A smaller model with the same tokenizer, which speeds up one prompt by guesses.
                So does the setting `speculate="lookup"`, with guesses from the text itself. Guesses
                change the text only by rounding.
            **settings: The settings of `Options.of` (max_tokens, temperature, seed, stop, ...),
                except num_samples and logprobs, which `complete` accepts.

        Returns the text after the prompt; a list of texts for a list of prompts.

        Raises UsageError for a setting that is unknown or out of range, and for an empty prompt if
        the tokenizer has no token that begins a text. Raises ContextError for a prompt that does
        not fit into the context.
        """
        check_one_sample("generate", settings)
        if isinstance(text, str):
            (completion,) = self.complete([text], draft=draft, **settings)
            return completion.text
        completions = self.complete(text, draft=draft, **settings)
        return [completion.text for completion in completions]

    def stream(
        self, text: str, *, draft: Model | None = None, **settings: Unpack[TextSettings]
    ) -> Iterator[str]:
        """The text of `generate` for one prompt, in pieces, as they are generated.

        A piece never ends within a character, and never contains a part of a stop string. The
        errors are those of `generate`; the prompt and the settings are checked at once.
        """
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
        """As `generate`, with more about each text: see `Completion`.

        Returns `num_samples` completions for each prompt; those of a prompt are next to each other.
        """
        run = self.run(texts, Options.of(**settings), draft)
        for _ in run:
            pass
        return run.completions()

    def run(self, texts: Sequence[str], options: Options, draft: Model | None = None) -> TextRun:
        """A run that is ready to be iterated. Raises at once what is wrong with the prompts."""
        return TextRun(
            self.runner, self.needed_tokenizer, texts, options, self.stop_ids, self.text_of(draft)
        )

    def text_of(self, draft: Model | None) -> SharedText | None:
        """The text of a draft model for this one; None for None.

        Raises UsageError if the two models have different numbers of ids.
        """
        if draft is None:
            return None
        return draft_text(self.runner, draft.runner)

    # -- ids --
    def logits(self, ids: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The logits after each of the given ids.

        Args:
            ids: (B, T), whole numbers.

        Returns the logits (B, T, V) float32; those at t predict the token after t.

        Raises UsageError for ids that have another shape or are outside the vocabulary, and
        ContextError for more than the context.
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
        """Generates the ids that follow each row of ids, run as one batch.

        Args:
            rows: The ids of each prompt, which are used as they are. Lengths may differ.
            draft: That of `generate`.
            **settings: The settings of `generate`, except stop and special.

        Returns the new ids of each row. A row that ends before max_tokens has its stop id last.

        Raises the errors of `generate`, and UsageError for ids outside the vocabulary.
        """
        for name in ("stop", "special", "num_samples", "logprobs"):
            if name in settings:
                raise UsageError(
                    f"{name} is not a setting of generate_ids: call complete with text"
                )
        options = Options.of(**settings)
        batch: list[Row] = []
        for row in rows:
            ids = check_ids(row, self.architecture.vocab_size)
            batch.append(Row([int(i) for i in ids]))
        stop_ids = frozenset[int]() if options.ignore_eos else self.stop_ids
        for _ in steps(self.runner, batch, options, stop_ids, draft=self.text_of(draft)):
            pass
        return [row.ids for row in batch]


def check_one_sample(method: str, settings: Mapping[str, Any]) -> None:
    """Raises UsageError if the settings ask for several texts per prompt."""
    if settings.get("num_samples", 1) != 1:
        raise UsageError(f"{method} gives one text per prompt: call complete for num_samples")

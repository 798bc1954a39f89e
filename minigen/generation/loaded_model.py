"""What a loaded model consists of, without what it can do: weights, files, tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from minigen.checkpoints.opening import text_folder
from minigen.checkpoints.stop_ids import declared_stop_ids
from minigen.errors import TokenizerError
from minigen.generation.reader import Runner
from minigen.models.architecture import Architecture, kv_name
from minigen.tokenizer import Tokenizer, load_tokenizer


class LoadedModel:
    """A decoder or recurrent model on one backend.

    Attributes:
        runner: The backend, the architecture and the weights.
        folder: The model's folder.
        config: The content of config.json.
        base: For an adapter, the folder of its base model, which has the files that the adapter's
            folder lacks. Otherwise the same as `folder`.
        quant: The quantization of the weights, such as "q8", "mxfp4" or "mixed"; "" for none.
    """

    def __init__(
        self,
        runner: Runner,
        folder: Path,
        config: Mapping[str, Any],
        base: Path | None = None,
        quant: str = "",
    ) -> None:
        self.runner, self.folder, self.config = runner, folder, config
        self.base = base or folder
        self.quant = quant

    def __repr__(self) -> str:
        return (
            f"Model({str(self.folder)!r}, backend={self.backend!r}, device={self.device!r}, "
            f"dtype={self.precision!r})"
        )

    @property
    def architecture(self) -> Architecture:
        """The layers of the model, and what they compute."""
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
        """The quantization of keys and values: "kv8", "kv4", or "" for none."""
        return kv_name(self.architecture)

    @property
    def precision(self) -> str:
        """What affects the results apart from the files: "float32", "float32 q4", "float32 kv8"."""
        return " ".join(filter(None, (self.dtype, self.quant, self.kv)))

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, which is read when it is first needed; None if the folder has none.

        Raises TokenizerError if its files are damaged.
        """
        return load_tokenizer(self.text_folder, self.config)

    @property
    def text_folder(self) -> Path:
        """The folder with the tokenizer and the chat template."""
        return text_folder(self.folder, self.base)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a text: those that the model's files declare, and the tokenizer's.

        Raises CheckpointError if an eos_token_id is not an id or a list of ids.
        """
        ids = declared_stop_ids(self.folder, self.base, self.config)
        try:
            tokenizer = self.tokenizer
        except TokenizerError:  # generating ids needs no tokenizer; the text methods raise this
            tokenizer = None
        if tokenizer is not None and tokenizer.eos_id is not None:
            ids.add(tokenizer.eos_id)
        return frozenset(ids)

    @property
    def needed_tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises TokenizerError if the folder has none, or it is damaged."""
        if self.tokenizer is None:
            raise TokenizerError(
                f"{self.folder} has no tokenizer (tokenizer.json, vocab.json, ...), so it takes no "
                "text: add one, or use generate_ids"
            )
        return self.tokenizer

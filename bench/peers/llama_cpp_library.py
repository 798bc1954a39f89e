"""llama.cpp through llama-cpp-python's bindings of its C functions.

They are called as llama-bench and its batched bench do. Flash attention is on, keys and values are
in float16 (its default), and the weights are read into memory first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigen.errors import MinigenError

from .gguf_file import gguf_of, quiet
from .peer import Peer, PeerSubject

CELL = 256  # its caches are as long as a multiple of this


@dataclass
class Context:
    """llama.cpp's, for so many rows; `lengths` of what they have read is the same for all."""

    pointer: Any
    rows: int
    batch: Any
    length: int = 0
    outputs: list[int] = field(default_factory=list)  # where in the last batch the logits are


class LlamaCpp(Peer):
    name = "llama.cpp"
    packages = ("llama-cpp-python", "gguf")
    dtypes = ("float32", "bfloat16", "8-bit", "4-bit")

    @classmethod
    def prepare(cls, subject: PeerSubject) -> None:
        cls.file(subject)

    @classmethod
    def file(cls, s: PeerSubject) -> str:
        return str(gguf_of(s.model.split()[0], s.config, str(s.dtype), s.threads, s.cache))

    def load(self) -> None:
        import llama_cpp

        self.lib, self.contexts = llama_cpp, dict[tuple[int, int], Context]()
        quiet(llama_cpp)
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        if hasattr(settings, "use_mmap"):
            settings.use_mmap = False
        else:
            settings.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        path = self.file(self.subject)
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), settings)
        if not self.model:
            raise MinigenError(f"llama.cpp cannot read {path}: remove it, and it is made again")

    def context(self, rows: int, length: int) -> Context:
        """One for so many rows of this length, empty; they are kept."""
        lib, length = self.lib, -(-length // CELL) * CELL
        if (rows, length) not in self.contexts:
            settings = lib.llama_context_default_params()
            settings.n_ctx, settings.n_seq_max = rows * length, rows
            settings.n_batch = rows * length
            settings.n_threads = settings.n_threads_batch = self.threads()
            settings.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
            pointer = lib.llama_init_from_model(self.model, settings)
            if not pointer:
                raise MinigenError(f"llama.cpp has no memory for {rows} rows of {length} tokens")
            self.contexts[rows, length] = Context(
                pointer, rows, lib.llama_batch_init(rows * length, 0, 1)
            )
        found = self.contexts[rows, length]
        lib.llama_memory_clear(lib.llama_get_memory(found.pointer), True)
        found.length = 0
        return found

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Any, Any]:
        context = self.context(len(prompts), capacity)
        return self.read(prompts, context), context

    def decode(self, ids: Sequence[int], state: Any) -> Any:
        return self.read([[i] for i in ids], state)

    def read(self, ids: Sequence[Sequence[int]], context: Context) -> Context:
        batch, new, at = context.batch, len(ids[0]), 0
        context.outputs = []
        for row, tokens in enumerate(ids):
            for i, token in enumerate(tokens):
                batch.token[at], batch.pos[at] = token, context.length + i
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, row
                batch.logits[at] = i == new - 1
                at += 1
            context.outputs.append(at - 1)
        batch.n_tokens, context.length = at, context.length + new
        failed = self.lib.llama_decode(context.pointer, batch)
        if failed:
            raise MinigenError(f"llama.cpp's llama_decode failed with {failed}")
        return context

    def sync(self, logits: Any) -> None:
        self.lib.llama_synchronize(logits.pointer)

    def best(self, logits: Any) -> list[int]:
        size = (self.architecture.vocab_size,)
        rows = (self.lib.llama_get_logits_ith(logits.pointer, i) for i in logits.outputs)
        return [int(np.argmax(np.ctypeslib.as_array(row, size))) for row in rows]

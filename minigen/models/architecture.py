"""What the rest of minigen asks of a model, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from minigen.backends.base import Array, Backend, Tree
from minigen.errors import UsageError
from minigen.models.decoder import Decoder
from minigen.models.state import Starts


class Architecture(Protocol):
    """What `generate`, training and benchmarks need of a model: they never ask which one runs."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int | None: ...

    def shapes(self) -> Tree: ...

    def new_state(self, ops: Backend, batch: int, length: int, starts: Starts | None = None) -> Any: ...

    def forward(
        self, ops: Backend, params: Tree, ids: Array, state: Any = None, at: Sequence[int] | None = None
    ) -> Array: ...

    def record(
        self, ops: Backend, params: Tree, ids: Array, state: Any, at: Sequence[int] | None = None
    ) -> Array | None:
        """`forward` at whatever position, for `Backend.replay`; None where there is no such thing."""
        ...


def with_kv_bits(architecture: Architecture, bits: int | None) -> Architecture:
    """The architecture with a cache of so many bits a number, itself for None. Raises UsageError as `Decoder` does, and
    for one that has no cache."""
    if bits is None:
        return architecture
    if not isinstance(architecture, Decoder):
        raise UsageError("a recurrent model keeps no keys and values: leave kv_bits (--kv-bits) out")
    return architecture.with_kv_bits(bits)


def kv_name(architecture: Architecture) -> str:
    """ "kv8" or "kv4" for a cache of so many bits a number, else ""."""
    bits = architecture.kv_bits if isinstance(architecture, Decoder) else None
    return f"kv{bits}" if bits else ""

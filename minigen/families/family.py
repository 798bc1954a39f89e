"""What a checkpoint family is: how its config.json becomes an architecture, and its names a parameter tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from minigen.backends.base import Array, Backend, Tree
from minigen.checkpoint import TensorInfo
from minigen.decoder import Decoder
from minigen.errors import UsageError
from minigen.families.config import HubConfig
from minigen.state import Starts


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


@dataclass(frozen=True)
class Source:
    """Where an array of the tree lies in a checkpoint: one tensor, or several that are joined along axis 0.

    `transposed`: the checkpoint stores it (in, out), as GPT-2's Conv1D does.
    """

    names: tuple[str, ...]
    transposed: bool = False


class Buffer(NamedTuple):
    """A stored tensor that a model computes itself. `is_same` says whether its values are those that are computed, and
    `computed` what these are, for a warning where they are not.
    """

    is_same: Callable[[Any, TensorInfo], bool]  # of the architecture and the tensor
    computed: str


@dataclass(frozen=True)
class Family:
    """`names` maps a path of the parameter tree to its Source, with `*` for the layer's index on both sides.

    `prefix` is what the names begin with; a checkpoint saved without it loads all the same. `mlx_prefix` is what mlx-lm
    writes in its place, where that is another: nothing is transposed there. Tensors that match a key of `ignored`
    (regular expressions, without the prefix) are buffers, which the model computes itself.
    """

    build: Callable[[HubConfig], Architecture]
    names: Mapping[str, Source]
    prefix: str = ""
    ignored: Mapping[str, Buffer] = field(default_factory=dict)
    mlx_prefix: str = ""


__all__ = ["Architecture", "Buffer", "Family", "HubConfig", "Source"]

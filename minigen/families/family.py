"""What a family of checkpoints is: from config.json to an architecture, from names to a tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from minigen.families.config import HubConfig
from minigen.models.architecture import Architecture
from minigen.models.tensor_info import TensorInfo


@dataclass(frozen=True)
class Source:
    """Where a checkpoint stores an array of the parameter tree.

    Fields:
        names: The tensor, or several that are joined along axis 0. Names may contain the indices
            of the path, such as `{layer}`, and one index that the path does not have: the tensors
            of all its values are then stacked along a new first axis, as in
            `model.layers.{layer}.experts.{expert}.w1.weight`.
        transposed: Whether it is stored as (in, out), as GPT-2's Conv1D is.
    """

    names: tuple[str, ...]
    transposed: bool = False


class Buffer(NamedTuple):
    """A stored tensor that is not a parameter, because the model computes it.

    Fields:
        is_same: Whether the stored values are those that this architecture computes.
        computed: What these are, for the warning if they are not.
    """

    is_same: Callable[[Any, TensorInfo], bool]
    computed: str


@dataclass(frozen=True)
class Family:
    """How checkpoints of one model_type are read and written.

    Fields:
        build: Makes the architecture from a config.json.
        names: By path in the parameter tree, where the array is stored. Paths and names may contain
            indices, such as `{layer}`.
        prefix: What names begin with. A checkpoint saved without it is read too.
        ignored: Buffers, by a regular expression for their names without the prefix.
        mlx_prefix: The prefix that mlx-lm writes instead, if it is another. In such checkpoints
            nothing is transposed.
    """

    build: Callable[[HubConfig], Architecture]
    names: Mapping[str, Source]
    prefix: str = ""
    ignored: Mapping[str, Buffer] = field(default_factory=dict)
    mlx_prefix: str = ""


__all__ = ["Buffer", "Family", "HubConfig", "Source"]

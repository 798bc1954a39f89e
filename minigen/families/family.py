"""What a checkpoint family is: how its config.json becomes an architecture, and its names a parameter tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from minigen.families.config import HubConfig
from minigen.families.gguf import GGUFNames
from minigen.models.architecture import Architecture
from minigen.models.tensor_info import TensorInfo


@dataclass(frozen=True)
class Source:
    """Where an array of the tree lies in a checkpoint: one tensor, or several that are joined along axis 0.

    Names may have indices that their path has, such as `{layer}`, and one that it has not: the tensors of all its
    values are then stacked along a new first axis, as in `model.layers.{layer}.experts.{expert}.w1.weight`.
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
    """`names` maps a path of the parameter tree to its Source. Indices of both have names, such as `{layer}`.

    `prefix` is what the names begin with; a checkpoint saved without it loads all the same. `mlx_prefix` is what mlx-lm
    writes in its place, where that is another: nothing is transposed there. Tensors that match a key of `ignored`
    (regular expressions, without the prefix) are buffers, which the model computes itself. `gguf` says how llama.cpp's
    files have it, under an architecture of the same name; None: they are not read.
    """

    build: Callable[[HubConfig], Architecture]
    names: Mapping[str, Source]
    prefix: str = ""
    ignored: Mapping[str, Buffer] = field(default_factory=dict)
    mlx_prefix: str = ""
    gguf: GGUFNames | None = None


__all__ = ["Buffer", "Family", "HubConfig", "Source"]

"""What a parameter is before it has values: its shape, how it starts, and how a checkpoint may store it in parts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.tree import Tree, flatten, unflatten


@dataclass(frozen=True)
class Param:
    """One array of a parameter tree.

    `init` is "normal" (mean 0, `scale` its standard deviation), "uniform" (in [-scale, scale)), "ones" or "zeros".
    `parts`: the rows of each projection fused here along axis 0, where there are several (query, key, value).
    `stacked`: so many matrices of one height lie on top of each other (the gates of a cell), in checkpoints too.
    """

    shape: tuple[int, ...]
    init: str = "normal"
    scale: float = 0.02
    parts: tuple[int, ...] = ()
    stacked: int = 1

    def draw(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        if self.init == "normal":
            return rng.standard_normal(self.shape, dtype=np.float32) * np.float32(self.scale)
        if self.init == "uniform":
            return rng.uniform(-self.scale, self.scale, self.shape).astype(np.float32)
        return np.full(self.shape, {"ones": 1.0, "zeros": 0.0}[self.init], dtype=np.float32)


def linear_shapes(
    inputs: int, outputs: int, bias: bool, parts: tuple[int, ...] = (), scale: float = 0.02
) -> dict[str, Param]:
    """The parameters of x (..., inputs) -> (..., outputs): weight (outputs, inputs) and, if asked, bias (outputs,)."""
    shapes = {"weight": Param((outputs, inputs), scale=scale, parts=parts)}
    if bias:
        shapes["bias"] = Param((outputs,), "zeros", parts=parts)
    return shapes


def initialise(shapes: Tree, seed: int = 0) -> Tree:
    """A tree of float32 NumPy arrays for a tree of Param, drawn in the tree's order: the same on every backend."""
    rng = np.random.default_rng(seed)
    return unflatten({path: param.draw(rng) for path, param in flatten(shapes).items()})


def scale_down(shapes: dict[str, Param], layers: int) -> dict[str, Param]:
    """GPT-2's start for projections into the residual stream: divided by sqrt(2 layers) (Radford et al. 2019)."""
    weight = shapes["weight"]
    return shapes | {"weight": replace(weight, scale=weight.scale / math.sqrt(2 * layers))}


def as_arrays(ops: Any, tree: Tree) -> Tree:
    """NumPy parameters on a backend's device, in its dtype."""
    return unflatten({path: ops.asarray(x) for path, x in flatten(tree).items()})

"""Parameters before they have values: shapes, initial values, and how checkpoints store them."""

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

    Fields:
        shape: Its shape.
        init: How it starts: "normal" (mean 0, standard deviation `scale`), "uniform" (in
            [-scale, scale)), "ones" or "zeros".
        scale: See `init`.
        parts: The number of rows of each projection that is fused here along axis 0, where there
            are several, such as query, key and value.
        stacked: How many matrices of equal height are stacked along axis 0, in checkpoints too: the
            gates of a recurrent cell.
    """

    shape: tuple[int, ...]
    init: str = "normal"
    scale: float = 0.02
    parts: tuple[int, ...] = ()
    stacked: int = 1

    def draw(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Initial values from a random number generator."""
        if self.init == "normal":
            return rng.standard_normal(self.shape, dtype=np.float32) * np.float32(self.scale)
        if self.init == "uniform":
            return rng.uniform(-self.scale, self.scale, self.shape).astype(np.float32)
        return np.full(self.shape, {"ones": 1.0, "zeros": 0.0}[self.init], dtype=np.float32)


def linear_shapes(
    inputs: int, outputs: int, bias: bool, parts: tuple[int, ...] = (), scale: float = 0.02
) -> dict[str, Param]:
    """The parameters of a linear layer x (..., inputs) -> (..., outputs).

    Args:
        inputs: The width of the input.
        outputs: The width of the output.
        bias: Whether there is a bias (outputs,) beside the weight (outputs, inputs).
        parts: See `Param`.
        scale: The standard deviation of the initial weight.
    """
    shapes = {"weight": Param((outputs, inputs), scale=scale, parts=parts)}
    if bias:
        shapes["bias"] = Param((outputs,), "zeros", parts=parts)
    return shapes


def initialise(shapes: Tree, seed: int = 0) -> Tree:
    """Initial float32 NumPy arrays for a tree of Param, the same for every backend.

    They are drawn in the order of the tree, so a seed stands for the same values everywhere.
    """
    rng = np.random.default_rng(seed)
    arrays = {path: param.draw(rng) for path, param in flatten(shapes).items()}
    return unflatten(arrays)


def scale_down(shapes: dict[str, Param], layers: int) -> dict[str, Param]:
    """A projection into the residual stream, with its initial weight divided by sqrt(2 layers).

    That is GPT-2's initialization (Radford et al. 2019).
    """
    weight = shapes["weight"]
    return shapes | {"weight": replace(weight, scale=weight.scale / math.sqrt(2 * layers))}


def as_arrays(ops: Any, tree: Tree) -> Tree:
    """NumPy parameters on a backend's device, in its dtype."""
    return unflatten({path: ops.asarray(x) for path, x in flatten(tree).items()})

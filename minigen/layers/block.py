"""The layers of a model. A class says how the parts of a layer meet the residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from minigen.backends.base import Array, Backend
from minigen.layers.attention import Attention
from minigen.layers.feed_forward import FeedForward
from minigen.layers.norm import Norm
from minigen.layers.short_convolution import ShortConvolution
from minigen.layers.slot import LayerSlots, Slots
from minigen.layers.step import Step


class Block(Protocol):
    """One layer of a model: its parameters, what it remembers between passes, and what it computes.

    A block is a frozen dataclass without arrays of its own. Parameters and remembered arrays are
    passed to `apply`, so one block serves every backend, and training as well as generation. A
    new layout of a layer is a new class with these three methods; nothing else in minigen changes
    for it.

    A block without parameters returns an empty dict from `shapes`; one that remembers nothing
    returns an empty dict from `slots`.
    """

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        """The parameters of the block.

        Args:
            width: The width C of the residual stream.
            layers: The number of layers in the model. Some weights start smaller in a deeper model.

        Returns:
            A tree of nested dicts with a `Param` at each leaf. `apply` receives the same tree, with
            an array at each leaf.
        """
        ...

    def slots(self) -> Slots:
        """What the block remembers between passes: slots by name.

        The model allocates them, and a block that borrows from an earlier layer declares a
        `LentSlot`.
        """
        ...

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, slots: LayerSlots | None) -> Array:
        """Computes the block for the new tokens of a pass.

        Args:
            ops: The operations of a backend.
            p: The parameters: a tree like that of `shapes`, with arrays.
            x: (B, T, C), the new tokens in the residual stream.
            step: Where the new tokens stand, and which tokens they may see.
            slots: What this layer remembers, to read and to update. None: there are no earlier
                tokens and nothing is to be remembered, as in training.

        Returns:
            (B, T, C'), where C' is C for every block that adds to a residual stream.
        """
        ...


class Mixer(Protocol):
    """What mixes the tokens of a text in a layer: attention, a convolution."""

    def shapes(self, width: int, layers: int) -> dict[str, Any]: ...

    def slots(self) -> Slots: ...

    def apply(
        self, ops: Backend, p: Any, x: Array, step: Step, slots: LayerSlots | None
    ) -> Array: ...


class PreNormLayout:
    """x + mixer(norm(x)), then x + feed_forward(norm(x)).

    `mixer_name` is the mixer's field, and its key among the parameters.
    """

    mixer_name: ClassVar[str]
    feed_forward: FeedForward
    norm: Norm

    @property
    def mixer(self) -> Mixer:
        mixer: Mixer = getattr(self, self.mixer_name)
        return mixer

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        return {
            "norm1": self.norm.shapes(width),
            self.mixer_name: self.mixer.shapes(width, layers),
            "norm2": self.norm.shapes(width),
            "feed_forward": self.feed_forward.shapes(width, layers),
        }

    def slots(self) -> Slots:
        return self.mixer.slots()

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, slots: LayerSlots | None) -> Array:
        """x (B, T, C) -> (B, T, C)."""
        normed = self.norm.apply(ops, p["norm1"], x)
        y = self.mixer.apply(ops, p[self.mixer_name], normed, step, slots)
        x = x + ops.dropout(y)
        normed = self.norm.apply(ops, p["norm2"], x)
        return x + ops.dropout(self.feed_forward.apply(ops, p["feed_forward"], normed))


@dataclass(frozen=True)
class PreNormBlock(PreNormLayout):
    """With attention, as in GPT-2 and Llama."""

    mixer_name: ClassVar[str] = "attention"
    attention: Attention
    feed_forward: FeedForward
    norm: Norm


@dataclass(frozen=True)
class ConvolutionBlock(PreNormLayout):
    """With a convolution, as in LFM2."""

    mixer_name: ClassVar[str] = "convolution"
    convolution: ShortConvolution
    feed_forward: FeedForward
    norm: Norm

"""Draws tokens on the device, so that the next step can start before the host knows the tokens.

The host draws too, in float64, while the device continues. The device's draw is a guess that is
nearly always right: sums in float32 and the order of ties differ, so it may be one token off now
and then. The caller then takes the step back. The text is always the one that the host draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np

from minigen.backends.base import Array, Backend
from minigen.backends.switches import read_switch
from minigen.generation.options import Options
from minigen.generation.rows import Row
from minigen.sampling import Sampling
from minigen.sampling.narrow import CUTS, first_cut
from minigen.sampling.stages import LOGIT_STAGES
from minigen.sampling.uniforms import uniforms

VARIABLE = "MINIGEN_DRAW"
ON_DEVICE = ("top_k", "top_p", "min_p")
STEPS = 1024  # whose uniform numbers are sent at once: 4 bytes per row and step
UNIT = 2**30  # a probability of 1 as a whole number; sums of such numbers are exact in 32 bits


def device_drawing_enabled() -> bool:
    """What the environment variable says. Raises UsageError if it has another value."""
    advice = "device (the default) or host, where tokens are drawn"
    return read_switch(VARIABLE, ("device", "host"), "device", advice) == "device"


def device_can_draw(options: Options) -> bool:
    """Whether the device can draw with these settings. It has no history and no logprobs."""
    sampling = options.sampling
    only_on_host = {*LOGIT_STAGES, *CUTS} - set(ON_DEVICE)
    if sampling.temperature == 0 or options.logprobs is not None:
        return False
    return sampling.active.isdisjoint(only_on_host)


class Uniforms:
    """The uniform numbers for the next tokens of some rows, sent to the device in advance."""

    def __init__(self, ops: Backend, rows: Sequence[Row], sampling: Sampling) -> None:
        assert sampling.seed is not None
        self.ops, self.seed = ops, sampling.seed
        self.rows = [(row.sequence, len(row.tokens)) for row in rows]
        steps_left = max(row.limit - len(row.ids) for row in rows)
        self.steps = max(1, min(STEPS, steps_left))
        self.begin = 0
        self.block = self.send()

    @classmethod
    def ahead(cls, ops: Backend, rows: Sequence[Row], options: Options) -> Uniforms | None:
        """The numbers for these rows, or None if the host draws."""
        if not device_drawing_enabled() or not device_can_draw(options):
            return None
        return cls(ops, rows, options.sampling)

    def send(self) -> Array:
        """The numbers of the steps from `begin` on: (B, steps) float32, with 24 of the 53 bits."""
        numbers = [
            uniforms(self.seed, sequence, start + self.begin, self.steps)
            for sequence, start in self.rows
        ]
        whole = self.ops.asarray((np.stack(numbers) * 2**24).astype(np.int64))
        return self.ops.astype(whole, "float32") * 2**-24

    def at(self, step: int) -> Array:
        """The numbers (B,) of one step, counted from the tokens that the rows had at first.

        Steps that were sent before `step` may be gone: ask for them in increasing order.
        """
        assert step >= self.begin
        if step >= self.begin + self.steps:
            self.begin = step
            self.block = self.send()
        return self.block[:, step - self.begin]


def drawn_from_all(
    ops: Backend, scaled: Array, total: Array, sampling: Sampling, uniform: Array
) -> Array:
    """The ids that `sampling.sample` returns if no cut is active and rounding does not matter.

    Args:
        ops: The backend.
        scaled: (B, V), the logits as (logit - highest) / temperature.
        total: (B,), the logarithm of the sum of their exponentials.
        sampling: The settings.
        uniform: (B,), the numbers to draw with.

    Returns ids (B,).
    """
    assert first_cut(sampling) is None
    probs = ops.exp(scaled - total[:, None])
    return index_of_share(ops, as_whole(ops, probs), uniform)


def drawn_from_best(
    ops: Backend, values: Array, ids: Array, total: Array, sampling: Sampling, uniform: Array
) -> Array:
    """As `drawn_from_all`, with cuts, from the best logits only, if these suffice.

    Args:
        ops: The backend.
        values: (B, K), the best logits, not scaled.
        ids: (B, K), their ids.
        total: (B,), that of `drawn_from_all`, over all logits.
        sampling: The settings.
        uniform: (B,), the numbers to draw with.

    Returns ids (B,).
    """
    cuts, active = sampling.cuts, sampling.active
    order = ops.argsort(-values)
    values, ids = ops.gather(values, order), ops.gather(ids, order)
    scaled = (values - values[:, :1]) * (1 / sampling.temperature)
    probs = ops.exp(scaled - total[:, None])  # of all tokens together, 1
    if "top_k" in active:
        last = min(cuts.top_k, values.shape[-1]) - 1
        probs = probs * (values >= values[:, last : last + 1])
        probs = probs / probs.sum(-1)[:, None]
    parts = as_whole(ops, probs)
    if "top_p" in active:
        before = ops.cumsum(parts) - parts
        parts = parts * (before < cuts.top_p * UNIT)
    if "min_p" in active:
        parts = parts * (scaled >= log(cuts.min_p))
    order = ops.argsort(ids)  # the order in which the host sums
    index = index_of_share(ops, ops.gather(parts, order), uniform)
    return ops.gather(ops.gather(ids, order), index[:, None])[:, 0]


def as_whole(ops: Backend, probs: Array) -> Array:
    """Probabilities (B, N) as whole numbers, since sums of floats on CUDA vary from run to run."""
    return ops.astype(probs * UNIT + 0.5, "int32")


def index_of_share(ops: Backend, parts: Array, uniform: Array) -> Array:
    """The index (B,) at which the running sum of a row passes a share of the row's sum.

    Args:
        ops: The backend.
        parts: (B, N), whole numbers.
        uniform: (B,), the shares, from 0 to 1. At most the last index is returned.
    """
    running = ops.cumsum(parts)
    target = running[:, -1:] * uniform[:, None]
    return (running[:, :-1] <= target).sum(-1)

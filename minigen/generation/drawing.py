"""Draws on the device, so that the next step can be asked for before the host knows what was drawn.

The host draws as well, in float64, while the device goes on: what the device drew is a guess, which is nearly always
right. Float32 has other sums, and ties other orders, so that it may miss by one token now and then; the caller then
takes the step back. The text is the host's in any case.
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
STEPS = 1024  # of which the uniform numbers are sent at once: 4 bytes a row and step
UNIT = 2**30  # a probability of 1 as a whole number, whose sums are exact in 32 bits


def wanted() -> bool:
    """What the environment says. Raises UsageError for neither of the two."""
    advice = "device (the default) or host, where tokens are drawn"
    return read_switch(VARIABLE, ("device", "host"), "device", advice) == "device"


def possible(options: Options) -> bool:
    """Whether the device can draw with these settings: what asks for the history or for logprobs is the host's."""
    sampling = options.sampling
    others = {*LOGIT_STAGES, *CUTS} - set(ON_DEVICE)
    return (
        sampling.temperature > 0 and options.logprobs is None and sampling.active.isdisjoint(others)
    )


class Uniforms:
    """The uniform numbers that the next tokens of some rows are drawn with, on the device ahead of their use."""

    def __init__(self, ops: Backend, rows: Sequence[Row], sampling: Sampling) -> None:
        assert sampling.seed is not None
        self.ops, self.seed = ops, sampling.seed
        self.rows = [(row.sequence, len(row.tokens)) for row in rows]
        self.steps = max(1, min(STEPS, max(row.limit - len(row.ids) for row in rows)))
        self.begin = 0
        self.block = self.send()

    @classmethod
    def ahead(cls, ops: Backend, rows: Sequence[Row], options: Options) -> Uniforms | None:
        """None where the host draws."""
        return cls(ops, rows, options.sampling) if wanted() and possible(options) else None

    def send(self) -> Array:
        """Those of the steps from `begin` on: (B, steps) float32, as 24 of the 53 bits."""
        drawn = [
            uniforms(self.seed, sequence, start + self.begin, self.steps)
            for sequence, start in self.rows
        ]
        whole = self.ops.asarray((np.stack(drawn) * 2**24).astype(np.int64))
        return self.ops.astype(whole, "float32") * 2**-24

    def at(self, step: int) -> Array:
        """Those of one step (B,), counted from the tokens that the rows had at first. Steps only go on."""
        assert step >= self.begin
        if step >= self.begin + self.steps:
            self.begin = step
            self.block = self.send()
        return self.block[:, step - self.begin]


def drawn_from_all(
    ops: Backend, scaled: Array, total: Array, sampling: Sampling, uniform: Array
) -> Array:
    """The ids (B,) that `sampling.sample` returns, if no cut is on and rounding does not matter.

    `scaled` (B, V) are the logits as (logit - best) / temperature, `total` (B,) the logarithm of
    the sum of their exponentials, `uniform` (B,) what is drawn with.
    """
    assert first_cut(sampling) is None
    return place_of(ops, as_whole(ops, ops.exp(scaled - total[:, None])), uniform)


def drawn_from_best(
    ops: Backend, values: Array, ids: Array, total: Array, sampling: Sampling, uniform: Array
) -> Array:
    """As `drawn_from_all`, with cuts, if the best logits (B, K), unscaled, and their ids are enough."""
    cuts, active = sampling.cuts, sampling.active
    order = ops.argsort(-values)
    values, ids = ops.gather(values, order), ops.gather(ids, order)
    scaled = (values - values[:, :1]) * (1 / sampling.temperature)
    shares = ops.exp(scaled - total[:, None])  # of the whole row
    if "top_k" in active:
        last = min(cuts.top_k, values.shape[-1]) - 1
        shares = shares * (values >= values[:, last : last + 1])
        shares = shares / shares.sum(-1)[:, None]
    parts = as_whole(ops, shares)
    if "top_p" in active:
        before = ops.cumsum(parts) - parts
        parts = parts * (before < cuts.top_p * UNIT)
    if "min_p" in active:
        parts = parts * (scaled >= log(cuts.min_p))
    order = ops.argsort(ids)  # in which the host sums
    place = place_of(ops, ops.gather(parts, order), uniform)
    return ops.gather(ops.gather(ids, order), place[:, None])[:, 0]


def as_whole(ops: Backend, shares: Array) -> Array:
    """Shares (B, N) of 1 as whole numbers, as the sums of floats on CUDA may come out otherwise at each run."""
    return ops.astype(shares * UNIT + 0.5, "int32")


def place_of(ops: Backend, parts: Array, uniform: Array) -> Array:
    """Where (B,) the running sum of parts (B, N) passes the share `uniform` (B,) of all; the last place at most."""
    running = ops.cumsum(parts)
    target = running[:, -1:] * uniform[:, None]
    return (running[:, :-1] <= target).sum(-1)

"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from minigen.training.config import ScheduleConfig


def learning_rate(settings: ScheduleConfig, step: int) -> float:
    """The learning rate of a step, counted from 0.

    It rises linearly, and then falls to the share `final`: along a cosine until the last step
    (Loshchilov and Hutter 2017), or linearly after a constant phase ("wsd", Hu et al. 2024).
    """
    steps = settings.steps
    warmup = min(settings.warmup, steps - 1)
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    if settings.schedule == "cosine":
        done = (step - warmup) / max(steps - 1 - warmup, 1)
        share = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    else:
        length = max(min(round(settings.decay * steps), steps - warmup), 1)
        # Even if `final` is 0, the last step changes the weights.
        share = min(1.0, max(steps - step, 0) / length)
    return settings.lr * (settings.final + (1 - settings.final) * share)

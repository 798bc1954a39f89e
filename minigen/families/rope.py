"""The rotary embedding of a config.json.

transformers 5 writes rope_parameters; older configs have rope_theta and rope_scaling. A config may
have all three, some written by a program and some by hand. As in transformers, rope_scaling takes
precedence over rope_parameters, and a rope_theta inside either over the one of config.json itself.
Contradictions are warned about; what no program computes as it is meant is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigen.errors import CheckpointError, shown
from minigen.families.config import HubConfig
from minigen.layers.positions import LinearScaling, Llama3Scaling, RopeScaling, Rotary

SCALING, PARAMETERS, THETA = "rope_scaling", "rope_parameters", "rope_theta"
ORIGINAL = (
    "original_max_position_embeddings"  # of llama3; in config.json itself it takes precedence
)
DEFAULT_THETA = 10000.0
USED: dict[str, tuple[str, ...]] = {  # the keys that each type of scaling uses
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
}
ALWAYS_USED = ("rope_type", "type", THETA, "partial_rotary_factor")


@dataclass(frozen=True)
class RopeObject:
    """What rope_scaling or rope_parameters says.

    Fields:
        key: Which of them it is.
        theta: Its own rope_theta, or None.
        scaling: Its scaling, or None.
    """

    key: str
    theta: float | None
    scaling: RopeScaling | None


def rotary(c: HubConfig, head_dim: int) -> Rotary:
    """The rotary embedding for heads of width `head_dim`.

    Raises CheckpointError: it is one that minigen does not compute, wherever the config
    mentions it, or the config contradicts itself and no rule decides. The message names the
    key.
    """
    if head_dim % 2:
        raise CheckpointError(
            f"{c.where}: rotary positions need an even head width, not {head_dim}"
        )
    check_whole_heads(c)
    objects = [read(c, key) for key in (SCALING, PARAMETERS) if c.get(key)]
    if not objects:
        objects = [RopeObject(THETA, None, None)]
    first, others = objects[0], objects[1:]
    for other in others:
        if other.scaling != first.scaling:
            c.warn(f"{first.key} and {other.key} scale differently: using {first.key}")
    return Rotary(head_dim, theta_of(c, first, others), first.scaling)


def theta_of(c: HubConfig, first: RopeObject, others: list[RopeObject]) -> float:
    """The base of the frequencies: that of the first object, else config.json's own, else 10000."""
    outer = None
    if c.get(THETA) is not None:
        outer = c.number(THETA)
    theta = first.theta
    if theta is None:
        theta = outer
    if theta is None:
        check_theta_is_not_lost(c, first, others)
        return DEFAULT_THETA
    thetas = {other.key: other.theta for other in others}
    thetas["config.json itself"] = outer
    for source, value in thetas.items():
        if value is not None and value != theta:
            c.warn(f"{THETA} is {theta:g}, but {value:g} in {source}: using {theta:g}")
    return theta


def check_theta_is_not_lost(c: HubConfig, first: RopeObject, others: list[RopeObject]) -> None:
    """Raises CheckpointError if only another object has a rope_theta.

    transformers then uses 10000 and ignores what the other object says.
    """
    for other in others:
        if other.theta is not None and other.theta != DEFAULT_THETA:
            raise CheckpointError(
                f"{c.where}: {first.key} has no {THETA}, but {other.key} has {other.theta:g}: "
                f"write the right one into {first.key}"
            )


def check_whole_heads(c: HubConfig) -> None:
    """Raises CheckpointError for the rotation of a part of each head, which these families lack."""
    configs = [c]
    for key in (SCALING, PARAMETERS):
        if isinstance(c.get(key), Mapping):
            configs.append(c.inside(key))
    for config in configs:
        if config.get("partial_rotary_factor", 1) != 1:
            raise config.fail("partial_rotary_factor", "minigen rotates whole heads in this family")


def read(c: HubConfig, key: str) -> RopeObject:
    """One of the two objects. Raises CheckpointError for a type that minigen does not know."""
    values = c.get(key)
    if not isinstance(values, Mapping):
        raise c.fail(key, "it must be an object")
    rope = c.inside(key)
    check_one_for_all_layers(c, rope)
    kind = kind_of(rope)
    check_kind(c, kind)
    used = (*ALWAYS_USED, *USED[kind])
    unused = [name for name, value in values.items() if name not in used and value is not None]
    if unused:
        names = ", ".join(map(shown, unused[:4]))
        c.warn(f"{key} has {names}, which the type {kind} does not use")
    theta = None
    if rope.get(THETA) is not None:
        theta = rope.number(THETA)
    return RopeObject(key, theta, scaling_of(c, rope, kind))


def check_one_for_all_layers(c: HubConfig, rope: HubConfig) -> None:
    """Raises CheckpointError if an object has a rotation for each kind of layer."""
    per_layer = []
    for name, value in rope.values.items():
        if isinstance(value, Mapping) or name.endswith("_attention"):
            per_layer.append(name)
    for name in per_layer:
        if isinstance(rope.values[name], Mapping):
            check_kind(c, kind_of(rope.inside(name)))
    if per_layer:
        raise rope.fail(per_layer[0], "minigen has one rotation for all layers of this family")


def kind_of(rope: HubConfig) -> Any:
    """The type of scaling, a key with two spellings. Raises CheckpointError if they differ."""
    kind, old_spelling = rope.get("rope_type"), rope.get("type")
    if kind is None:
        kind = old_spelling
    if old_spelling is not None and kind != old_spelling:
        raise rope.fail(
            "rope_type", f"its other spelling, type, is {shown(old_spelling)}: keep the right one"
        )
    if kind is None:
        return "default"
    return kind


def check_kind(c: HubConfig, kind: Any) -> None:
    """Raises CheckpointError for a type that minigen does not know."""
    if not isinstance(kind, str) or kind not in USED:
        raise CheckpointError(
            f"{c.where}: unknown rope scaling {shown(kind)}: minigen knows {', '.join(USED)}"
        )


def scaling_of(c: HubConfig, rope: HubConfig, kind: str) -> RopeScaling | None:
    """The scaling of an object, whose type is `kind`."""
    if kind == "default":
        return None
    if kind == "linear":
        return LinearScaling(rope.number("factor"))
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    if low >= high:
        raise rope.fail("low_freq_factor", f"it must be below high_freq_factor, {high}")
    source = rope
    if c.get(ORIGINAL) is not None:
        source = c
    original = source.integer(ORIGINAL)
    inner = rope.get(ORIGINAL, original)
    if inner != original:
        c.warn(f"{ORIGINAL} is {original}, but {shown(inner)} inside: using {original}")
    return Llama3Scaling(rope.number("factor"), low, high, original)

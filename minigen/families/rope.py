"""The rotation of a config.json: rope_parameters, as transformers 5 writes it, or rope_theta and rope_scaling.

A config may have all three, one written by a program and another by hand. As in transformers, rope_scaling counts
before rope_parameters, and what either has before the rope_theta beside it. What contradicts that is warned of; what
no reader computes as it is meant is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigen.errors import CheckpointError, shown
from minigen.families.config import HubConfig
from minigen.layers.positions import LinearScaling, Llama3Scaling, RopeScaling, Rotary

SCALING, PARAMETERS, THETA = "rope_scaling", "rope_parameters", "rope_theta"  # the first that is there counts
ORIGINAL = "original_max_position_embeddings"  # of llama3; one beside the objects counts
DEFAULT_THETA = 10000.0
USED: dict[str, tuple[str, ...]] = {  # by type of scaling, what it reads
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
}
ALWAYS = ("rope_type", "type", THETA, "partial_rotary_factor")  # what all of them may have


@dataclass(frozen=True)
class Said:
    """What one of the two objects says; no theta where it has none of its own."""

    key: str
    theta: float | None
    scaling: RopeScaling | None


def rotary(c: HubConfig, head_dim: int) -> Rotary:
    """The rotation of heads that are `head_dim` wide. Raises CheckpointError, naming the key, for one that minigen does
    not compute, wherever in the config it stands, and for contradictions that no rule decides.
    """
    if head_dim % 2:
        raise CheckpointError(f"{c.where}: rotary positions need an even head width, not {head_dim}")
    check_whole_heads(c)
    found = [read(c, key) for key in (SCALING, PARAMETERS) if c.get(key)]
    counts = found[0] if found else Said(THETA, None, None)
    for other in found[1:]:
        if other.scaling != counts.scaling:
            c.warn(f"{counts.key} and {other.key} scale differently: {counts.key} counts")
    return Rotary(head_dim, theta_of(c, counts, found[1:]), counts.scaling)


def theta_of(c: HubConfig, counts: Said, others: list[Said]) -> float:
    """The base of the frequencies: of the object that counts, else beside it, else 10000."""
    beside = c.number(THETA) if c.get(THETA) is not None else None
    theta = next((value for value in (counts.theta, beside) if value is not None), None)
    inner = [other for other in others if other.theta is not None]
    if theta is None:
        # Transformers then takes 10000, and forgets what the other object has.
        for other in inner:
            if other.theta != DEFAULT_THETA:
                raise CheckpointError(
                    f"{c.where}: {counts.key} has no {THETA}, and {other.key} has {other.theta:g}: write the one that "
                    f"is meant into {counts.key}"
                )
        return DEFAULT_THETA
    given = {other.key: other.theta for other in inner} | ({} if beside is None else {"config.json itself": beside})
    for place, value in given.items():
        if value != theta:
            c.warn(f"{THETA} is {theta:g}, and in {place} {value:g}: {theta:g} counts")
    return theta


def check_whole_heads(c: HubConfig) -> None:
    """Refuses rotation of a part of the head, which the families that read this have not."""
    places = [c, *(c.inside(key) for key in (SCALING, PARAMETERS) if isinstance(c.get(key), Mapping))]
    for place in places:
        if place.get("partial_rotary_factor", 1) != 1:
            raise place.fail("partial_rotary_factor", "minigen rotates whole heads in this family")


def read(c: HubConfig, key: str) -> Said:
    """One of the two objects. Raises CheckpointError for a type that minigen does not know, by its name."""
    given = c.get(key)
    if not isinstance(given, Mapping):
        raise c.fail(key, "it must be an object")
    layers = [name for name, value in given.items() if isinstance(value, Mapping) or name.endswith("_attention")]
    rope = c.inside(key)
    if layers:
        kinds = [kind_of(rope.inside(name)) for name in layers if isinstance(given[name], Mapping)]
        check_kinds(c, kinds)
        raise rope.fail(layers[0], "minigen has one rotation for all layers of this family")
    kind = kind_of(rope)
    check_kinds(c, [kind])
    unused = [name for name in given if name not in (*ALWAYS, *USED[kind]) and given[name] is not None]
    if unused:
        c.warn(f"{key} has {', '.join(map(shown, unused[:4]))}, which the type {kind} does not use")
    theta = rope.number(THETA) if rope.get(THETA) is not None else None
    return Said(key, theta, scaling_of(c, rope, kind))


def kind_of(rope: HubConfig) -> Any:
    """Its type, which has two spellings. Raises CheckpointError where they contradict each other."""
    new, old = rope.get("rope_type"), rope.get("type")
    if new is not None and old is not None and new != old:
        raise rope.fail("rope_type", f"and its other spelling, type, is {shown(old)}: keep the one that is meant")
    return old if new is None and old is not None else rope.get("rope_type", "default")


def check_kinds(c: HubConfig, kinds: list[Any]) -> None:
    for kind in kinds:
        if not isinstance(kind, str) or kind not in USED:
            raise CheckpointError(f"{c.where}: unknown rope scaling {shown(kind)}: minigen knows {', '.join(USED)}")


def scaling_of(c: HubConfig, rope: HubConfig, kind: str) -> RopeScaling | None:
    if kind == "default":
        return None
    if kind == "linear":
        return LinearScaling(rope.number("factor"))
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    if low >= high:
        raise rope.fail("low_freq_factor", f"it must be below high_freq_factor, {high}")
    beside = c.get(ORIGINAL) is not None
    original = (c if beside else rope).integer(ORIGINAL)
    if rope.get(ORIGINAL, original) != original:
        c.warn(f"{ORIGINAL} is {original}, and {shown(rope.get(ORIGINAL))} inside: {original} counts")
    return Llama3Scaling(rope.number("factor"), low, high, original)

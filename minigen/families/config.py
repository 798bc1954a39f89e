"""Reading a hub config.json: every value is checked where it is used, and a wrong one is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigen.errors import CheckpointError, shown
from minigen.layers.feed_forward import ACTIVATIONS
from minigen.layers.positions import LinearScaling, Llama3Scaling, RopeScaling, Rotary

MOST_LAYERS = 1000
ROPE_TYPES = ("default", "linear", "llama3")


class HubConfig:
    """config.json with typed access. Every method raises CheckpointError naming the key and its value."""

    def __init__(self, values: Mapping[str, Any], where: str = "config.json") -> None:
        self.values, self.where = values, where

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where the key is absent or null."""
        value = self.values.get(key)
        return default if value is None else value

    def with_defaults(self, **values: Any) -> HubConfig:
        """With these values where a key is absent; one that is null stays so, as on the hub."""
        return HubConfig({**values, **self.values}, self.where)

    def fail(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {key} is {shown(self.values.get(key))}: {what}")

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.where}: {key} is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise self.fail(key, "it must be a positive number")
        return float(value)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if value != int(value) or value > 2**31:
            raise self.fail(key, "it must be a positive whole number")
        return int(value)

    def layers(self, key: str) -> int:
        """A number of layers, which is checked before anything is made for each."""
        value = self.integer(key)
        if value > MOST_LAYERS:
            raise self.fail(key, f"no model has more than {MOST_LAYERS} layers")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "it must be true or false")
        return value

    def activation(self, key: str, default: str) -> str:
        value = self.get(key, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise self.fail(key, f"minigen knows {', '.join(ACTIVATIONS)}")
        return value

    def head_dim(self, width: int, heads: int) -> int:
        """head_dim, or width / heads where it is not given."""
        if self.get("head_dim") is not None:
            return self.integer("head_dim")
        if width % heads:
            raise CheckpointError(
                f"{self.where}: the width {width} is no multiple of {heads} heads, and head_dim is missing"
            )
        return width // heads

    def rotary(self, head_dim: int, partial: float = 1.0) -> Rotary:
        """The rotation from rope_parameters (as transformers 5 writes it) or rope_theta and rope_scaling.

        `partial` is the share of a head that is rotated, in families that know such a thing.
        """
        given = self.get("rope_parameters") or self.get("rope_scaling") or {}
        if not isinstance(given, Mapping):
            raise self.fail(
                "rope_parameters" if self.get("rope_parameters") else "rope_scaling", "it must be an object"
            )
        rope = HubConfig(given, f"{self.where}, rope scaling")
        dims = int(head_dim * partial)
        if dims % 2 or not 0 < dims <= head_dim:
            raise CheckpointError(
                f"{self.where}: rotary positions need an even part of the head width, not {dims} of {head_dim}"
            )
        theta = rope.number("rope_theta", self.number("rope_theta", 10000.0))
        return Rotary(dims, theta, self._scaling(rope))

    def _scaling(self, rope: HubConfig) -> RopeScaling | None:
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind == "default":
            return None
        if kind == "linear":
            return LinearScaling(rope.number("factor"))
        if kind == "llama3":
            low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
            if low >= high:
                raise rope.fail("low_freq_factor", f"it must be below high_freq_factor, {high}")
            return Llama3Scaling(
                factor=rope.number("factor"),
                low_freq_factor=low,
                high_freq_factor=high,
                original_context=rope.integer("original_max_position_embeddings"),
            )
        raise CheckpointError(
            f"{self.where}: unknown rope scaling {shown(kind)}: minigen knows {', '.join(ROPE_TYPES)}"
        )

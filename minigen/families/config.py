"""Reading a hub config.json: every value is checked where it is used, and a wrong one is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigen.errors import CheckpointError, shown
from minigen.layers.feed_forward import ACTIVATIONS
from minigen.reading.settings import Range, whole_where_equal

MOST_LAYERS = 1000
POSITIVE, COUNT = Range(above=0, below=1e30), Range(whole=True, least=1, most=2**31)
TIED = "tie_word_embeddings"
TIED_NAMES = (TIED, "tie_embedding")  # the second is LFM2's


def without_tie(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same config.json with a head of its own, whichever name it uses for that."""
    others = {key: value for key, value in values.items() if key not in TIED_NAMES}
    return {**others, TIED: False}


class HubConfig:
    """config.json with typed access. Every method raises CheckpointError naming the key and its value.

    `warnings` are what the family that reads it has to say, once somebody opens the model.
    """

    def __init__(
        self, values: Mapping[str, Any], where: str = "config.json", warnings: list[str] | None = None
    ) -> None:
        self.values, self.where = values, where
        self.warnings = list[str]() if warnings is None else warnings

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where the key is absent or null."""
        value = self.values.get(key)
        return default if value is None else value

    def with_defaults(self, **values: Any) -> HubConfig:
        """With these values where a key is absent; one that is null stays so, as on the hub."""
        return HubConfig({**values, **self.values}, self.where, self.warnings)

    def inside(self, key: str) -> HubConfig:
        """The object under a key."""
        return HubConfig(self.values[key], f"{self.where}, {key}", self.warnings)

    def warn(self, what: str) -> None:
        self.warnings.append(f"{self.where}: {what}")

    def one_of(self, key: str, *others: str) -> str:
        """Which of several names of one setting is used, `key` where none is; two that differ are refused."""
        used = [name for name in (key, *others) if self.get(name) is not None]
        for name in used[1:]:
            if self.get(name) != self.get(used[0]):
                other = shown(self.get(name))
                raise self.fail(used[0], f"and {name}, which means the same, is {other}: correct one")
        return used[0] if used else key

    def fail(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {key} is {shown(self.values.get(key), 500)}: {what}")

    def number(self, key: str, default: float | None = None) -> float:
        return float(self.within(POSITIVE, key, default))

    def integer(self, key: str, default: int | None = None) -> int:
        return int(self.within(COUNT, key, default))

    def within(self, numbers: Range, key: str, default: float | None = None) -> float:
        """The number under a key, which must be one of these."""
        value = self.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.where}: {key} is missing")
        number = numbers.take(whole_where_equal(value))
        if number is None:
            raise self.fail(key, f"it must be {numbers}")
        return number

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

    def tied(self, default: bool) -> bool:
        """Whether the head's weight is the embedding."""
        return self.flag(self.one_of(*TIED_NAMES), default)

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

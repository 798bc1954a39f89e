"""Typed access to a hub config.json: every value is checked where it is used."""

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
    """The same config.json with a head of its own, under either name of that setting."""
    others = {key: value for key, value in values.items() if key not in TIED_NAMES}
    return {**others, TIED: False}


class HubConfig:
    """A config.json with typed access.

    Every method raises CheckpointError for a value that it cannot use, naming the key and the
    value.

    Attributes:
        values: The keys and values.
        where: How messages refer to the file.
        warnings: What a family reports while it reads the config, to be logged once the model is
            opened. Objects inside share the list.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        where: str = "config.json",
        warnings: list[str] | None = None,
    ) -> None:
        if warnings is None:
            warnings = []
        self.values, self.where, self.warnings = values, where, warnings

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default if the key is absent or null."""
        value = self.values.get(key)
        return default if value is None else value

    def with_defaults(self, **values: Any) -> HubConfig:
        """The same config with these values for absent keys; a null stays null, as on the hub."""
        return HubConfig({**values, **self.values}, self.where, self.warnings)

    def inside(self, key: str) -> HubConfig:
        """The object under a key."""
        return HubConfig(self.values[key], f"{self.where}, {key}", self.warnings)

    def warn(self, message: str) -> None:
        """Adds a warning about this file."""
        self.warnings.append(f"{self.where}: {message}")

    def fail(self, key: str, reason: str) -> CheckpointError:
        """The error for a key whose value cannot be used."""
        value = shown(self.values.get(key), 500)
        return CheckpointError(f"{self.where}: {key} is {value}: {reason}")

    def one_of(self, key: str, *synonyms: str) -> str:
        """Which name of a setting with several names is used; `key` if none is.

        Two names with different values are an error.
        """
        used = [name for name in (key, *synonyms) if self.get(name) is not None]
        if not used:
            return key
        for name in used[1:]:
            if self.get(name) != self.get(used[0]):
                raise self.fail(
                    used[0],
                    f"{name}, another name for it, is {shown(self.get(name))}: correct one",
                )
        return used[0]

    def number(self, key: str, default: float | None = None) -> float:
        """A number > 0."""
        return float(self.within(POSITIVE, key, default))

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number >= 1."""
        return int(self.within(COUNT, key, default))

    def within(self, numbers: Range, key: str, default: float | None = None) -> float:
        """A number within a range."""
        value = self.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.where}: {key} is missing")
        number = numbers.take(whole_where_equal(value))
        if number is None:
            raise self.fail(key, f"it must be {numbers}")
        return number

    def layers(self, key: str) -> int:
        """A number of layers, bounded so that nobody creates a billion of them."""
        value = self.integer(key)
        if value > MOST_LAYERS:
            raise self.fail(key, f"it must be at most {MOST_LAYERS} layers")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "it must be true or false")
        return value

    def tied(self, default: bool) -> bool:
        """Whether the head's weight is the embedding."""
        return self.flag(self.one_of(*TIED_NAMES), default)

    def activation(self, key: str, default: str) -> str:
        """The name of an activation function."""
        value = self.get(key, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise self.fail(key, f"it must be one of {', '.join(ACTIVATIONS)}")
        return value

    def head_dim(self, width: int, heads: int) -> int:
        """head_dim if it is given, else width / heads."""
        if self.get("head_dim") is not None:
            return self.integer("head_dim")
        if width % heads:
            raise CheckpointError(
                f"{self.where}: head_dim is missing, and the width {width} is not a multiple "
                f"of the {heads} heads"
            )
        return width // heads

"""Which layers of a config.json have a sliding window, in Mistral and Qwen."""

from __future__ import annotations

from minigen.errors import shown
from minigen.families.family import HubConfig
from minigen.reading.settings import Range

FULL, SLIDING = "full_attention", "sliding_attention"


def layer_types(c: HubConfig) -> list[str] | None:
    """FULL or SLIDING for each layer; None if the config does not say."""
    types = c.get("layer_types")
    if types is None:
        return None
    layers = c.layers("num_hidden_layers")
    known = isinstance(types, list) and all(kind in (FULL, SLIDING) for kind in types)
    if not known or len(types) != layers:
        raise c.fail("layer_types", f"it must be {layers} of {FULL}, {SLIDING}")
    return list(types)


def check_window(c: HubConfig, types: list[str], window: int | None) -> None:
    """Raises CheckpointError if a layer is SLIDING and there is no window."""
    if window is not None or SLIDING not in types:
        return
    settings = []
    for name in ("use_sliding_window", "sliding_window"):
        if name in c.values:
            settings.append(f"{name} is {shown(c.values[name])}")
    if not settings:
        settings.append("use_sliding_window is not given")
    raise c.fail("layer_types", f"{', '.join(settings)}: correct one")


def windows_by_type(types: list[str], window: int | None) -> list[int | None]:
    """The window of each layer."""
    return [window if kind == SLIDING else None for kind in types]


def qwen_windows(c: HubConfig) -> list[int | None]:
    """The window of each layer in a Qwen model; None for full attention.

    Layers with a window are given by layer_types, else they are those from max_window_layers on.
    """
    types = layer_types(c)
    layers = c.layers("num_hidden_layers")
    window = None
    given = c.with_defaults(sliding_window=4096)
    if given.flag("use_sliding_window", False) and given.get("sliding_window") is not None:
        window = given.integer("sliding_window")
    first = int(c.within(Range(whole=True, least=0), "max_window_layers", 28))
    full_layers = min(first, layers)
    types_by_index = [FULL] * full_layers + [SLIDING] * (layers - full_layers)
    if types is None:
        return windows_by_type(types_by_index, window)
    check_window(c, types, window)
    contradictory = c.get("max_window_layers") is not None and types != types_by_index
    if window is not None and contradictory:
        c.warn(f"layer_types and max_window_layers ({first}) differ: using layer_types")
    return windows_by_type(types, window)

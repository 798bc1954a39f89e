"""minigen: text generation with one GPT-style decoder, and a recurrent baseline, on PyTorch and MLX.

    model = minigen.load("path/to/model", backend="auto", device=None, dtype=None)
    model.generate("Once upon a time", max_tokens=100, temperature=0.8, seed=1)
    for piece in model.stream("Once upon a time"): ...
    model.logits(ids)                      # ids (B, T) -> float32 (B, T, V)
    model.generate_ids(rows, max_tokens=20, temperature=0, ignore_eos=True)

Importing minigen imports neither torch nor mlx, nor NumPy: each name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigen.errors import MinigenError
    from minigen.generation.text import Completion
    from minigen.model import Model, load

__version__ = "0.1.0"
__all__ = ["Completion", "MinigenError", "Model", "__version__", "load"]

_HOMES = {"MinigenError": "errors", "Model": "model", "load": "model", "Completion": "generation.text"}


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'minigen' has no attribute {name!r}")
    return getattr(import_module(f"minigen.{_HOMES[name]}"), name)

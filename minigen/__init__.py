"""minigen: text generation on PyTorch and MLX, with models of your own or from the hub.

    model = minigen.load("path/to/model")          # a folder, a hub id, or nothing
    model.generate("Once upon a time", max_tokens=100, temperature=0.8, seed=1)
    for piece in model.stream("Once upon a time"): ...
    model.logits(ids)                              # ids (B, T) -> float32 (B, T, V)
    model.generate_ids(rows, max_tokens=20)        # rows of ids -> rows of new ids
    minigen.Chat(model).say("Hello")               # an answer, in pieces as it is generated

    minigen.score(model, text)                     # perplexity and bits per byte
    minigen.run_prompts(model, "task.prompt.toml") # zero-, one- and few-shot prompts, scored
    minigen.train("stories.txt", out="run")        # a model of your own
    minigen.convert("path/to/model", Path("out"), quant=4)

Importing minigen imports neither torch nor mlx nor NumPy: each name below is imported when it is
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigen.chat.engine import Chat
    from minigen.checkpoints.convert import Converted, convert
    from minigen.errors import MinigenError
    from minigen.evaluation.fewshot.library import run_prompts
    from minigen.evaluation.perplexity import TextScore
    from minigen.evaluation.perplexity import score_text as score
    from minigen.generation.options import Options
    from minigen.generation.text import Completion
    from minigen.model import Model, load
    from minigen.training.library import Trained, train

__version__ = "0.1.0"
__all__ = [
    "Chat",
    "Completion",
    "Converted",
    "MinigenError",
    "Model",
    "Options",
    "TextScore",
    "Trained",
    "__version__",
    "convert",
    "load",
    "run_prompts",
    "score",
    "train",
]

_MODULES = {  # where each public name is defined, and its name there if it differs
    "Chat": "chat.engine",
    "Completion": "generation.text",
    "Converted": "checkpoints.convert",
    "MinigenError": "errors",
    "Model": "model",
    "Options": "generation.options",
    "TextScore": "evaluation.perplexity",
    "Trained": "training.library",
    "convert": "checkpoints.convert",
    "load": "model",
    "run_prompts": "evaluation.fewshot.library",
    "score": "evaluation.perplexity:score_text",
    "train": "training.library",
}


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'minigen' has no attribute {name!r}")
    module, _, attribute = _MODULES[name].partition(":")
    return getattr(import_module(f"minigen.{module}"), attribute or name)

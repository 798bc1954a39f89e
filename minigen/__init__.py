"""minigen: text generation on PyTorch and MLX, from n-grams of one's own to models of the hub.

    model = minigen.load("path/to/model")          # a folder or a hub id; nothing: the model that ships
    model.generate("Once upon a time", max_tokens=100, temperature=0.8, seed=1)
    for piece in model.stream("Once upon a time"): ...
    model.logits(ids)                              # ids (B, T) -> float32 (B, T, V)
    model.generate_ids(rows, max_tokens=20)        # rows of ids -> rows of new ids
    minigen.Chat(model).say("Hello")               # an answer, in pieces as they come

    minigen.score(model, text)                     # perplexity and bits per byte
    minigen.run_prompts(model, "task.prompt.toml") # zero-, one- and few-shot prompts, scored
    minigen.train("stories.txt", out="run")        # a model of one's own
    minigen.convert("path/to/model", Path("out"), quant=4)

Importing minigen imports neither torch nor mlx, nor NumPy: each name below is imported when it is first used.
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

_HOMES = {
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
    return [*globals(), *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'minigen' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"minigen.{module}"), attribute or name)

"""mlx-lm on MLX: its model, its cache and its quantization, in a bare loop.

A prompt is read as its `generate_step` does: all but the last token without logits, then the last
one. Weights are quantized as by `mlx_lm.convert -q`: in groups of 64, including the embedding. The
rest is in float32 then, in which a CPU multiplies quantized weights ten times as fast as in
bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .peer import Peer

BITS = {"8-bit": 8, "4-bit": 4}
GROUP = 64


class MLXLM(Peer):
    name = "mlx-lm"
    packages = ("mlx-lm", "mlx")
    dtypes = ("float32", "bfloat16", "8-bit", "4-bit")

    def threads(self) -> int:
        return 1  # as minigen's backend says of MLX on a CPU

    def load(self) -> None:
        import mlx.core as mx
        import mlx.nn as nn
        from mlx_lm.models.cache import make_prompt_cache

        mx.set_default_device(mx.cpu)
        mx.random.seed(0)
        self.mx, self.new_cache = mx, make_prompt_cache
        module = import_module(f"mlx_lm.models.{self.config['model_type']}")
        self.model = module.Model(module.ModelArgs.from_dict(complete(self.config)))
        bits = BITS.get(self.subject.dtype)
        self.model.set_dtype(getattr(mx, "float32" if bits else self.subject.dtype))
        if bits:
            nn.quantize(self.model, group_size=GROUP, bits=bits)
        self.model.eval()
        mx.eval(self.model.parameters())

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Any, Any]:
        cache, ids = self.new_cache(self.model), self.mx.array(prompts)
        if ids.shape[1] > 1:
            self.model(ids[:, :-1], cache=cache)
            self.mx.eval([layer.state for layer in cache])
        return self.model(ids[:, -1:], cache=cache), cache

    def decode(self, ids: Sequence[int], state: Any) -> Any:
        return self.model(self.mx.array(ids)[:, None], cache=state)

    def sync(self, logits: Any) -> None:
        self.mx.eval(logits)

    def best(self, logits: Any) -> list[int]:
        return self.mx.argmax(logits[:, -1], axis=-1).tolist()


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """With what mlx-lm has no default for."""
    if config["model_type"] == "gpt2":
        return {"n_ctx": config["n_positions"], "layer_norm_epsilon": 1e-5} | config
    return config

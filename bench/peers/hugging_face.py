"""Hugging Face transformers on torch: its model and its cache, in a bare loop.

`generate()` adds work of its own to each step, so the loop calls the model as `generate` does: with
scaled dot product attention, logits only after the last token, and under `inference_mode`. The
cache is the static one, as long as the test needs: it decodes as fast as the dynamic one, and batches
faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .peer import Peer


class Transformers(Peer):
    name = "transformers"
    packages = ("transformers", "torch")

    def load(self) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, StaticCache

        self.torch, self.new_cache = torch, StaticCache
        torch.set_num_threads(self.threads())
        torch.manual_seed(0)
        config = AutoConfig.for_model(**self.config)
        dtype = getattr(torch, self.subject.dtype)
        self.model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        ).eval()

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Any, Any]:
        cache = self.new_cache(config=self.model.config, max_cache_len=capacity)
        return self.forward(prompts, cache), cache

    def decode(self, ids: Sequence[int], state: Any) -> Any:
        return self.forward([[i] for i in ids], state)

    def forward(self, ids: Sequence[Sequence[int]], cache: Any) -> Any:
        with self.torch.inference_mode():
            ids = self.torch.tensor(ids)
            return self.model(
                input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).logits

    def best(self, logits: Any) -> list[int]:
        return logits[:, -1].argmax(-1).tolist()

"""The first decoder that one writes in torch, like nanoGPT: GPT-2's architecture without a cache.

Each new token reads the whole text again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigen.benchmark.plan import Case
from minigen.benchmark.session import SEED, Timed

from .peer import Peer, PeerSession, PeerSubject

EVERY = 8  # one step of this many is run, and counts for all of them


def transformer(vocabulary: int, width: int, heads: int, layers: int, context: int) -> Any:
    """A torch module: ids (B, T) -> logits (B, T, V); with `last`, (B, 1, V) of the last token."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down, self.gelu = (
                nn.Linear(width, 4 * width),
                nn.Linear(4 * width, width),
                nn.GELU(),
            )

        def forward(self, x: Any) -> Any:
            B, T, C = x.shape
            qkv = self.qkv(self.norm1(x)).view(B, T, 3, heads, C // heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).contiguous().view(B, T, C))
            return x + self.down(self.gelu(self.up(self.norm2(x))))

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = (
                nn.Embedding(vocabulary, width),
                nn.Embedding(context, width),
            )
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, ids: Any, last: bool = False) -> Any:
            x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            if last:
                x = x[:, -1:]
            return self.head(self.norm(x))

    torch.manual_seed(0)
    return Transformer()


class PlainGPT(Peer):
    name = "plain torch"
    packages = ("torch",)
    families = ("gpt2",)
    batches = False

    @classmethod
    def session(cls, subject: PeerSubject) -> PeerSession:
        return PlainSession(subject)

    def load(self) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads())
        sizes = (
            self.config[name]
            for name in ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions")
        )
        self.model = transformer(*sizes).to(getattr(torch, self.subject.dtype)).eval()

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Any, Any]:
        text = [list(prompts[0])]  # all that it remembers
        return self.forward(text), text

    def decode(self, ids: Sequence[int], state: Any) -> Any:
        state[0] += ids
        return self.forward(state)

    def forward(self, ids: list[list[int]]) -> Any:
        with self.torch.inference_mode():
            return self.model(self.torch.tensor(ids), last=True)

    def best(self, logits: Any) -> list[int]:
        return logits[:, -1].argmax(-1).tolist()


class PlainSession(PeerSession):
    """One step in EVERY: hundreds of passes over the whole text would take most of the run."""

    def run(self, case: Case) -> Timed:
        if case.kind != "tg" or case.tokens < EVERY:
            return super().run(case)
        vocabulary, steps = self.peer.architecture.vocab_size, []
        ids = (
            np.random.default_rng(SEED)
            .integers(0, vocabulary, (1, case.before + case.tokens))
            .tolist()
        )
        for at in range(EVERY // 2, case.tokens, EVERY):
            began = time.perf_counter()
            self.peer.best(self.peer.forward([ids[0][: case.before + at]]))
            steps.append(time.perf_counter() - began)
        return Timed(sum(steps) / len(steps) * case.tokens, steps_s=steps)

"""The operations of `Choosing` on PyTorch: largest values, sums, orders."""

from __future__ import annotations

import torch

from minigen.backends.base import Array


class TorchChoice:
    """A part of TorchBackend; `Choosing` describes its methods."""

    device: str

    def best(self, x: Array) -> tuple[Array, Array]:
        indices = torch.argmax(x, dim=-1)  # finds NaN on a CPU and on CUDA
        values = x.gather(-1, indices[..., None])[..., 0]
        if self.device != "cpu" and not self.device.startswith("cuda"):
            values = values.masked_fill(x.isnan().any(dim=-1), torch.nan)
        return values, indices

    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        values, indices = torch.topk(x, k, dim=-1)
        return values, indices

    def logsumexp(self, x: Array) -> Array:
        return torch.logsumexp(x.float(), dim=-1)

    def argsort(self, x: Array) -> Array:
        return torch.argsort(x, dim=-1)

    def cumsum(self, x: Array) -> Array:
        return torch.cumsum(x, dim=-1)

    def exp(self, x: Array) -> Array:
        return torch.exp(x)

    def gather(self, x: Array, indices: Array) -> Array:
        return x.gather(-1, indices)

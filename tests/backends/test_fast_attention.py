"""Which kernel of a GPU attention is made for: what scaled_dot_product_attention gets, and that it is the same sum."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import torch.nn.functional as F  # noqa: E402

from minigen.backends import get_backend  # noqa: E402

B, H, G, D = 2, 6, 2, 16


class Kernels:
    """Writes down, for each call, which of CUDA's kernels torch would take: its rules of dense arrays up to 2.13."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.compute = F.scaled_dot_product_attention

    def __call__(
        self,
        q: Any,
        k: Any,
        v: Any,
        attn_mask: Any = None,
        is_causal: bool = False,
        **settings: Any,
    ) -> Any:
        half = q.dtype in (torch.bfloat16, torch.float16)
        square = not is_causal or q.shape[2] == k.shape[2]
        if half and attn_mask is None and square and q.shape[3] <= 256:
            self.taken.append("flash")
        elif q.shape[1] == k.shape[1] == v.shape[1]:
            self.taken.append("memory-efficient")
        else:
            self.taken.append("all scores")
        return self.compute(q, k, v, attn_mask=attn_mask, is_causal=is_causal, **settings)


def draw(T: int, S: int, heads: int, groups: int, dtype: str, width: int = D) -> list[Any]:
    generator = torch.Generator().manual_seed(3)
    shapes = (B, heads, T, width), (B, groups, S, width), (B, groups, S, width)
    return [torch.randn(shape, generator=generator).to(getattr(torch, dtype)) for shape in shapes]


def window(T: int, S: int) -> Any:
    """Each token sees the five newest keys, itself included."""
    age = torch.arange(S - T, S)[:, None] - torch.arange(S)
    return ((age >= 0) & (age < 5))[None, None].repeat(B, 1, 1, 1)


CASES = [
    # new tokens, keys, heads, groups, mask, dtype, the kernel
    (7, 7, H, G, "causal", "bfloat16", "flash"),
    (7, 7, H, G, "causal", "float32", "memory-efficient"),
    (7, 7, H, G, "window", "bfloat16", "memory-efficient"),
    (3, 11, H, G, "causal", "bfloat16", "memory-efficient"),
    (3, 11, H, G, "causal", "float16", "memory-efficient"),
    (3, 11, H, G, "causal", "float32", "memory-efficient"),
    (3, 11, H, 1, "causal", "bfloat16", "memory-efficient"),
    (3, 11, H, H, "causal", "bfloat16", "memory-efficient"),
    (3, 11, H, G, "window", "float32", "memory-efficient"),
    (3, 11, H, G, None, "bfloat16", "flash"),
    (3, 11, H, G, None, "float32", "memory-efficient"),
    (1, 11, H, G, "causal", "bfloat16", "flash"),
    (1, 11, H, G, "window", "bfloat16", "memory-efficient"),
    (1, 11, H, G, "causal", "float32", "memory-efficient"),
]


@pytest.mark.parametrize(("T", "S", "heads", "groups", "kind", "dtype", "kernel"), CASES)
def test_the_kernel_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    T: int,
    S: int,
    heads: int,
    groups: int,
    kind: str | None,
    dtype: str,
    kernel: str,
) -> None:
    ops: Any = get_backend("torch", "cpu", dtype)
    ops.kernels = None
    q, k, v = draw(T, S, heads, groups, dtype)
    mask = window(T, S) if kind == "window" else kind
    want = ops.attention(q, k, v, 0.25, mask)
    kernels = Kernels()
    monkeypatch.setattr(F, "scaled_dot_product_attention", kernels)
    ops.accelerated = True
    got = ops.attention(q, k, v, 0.25, mask)
    assert kernels.taken == [kernel]
    assert torch.allclose(
        got.float(), want.float(), atol={"float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    )


def test_heads_that_are_too_wide_for_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    ops: Any = get_backend("torch", "cpu", "bfloat16")
    ops.kernels, ops.accelerated = None, True
    kernels = Kernels()
    monkeypatch.setattr(F, "scaled_dot_product_attention", kernels)
    ops.attention(*draw(4, 4, H, G, "bfloat16", width=264), 0.25, "causal")
    assert kernels.taken == ["memory-efficient"]


def test_a_cpu_copies_no_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    ops: Any = get_backend("torch", "cpu", "float32")
    ops.kernels = None
    q, k, v = draw(3, 11, H, G, "float32")
    seen: list[Any] = []
    compute = F.scaled_dot_product_attention

    def watch(query: Any, *held: Any, **settings: Any) -> Any:
        seen.extend(held)
        return compute(query, *held, **settings)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watch)
    ops.attention(q, k, v, 0.25, "causal")
    assert seen[0] is k
    assert seen[1] is v

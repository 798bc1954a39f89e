"""Codes are the same on every device, though CUDA divides by a number otherwise than a CPU does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from minigen.backends import get_backend  # noqa: E402

AS_CUDA = [torch.ops.aten.div.Tensor, torch.ops.aten.div.Scalar, torch.ops.aten.div_.Tensor]


class CudaQuotients(TorchDispatchMode):
    """A quotient by a number is a product with its reciprocal, as in torch's BinaryDivTrueKernel.cu."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in AS_CUDA and not (isinstance(args[1], torch.Tensor) and args[1].dim()):
            reciprocal = 1 / torch.tensor(float(args[1]), dtype=torch.float32)
            return args[0] * reciprocal.item()
        return function(*args, **(kwargs or {}))


def weights(kind: str, dtype: str) -> Any:
    """Rows of 256 numbers, drawn; or every 32 of them as far below 0 as above."""
    x = np.random.default_rng(7).standard_normal((512, 256)).astype(np.float32)
    if kind == "symmetric":
        groups = x.reshape(512, 8, 32)
        groups[:, :, 16:] = -groups[:, :, :16]
    return torch.from_numpy(x).to(getattr(torch, dtype))


def test_the_emulation_divides_as_cuda_does() -> None:
    x = torch.arange(1, 200, dtype=torch.float32)
    exact = x / 15
    with CudaQuotients():
        by_number, by_array = x / 15, x / torch.full_like(x, 15)
    assert torch.equal(by_array, exact)
    assert not torch.equal(by_number, exact)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["drawn", "symmetric"])
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 64), (8, 32), (8, 128)])
def test_codes_of_cuda(bits: int, group: int, kind: str, dtype: str) -> None:
    ops = get_backend("torch", "cpu", dtype)
    weight = weights(kind, dtype)
    want = ops.quantize(weight, bits, group)
    with CudaQuotients():
        got = ops.quantize(weight, bits, group)
    for one, other in zip(got.arrays, want.arrays, strict=True):
        assert torch.equal(one.view(torch.uint8), other.view(torch.uint8))

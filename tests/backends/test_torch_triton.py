"""The Triton kernel for few rows against unpacking, by Triton's interpreter in a process of its own."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from minigen.backends.torch import few_rows as torch_few_rows  # noqa: E402
from minigen.backends.torch import quantized as torch_quantized  # noqa: E402
from minigen.backends.torch.few_rows import FewRows  # noqa: E402
from minigen.errors import UsageError  # noqa: E402

TOLERANCE = {
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
}  # of the largest number


def compare() -> int:
    """The kernel against unpacking, over shapes that blocks do not divide; how many comparisons there were."""
    random = torch.Generator().manual_seed(3)
    rows_and_shapes = [(1, 5, 128), (1, 9, 1280), (3, 4, 384), (5, 1, 128), (8, 6, 256)]
    layouts = [(4, 32), (4, 64), (8, 64), (8, 128)]
    count = 0
    for (rows, lines, width), (bits, group), dtype in itertools.product(
        rows_and_shapes, layouts, TOLERANCE
    ):
        few = FewRows()
        matrix = torch.randn(lines, width, generator=random).to(dtype)
        x = torch.randn(rows, width, generator=random).to(dtype)
        bias = torch.randn(lines, generator=random).to(dtype) if count % 2 else None
        held = torch_quantized.quantize(matrix, bits, group)
        want = torch_quantized.linear(x[:, None], held, bias)
        got: Any = few.product(
            x[:, None], torch_quantized.arrays_of(held), bias, group, bits, lambda want=want: want
        )
        assert few.possible
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        apart = (got.float() - want.float()).abs().max() / want.float().abs().max()
        assert apart <= TOLERANCE[dtype], (rows, lines, width, bits, group, dtype, float(apart))
        count += 1
    # A head's width that is one group; experts (E, out, in), whose lines are one after the other; x not in memory order
    for bits, group, shape in [(4, 40, (3, 40)), (8, 24, (3, 24)), (4, 64, (2, 3, 128))]:
        held = torch_quantized.quantize(torch.randn(shape, generator=random), bits, group)
        x = torch.randn(shape[-1], 2, generator=random).T
        want = torch_quantized.linear(x, held, None)
        got = FewRows().product(
            x, torch_quantized.arrays_of(held), None, group, bits, lambda want=want: want
        )
        assert got.shape == want.shape
        assert torch.allclose(got, want, atol=1e-4)
        count += 1
    return count


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_kernel_is_unpacking() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}  # read when triton is imported
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "63\n"), done.stderr


def never() -> Any:
    """No product by unpacking is asked for here."""
    raise AssertionError


def shape_of(x: Any) -> tuple[int, ...]:
    return tuple(x.shape)


def held(bits: int = 4) -> Any:
    return torch_quantized.quantize(torch.randn(6, 128), bits, 64)


def test_what_fails_is_said_once_and_unpacked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> Any:
        raise RuntimeError("no compiler\nand more")

    few, matrix = FewRows(), torch_quantized.arrays_of(held())
    few.possible = True
    broken = SimpleNamespace(quantized_product=fail)
    monkeypatch.setitem(sys.modules, "minigen.backends.torch.triton", broken)
    with caplog.at_level(logging.WARNING, "minigen"):
        for _ in range(2):
            assert few.product(torch.ones(1, 128), matrix, None, 64, 4, never) is None
    assert [record.getMessage() for record in caplog.records] == [
        "the Triton kernel for quantized weights does not work here (no compiler): they are unpacked at each product"
    ]


def test_memory_that_is_short_is_no_fault_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    few, matrix = FewRows(), torch_quantized.arrays_of(held())
    few.possible = True
    broken = SimpleNamespace(quantized_product=fail)
    monkeypatch.setitem(sys.modules, "minigen.backends.torch.triton", broken)
    with pytest.raises(torch.OutOfMemoryError):
        few.product(torch.ones(1, 128), matrix, None, 64, 4, never)
    assert few.possible


def test_a_kernel_that_computes_something_else_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first product of each kind is compared, and none after it."""
    weight = held()
    matrix, want = (
        torch_quantized.arrays_of(weight),
        torch_quantized.dequantize(weight).sum(-1)[None],
    )
    factor = [1.0]
    kernel = SimpleNamespace(quantized_product=lambda x, *args: want.repeat(len(x), 1) * factor[0])
    monkeypatch.setitem(sys.modules, "minigen.backends.torch.triton", kernel)
    few, compared = FewRows(), []
    few.possible = True

    def unpacked() -> Any:
        compared.append(1)
        return want

    for _ in range(3):
        assert few.product(torch.ones(1, 128), matrix, None, 64, 4, unpacked) is not None
    assert len(compared) == 1
    factor[0] = 1.01
    with caplog.at_level(logging.WARNING, "minigen"):
        assert few.product(torch.ones(2, 128), matrix, None, 64, 4, unpacked) is None
    assert "does not work here (a product is off by" in caplog.text
    assert not few.possible


def test_what_is_no_number_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    few, wrong = FewRows(), torch.full((1, 6), torch.nan)
    few.possible = True
    kernel = SimpleNamespace(quantized_product=lambda *args: torch.zeros(1, 6))
    monkeypatch.setitem(sys.modules, "minigen.backends.torch.triton", kernel)
    assert (
        few.product(
            torch.ones(1, 128), torch_quantized.arrays_of(held()), None, 64, 4, lambda: wrong
        )
        is not None
    )
    assert few.possible
    assert not few.checked


def test_which_products_go_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def product(x: Any, codes: Any, *rest: Any) -> Any:
        asked.append(len(x))
        return x.new_empty(len(x), len(codes))

    few, matrix = FewRows(), torch_quantized.arrays_of(held())
    few.possible = True
    monkeypatch.setattr(torch_few_rows, "capturing", lambda x: True)
    monkeypatch.setitem(
        sys.modules, "minigen.backends.torch.triton", SimpleNamespace(quantized_product=product)
    )
    assert shape_of(few.product(torch.ones(2, 4, 128), matrix, None, 64, 4, never)) == (2, 4, 6)
    assert shape_of(few.product(torch.ones(128), matrix, None, 64, 4, never)) == (6,)
    for x in (
        torch.ones(9, 128),
        torch.ones(0, 128),
        torch.ones(1, 128, requires_grad=True),
        torch.ones(1, 128).half(),
    ):
        assert few.product(x, matrix, None, 64, 4, never) is None
    assert asked == [8, 1]


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_few_rows, "find_spec", lambda name: object())
    for said, possible in {None: True, "1": True, "0": False}.items():
        monkeypatch.delenv("MINIGEN_QUANT_KERNEL", raising=False)
        if said is not None:
            monkeypatch.setenv("MINIGEN_QUANT_KERNEL", said)
        assert FewRows().possible is possible
    monkeypatch.setenv("MINIGEN_QUANT_KERNEL", "yes")
    with pytest.raises(
        UsageError, match=r"^MINIGEN_QUANT_KERNEL is 'yes': set it to 1 \(the default\), or to 0"
    ):
        FewRows()
    monkeypatch.delenv("MINIGEN_QUANT_KERNEL")
    monkeypatch.setattr(torch_few_rows, "find_spec", lambda name: None)
    assert not FewRows().possible


class Traffic(TorchDispatchMode):  # type: ignore[misc]
    """Bytes of what operations read and write, but for views."""

    total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            arrays = [x for x in tree_leaves((args, result)) if isinstance(x, torch.Tensor)]
            self.total += sum(x.nbytes for x in arrays)
        return result


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize(("bits", "unpacked"), [(4, 25), (8, 21)])
def test_bytes_a_weight(bits: int, unpacked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch_quantized.quantize(torch.zeros(512, 512, dtype=torch.bfloat16), bits, 64)
    weight = weight._replace(
        **{name: getattr(weight, name).to("meta") for name in ("packed", "scales", "biases")}
    )
    x = torch.empty(1, 512, dtype=torch.bfloat16, device="meta")
    few = FewRows()
    monkeypatch.setattr(
        torch_few_rows, "capturing", lambda x: True
    )  # meta tensors cannot be compared
    with Traffic() as before:
        torch_quantized.linear(x, weight, None)
    with Traffic() as after:
        assert few.product(x, torch_quantized.arrays_of(weight), None, 64, bits, never) is not None
    assert before.total / 512**2 > unpacked
    assert (
        after.total / 512**2 < bits / 8 + 0.08
    )  # a scale and a bias of 2 bytes for 64 codes, and x and y


if __name__ == "__main__":
    print(compare())

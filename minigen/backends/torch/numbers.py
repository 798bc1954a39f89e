"""What decides the numbers that torch computes on a GPU: how float32 products are made, and in which order sums are.

Both are settings of the whole process, so training changes them while it computes and puts them back.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from minigen.errors import BackendError, MinigenError

# What cuBLAS wants for sums in one order. torch looks at it when it makes the first product, and never again.
WORKSPACE, ORDERED = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
TF32 = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"  # which some containers set

log = logging.getLogger("minigen")


def prepare(device: str) -> None:
    """Before torch is first asked for a device. What the user has set in the environment stays.

    Raises BackendError for a device that torch computes wrong on.
    """
    if device.startswith("mps"):
        # In 16 bits its attention is wrong, without a word, in most releases that there are: pytorch#174861 (memory of
        # other arrays in it, up to 2.10), pytorch#195910 (causal attention that sees the future).
        raise BackendError(
            f"torch's device {device!r} is not used: on Apple silicon take --backend mlx, or --device cpu"
        )
    os.environ.setdefault(WORKSPACE, ORDERED[0])


def product_settings() -> list[Any]:
    """The modules whose `fp32_precision` says how float32 products are made: of matrices, and of recurrent layers.

    Not the older `allow_tf32`, which warns in some releases and raises where the two disagree.
    """
    return [torch.backends.cuda.matmul, torch.backends.cudnn.rnn]


def tf32_products() -> bool:
    """Whether matrix products in float32 are made of factors that are rounded to TF32, 10 bits."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def has_bfloat16(device: str) -> bool:
    """Whether a GPU multiplies bfloat16 itself: from NVIDIA's compute capability 8.0 on."""
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))


def warn_of_tf32() -> None:
    """For a model that is to compute in float32 on a GPU."""
    if tf32_products():
        source = (
            f"{TF32}=1" if os.environ.get(TF32) == "1" else "torch.set_float32_matmul_precision"
        )
        log.warning(
            "float32 products are TF32 here, as %s asks: texts may differ from the CPU's", source
        )


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 products in float32. cuDNN's recurrent layers round to TF32 unless they are told not to."""
    rounded = [module for module in product_settings() if module.fp32_precision == "tf32"]
    for module in rounded:
        module.fp32_precision = "ieee"
    try:
        yield
    finally:
        for module in rounded:
            module.fp32_precision = "tf32"


@contextmanager
def deterministic_sums() -> Iterator[None]:
    """The same sums in every run on the same GPU: gradients of attention and of embeddings else add in any order.

    Raises MinigenError for an operation that torch has in no such form, and where the first product was made before
    cuBLAS was asked for it.
    """
    from torch._inductor import (
        config as inductor,
    )  # torch's own switch sets it, and does not put it back

    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    filled, compiled = (
        torch.utils.deterministic.fill_uninitialized_memory,
        getattr(inductor, "deterministic", None),
    )
    cudnn = torch.backends.cudnn
    deterministic, benchmark = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # every byte is written anyway
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if (reason := why_not_deterministic(error)) is None:
            raise
        raise MinigenError(reason) from error
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
        torch.utils.deterministic.fill_uninitialized_memory = filled
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
        if compiled is not None:
            inductor.deterministic = compiled


def why_not_deterministic(error: RuntimeError) -> str | None:
    """What to do about torch's refusal to compute without a fixed order; None for any other error."""
    said = str(error)
    if WORKSPACE in said:
        return (
            f"training cannot be deterministic in this process: {WORKSPACE} was {os.environ.get(WORKSPACE, 'not set')} "
            f"at its first product: start it with {WORKSPACE}={ORDERED[0]}, or train with --no-deterministic"
        )
    operation, found, _ = said.partition(" does not have a deterministic implementation")
    if not found:
        return None
    name = (operation.split() or ["an operation"])[-1]
    return f"training cannot be deterministic here: torch has {name} in no such form: train with --no-deterministic"


@contextmanager
def training_numbers(device: str, deterministic: bool) -> Iterator[None]:
    """What holds while a training computes. Nothing is changed for devices other than CUDA."""
    with ExitStack() as stack:
        if device.startswith("cuda"):
            stack.enter_context(full_float32())
            if deterministic:
                stack.enter_context(deterministic_sums())
        yield


@contextmanager
def quiet_copies() -> Iterator[None]:
    """Without torch's advice on weights that cuDNN copies together: nothing that a user could change."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "RNN module weights are not part of single contiguous chunk", UserWarning
        )
        yield

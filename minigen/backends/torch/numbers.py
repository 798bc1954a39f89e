"""Settings that affect the numbers on a GPU: how float32 products are made, the order of sums.

They apply to the whole process, so training changes them while it computes and restores them.
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

# cuBLAS needs this for sums in a fixed order. torch reads it at the first product, and never again.
WORKSPACE, ORDERED = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
TF32 = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"  # which some containers set

log = logging.getLogger("minigen")


def prepare(device: str) -> None:
    """Called before torch is first asked for a device. Settings of the environment are kept.

    Raises BackendError for a device on which torch computes wrong results.
    """
    if device.startswith("mps"):
        # Its 16-bit attention is silently wrong in most releases: pytorch#174861 (reads memory of
        # other arrays, up to 2.10), pytorch#195910 (causal attention that sees the future).
        raise BackendError(
            f"torch's device {device!r} is not supported: "
            "on Apple silicon use --backend mlx, or --device cpu"
        )
    os.environ.setdefault(WORKSPACE, ORDERED[0])


def product_settings() -> list[Any]:
    """The modules whose `fp32_precision` decides how float32 products of matrices and of recurrent
    layers are computed.

    The older `allow_tf32` warns in some releases, and raises if the two disagree.
    """
    return [torch.backends.cuda.matmul, torch.backends.cudnn.rnn]


def tf32_products() -> bool:
    """Whether float32 matrix products round their factors to TF32, which keeps 10 bits."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def has_bfloat16(device: str) -> bool:
    """Whether a GPU multiplies bfloat16 in hardware: from NVIDIA's compute capability 8.0 on."""
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))


def warn_of_tf32() -> None:
    """Logs a warning if a model that computes in float32 on a GPU gets TF32 products."""
    if not tf32_products():
        return
    if os.environ.get(TF32) == "1":
        source = f"{TF32}=1"
    else:
        source = "torch.set_float32_matmul_precision"
    log.warning(
        "float32 products are TF32 here, as %s asks: texts may differ from the CPU's", source
    )


@contextmanager
def full_float32() -> Iterator[None]:
    """Computes float32 products in full. cuDNN's recurrent layers round to TF32 by default."""
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
    """Makes sums the same in every run on the same GPU.

    Otherwise gradients of attention and of embeddings are added in any order. Raises MinigenError
    for an operation that torch has no deterministic form of, and if the first product was computed
    before cuBLAS was configured.
    """
    # torch's switch changes inductor's setting too, but does not restore it
    from torch._inductor import config as inductor

    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    compiled = getattr(inductor, "deterministic", None)
    deterministic, benchmark = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # every byte is written anyway
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        reason = why_not_deterministic(error)
        if reason is None:
            raise
        raise MinigenError(reason) from error
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
        torch.utils.deterministic.fill_uninitialized_memory = filled
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
        if compiled is not None:
            inductor.deterministic = compiled


def why_not_deterministic(error: RuntimeError) -> str | None:
    """A message for an error by which torch refuses to compute; None for any other error."""
    message = str(error)
    if WORKSPACE in message:
        setting = os.environ.get(WORKSPACE, "not set")
        return (
            f"training cannot be deterministic in this process: {WORKSPACE} was {setting} "
            f"at its first product: start it with {WORKSPACE}={ORDERED[0]}, "
            "or train with --no-deterministic"
        )
    operation, refusal, _ = message.partition(" does not have a deterministic implementation")
    if not refusal:
        return None
    name = (operation.split() or ["an operation"])[-1]
    return (
        f"training cannot be deterministic here: torch has {name} in no such form: "
        "train with --no-deterministic"
    )


@contextmanager
def training_numbers(device: str, deterministic: bool) -> Iterator[None]:
    """The settings while a training computes; only those of CUDA are changed."""
    with ExitStack() as stack:
        if device.startswith("cuda"):
            stack.enter_context(full_float32())
            if deterministic:
                stack.enter_context(deterministic_sums())
        yield


@contextmanager
def quiet_copies() -> Iterator[None]:
    """Hides torch's advice on weights that cuDNN has to copy, which no user can follow."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "RNN module weights are not part of single contiguous chunk", UserWarning
        )
        yield

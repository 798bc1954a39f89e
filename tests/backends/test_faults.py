"""What a device says when it fails: which words mean that memory is short, and which that it broke."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest

from minigen.backends.faults import broken_device, out_of_memory
from minigen.backends.group import waiting_for_others
from minigen.errors import MinigenError

Run = Callable[..., tuple[int, str, str]]

METAL = "[METAL] Command buffer execution failed:"
SHORT = [
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB",
    "HIP out of memory. Tried to allocate 20.00 MiB.",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "Triton Error [CUDA]: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory (MPS allocated: 7.64 GiB, max allowed: 9.07 GiB). Tried to allocate 1 GiB",
    "Invalid buffer size: 33.92 GiB",
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
    "[malloc] Unable to allocate 4294967296 bytes.",
    "[metal::malloc] Attempting to allocate 48736917632 bytes which is greater than the maximum allowed buffer size of "
    "30150672384 bytes.",
    "[metal::malloc] Resource limit (499000) exceeded.",
    f"{METAL} Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "std::bad_alloc",
]
BROKEN = [
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: unspecified launch failure",
    "CUDA error: device-side assert triggered",
    "CUDA error: misaligned address",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "CUDA driver error: invalid argument",
    f"{METAL} Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)",
    f"{METAL} Caused GPU Address Fault Error (0000000b:kIOGPUCommandBufferCallbackErrorPageFault).",
    f"{METAL} Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)",
]
OURS = [
    "unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory "
    "location. Please clone() the tensor before performing the operation.",
    "required rank 4 tensor to use channels_last memory format",
    "Tensor.data_ptr() cannot be called on memory that has been freed",
    "mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)",
]


@pytest.fixture
def fail(
    monkeypatch: pytest.MonkeyPatch, run_cli: Run
) -> Callable[[Exception], tuple[int, str, str]]:
    """What the command says of an error that a framework raised."""
    main = import_module("minigen.cli.main")

    def run(error: Exception) -> tuple[int, str, str]:
        def raise_it(argv: list[str]) -> int:
            raise error

        monkeypatch.setattr(main, "dispatch", raise_it)
        return run_cli("generate")

    return run


@pytest.mark.parametrize("words", SHORT)
def test_memory_is_short(words: str, fail: Callable[[Exception], tuple[int, str, str]]) -> None:
    error = RuntimeError(words)
    assert out_of_memory(error)
    assert broken_device(error) is None
    said = "minigen: out of memory: use a smaller model, a shorter prompt or fewer samples\n"
    assert fail(error) == (1, "", said)


@pytest.mark.parametrize("words", BROKEN)
def test_a_device_that_broke(words: str, fail: Callable[[Exception], tuple[int, str, str]]) -> None:
    error = RuntimeError(f"{words}\nSearch for it in the manual.")
    assert not out_of_memory(error)
    code, out, err = fail(error)
    assert (code, out) == (1, "")
    assert err.startswith(
        f"minigen: the GPU failed ({words.rstrip('.')}); memory is not short: run it again"
    )
    assert err.count("\n") == 1
    assert ("MINIGEN_GRAPHS=0" in err) == ("METAL" not in words)


@pytest.mark.parametrize("words", OURS)
def test_other_errors_that_speak_of_memory(
    words: str, fail: Callable[[Exception], tuple[int, str, str]]
) -> None:
    """They are mistakes of ours, and keep their traceback."""
    assert not out_of_memory(RuntimeError(words))
    with pytest.raises(
        RuntimeError, match="^" + words[:20].replace("(", r"\(").replace(")", r"\)")
    ):
        fail(RuntimeError(words))


def test_classes_of_errors() -> None:
    assert out_of_memory(MemoryError())
    assert not out_of_memory(MinigenError("the prompt says: out of memory"))
    assert not out_of_memory(KeyError("out of memory"))
    assert broken_device(MinigenError("CUDA error: no")) is None


def test_what_the_frameworks_say_here() -> None:
    """Their own words for an array that no machine holds, as far as one can ask for it here."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(found.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))


@pytest.mark.parametrize("name", ["torch", "mlx"])
def test_memory_is_short_while_processes_wait(name: str) -> None:
    """It is not taken for a process that was lost."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    group_class = getattr(
        import_module(f"minigen.backends.{name}.group"),
        "MLXGroup" if name == "mlx" else "TorchGroup",
    )
    group = object.__new__(group_class)
    group.rank, group.size = 0, 2
    for words, wanted in ((SHORT[0], RuntimeError), ("Connection reset by peer", MinigenError)):
        waiting = group.others(1.0) if name == "mlx" else waiting_for_others(group)
        with pytest.raises(wanted), waiting:
            raise RuntimeError(words)

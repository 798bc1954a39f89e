"""What minigen does on a Mac, on a platform that only claims to be one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from minigen.backends import get_backend
from minigen.errors import BackendError
from minigen.layers.slot import ALL, Slot
from minigen.models.state import State

from .conftest import DEVICES
from .fake_platform import WORKING_SET, pretend_metal

needs_mlx = pytest.mark.skipif(find_spec("mlx") is None, reason="mlx is not installed")


@pytest.fixture
def metal(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX claims a GPU, and no model has chosen a device yet."""
    from minigen.backends.mlx.backend import MLXBackend

    pretend_metal(monkeypatch.setattr)
    monkeypatch.setattr(MLXBackend, "used", None)


@needs_mlx
@pytest.mark.usefixtures("metal")
def test_models_without_a_device_take_that_of_the_tests() -> None:
    assert get_backend("mlx").device == DEVICES["mlx"]
    assert get_backend("mlx", DEVICES["mlx"]).device == DEVICES["mlx"]


@needs_mlx
@pytest.mark.usefixtures("metal")
def test_the_device_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGEN_MLX_DEVICE", "abacus")
    with pytest.raises(BackendError, match=r"^mlx has no device 'abacus': choose cpu or gpu$"):
        get_backend("mlx")
    monkeypatch.setenv("MINIGEN_MLX_DEVICE", "")
    assert get_backend("mlx").device == "gpu"


@needs_mlx
@pytest.mark.usefixtures("metal")
def test_memory_is_what_metal_lets_a_gpu_hold() -> None:
    """Not the memory of the machine; and no array is longer than a buffer of Metal."""
    ops = get_backend("mlx", "gpu")
    assert ops.total_memory() == WORKING_SET
    with pytest.raises(
        BackendError,
        match=r"^this needs 2.0 GiB at once, and the device has 1.0 GiB: ask for fewer",
    ):
        ops.zeros((2**29,), "float32")
    with pytest.raises(
        BackendError,
        match=r"^this needs 0.5 GiB in one array, and the device takes 0.2 GiB: ask for",
    ):
        ops.zeros((2**27,), "float32")
    assert ops.zeros((3,), "float32").shape == (3,)
    slot = Slot((2, 64), ALL)
    layers = [{"k": slot, "v": slot}] * 8  # each array fits, and all of them together do not
    with pytest.raises(
        BackendError,
        match=r"^this needs 1.2 GiB at once, and the device has 1.0 GiB: ask for fewer",
    ):
        State.empty(ops, layers, 1, 160000)


@needs_mlx
@pytest.mark.parametrize(("told", "counts"), [(None, "0"), ("1", "1"), ("0", "0")])
@pytest.mark.parametrize("module", ["model", "cli.commands.generate", "backends.mlx.group"])
def test_products_of_float32_are_not_shortened(module: str, told: str | None, counts: str) -> None:
    """By the library and the command, before MLX is imported, unless the user has set it."""
    code = f"""
import os, sys

class Importing:
    def find_spec(self, name, *rest):
        if name == "mlx.core":
            print(os.environ["MLX_ENABLE_TF32"])
            sys.exit()

sys.meta_path.insert(0, Importing())
import minigen.{module}
from minigen.backends import get_backend
get_backend("mlx")
"""
    environment = {name: value for name, value in os.environ.items() if name != "MLX_ENABLE_TF32"}
    environment |= {} if told is None else {"MLX_ENABLE_TF32": told}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (done.stdout, done.stderr) == (f"{counts}\n", "")


# What comes first is what a real Mac has of its own; then the platform claims to be one.
ON_A_MAC = """
import logging, os, sys, threading
import llvmlite.binding, numba, torch
from minigen.backends import get_backend
sys.platform = "darwin"
logging.basicConfig(format="%(message)s", stream=sys.stdout)
kernels = get_backend("torch", "cpu", "float32").kernels
"""
KERNELS_AT_ONCE = """
kernels.start()
torch.manual_seed(0)
x, large, small = torch.randn(1, 9, 256), torch.randn(2048, 256), torch.randn(32, 256)
heads = torch.randn(1, 4, 33, 64)

def compute():
    return [kernels.linear(x, large, None), kernels.linear(x, small, None), kernels.activate("SILU", x),
            kernels.attention(heads, heads, heads, 1.0, "causal")]

def work():
    for _ in range(100):
        wrong.extend(not torch.equal(a, b) for a, b in zip(compute(), first))

first, wrong = compute(), []
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(numba.threading_layer(), kernels.started, len(wrong), any(wrong))
"""
WITHOUT_A_LIBRARY = """
sys.modules["numba.np.ufunc.omppool"] = None  # importing it fails, as where libomp.dylib is not found
kernels.start()
print(kernels.started, kernels.possible)
"""


def run_on_a_mac(program: str, **environment: str) -> str:
    pytest.importorskip("numba", reason="numba is not installed")
    pytest.importorskip("torch", reason="torch is not installed")
    told = os.environ | {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"} | environment
    command = [sys.executable, "-c", ON_A_MAC + program]
    done = subprocess.run(command, capture_output=True, text=True, env=told)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_on_a_mac_want_no_library_and_are_called_one_by_one() -> None:
    """numba's own layer of threads ends the process where two threads of Python call it."""
    said = run_on_a_mac(
        KERNELS_AT_ONCE
    ).splitlines()  # which may begin with how busy the machine is
    assert said[-1] == "workqueue True 1200 False"


def test_without_a_library_of_threads_torch_goes_alone() -> None:
    said = run_on_a_mac(WITHOUT_A_LIBRARY, NUMBA_THREADING_LAYER="omp")
    assert said == (
        "numba does not work here (No threading layer could be loaded.): decoding goes by torch alone, at half the "
        "speed\nFalse False\n"
    )


@pytest.mark.parametrize(("system", "said", "prompts"), [
    ("darwin", None, False), ("linux", None, True), ("darwin", "1", True), ("linux", "steps", False),
])  # fmt: skip
def test_prompts_are_left_to_torch_on_a_mac(
    monkeypatch: pytest.MonkeyPatch, system: str, said: str | None, prompts: bool
) -> None:
    """Products of more rows than a step has, and their attention; all else is for the kernels."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("numba", reason="numba is not installed")
    monkeypatch.setattr(sys, "platform", system)
    if said is None:
        monkeypatch.delenv("MINIGEN_KERNELS")
    else:
        monkeypatch.setenv("MINIGEN_KERNELS", said)
    ops = get_backend("torch", "cpu", "float32")
    kernels = ops.kernels  # type: ignore[attr-defined]
    monkeypatch.undo()  # numba starts as it does here
    kernels.start()
    assert kernels.started
    for T, wanted in ((1, True), (64, True), (65, prompts)):
        x, weight, heads = torch.ones(1, T, 64), torch.ones(32, 64), torch.ones(1, 2, T, 32)
        assert (kernels.linear(x, weight, None) is not None) == wanted
        assert (kernels.attention(heads, heads, heads, 1.0, "causal") is not None) == wanted
        packed = ops.quantize(torch.randn(32, 64), 8, 32)
        found = kernels.linear(
            x, packed, None
        )  # unpacked for torch's products where those are wanted
        assert torch.allclose(found, x @ ops.dequantize(packed).T, atol=1e-4)
        assert kernels.activate("SILU", x) is not None

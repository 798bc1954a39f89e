"""What minigen does on a Mac, on a platform that only claims to be one."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from minigen.backends import get_backend
from minigen.errors import BackendError
from minigen.state import KVCache

from .conftest import DEVICES
from .fake_platform import WORKING_SET, pretend_metal

needs_mlx = pytest.mark.skipif(find_spec("mlx") is None, reason="mlx is not installed")


@pytest.fixture
def metal(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX claims a GPU, and no model has chosen a device yet."""
    from minigen.backends.mlx import MLXBackend

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
    with pytest.raises(BackendError, match=r"^this needs 2.0 GiB at once, and the device has 1.0 GiB: ask for fewer"):
        ops.zeros((2**29,), "float32")
    with pytest.raises(BackendError, match=r"^this needs 0.5 GiB in one array, and the device takes 0.2 GiB: ask for"):
        ops.zeros((2**27,), "float32")
    assert ops.zeros((3,), "float32").shape == (3,)
    sizes = [(2, 64)] * 8  # each array fits, and all of them together do not
    with pytest.raises(BackendError, match=r"^this needs 1.2 GiB at once, and the device has 1.0 GiB: ask for fewer"):
        KVCache.empty(ops, sizes, 1, 160000)

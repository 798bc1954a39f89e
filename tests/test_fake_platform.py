"""What minigen does on a Mac, on a platform that only claims to be one."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from minigen.backends import get_backend
from minigen.errors import BackendError

from .conftest import DEVICES
from .fake_platform import pretend_metal

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

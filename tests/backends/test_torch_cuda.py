"""What a backend asks of a GPU, where torch.cuda writes down which one it was asked of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from minigen.backends import get_backend  # noqa: E402
from minigen.errors import UsageError  # noqa: E402

CURRENT = 1  # the GPU that torch takes where none is named


class FakeGPUs:
    """Three GPUs whose arrays lie on the CPU. `asked` has each call that acts on one, and on which."""

    PROPERTIES = SimpleNamespace(total_memory=80 * 2**30)

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.cudnn: list[bool] = []  # what the process was told of cuDNN's attention

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        zeros = torch.zeros
        monkeypatch.setattr(
            torch, "zeros", lambda *shape, device=None, **settings: zeros(*shape, **settings)
        )
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: CURRENT)
        results = {
            "synchronize": None,
            "max_memory_allocated": 5,
            "get_device_properties": self.PROPERTIES,
            "get_device_name": "a GPU",
            "get_device_capability": (9, 0),
        }
        monkeypatch.setattr(
            torch.backends.cuda, "enable_cudnn_sdp", lambda enabled: self.cudnn.append(enabled)
        )
        for name, result in results.items():
            monkeypatch.setattr(torch.cuda, name, self.note(name, result))

    def note(self, name: str, result: Any) -> Any:
        def call(device: Any = None) -> Any:
            index = CURRENT if device is None else torch.device(device).index
            self.asked.append((name, index))
            return result

        return call


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> FakeGPUs:
    found = FakeGPUs()
    found.install(monkeypatch)
    return found


@pytest.mark.parametrize(
    ("wanted", "device"),
    [(None, "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cuda:2", "cuda:2")],
)
def test_a_backend_acts_on_its_own_gpu(gpus: FakeGPUs, wanted: str | None, device: str) -> None:
    ops: Any = get_backend("torch", wanted, "float32")
    assert ops.device == device
    ops.sync({"weight": SimpleNamespace(is_cuda=True)})
    assert ops.memory() == 5
    assert ops.total_memory() == 80 * 2**30
    assert ops.device_name() == "a GPU"
    assert {name for name, _ in gpus.asked} >= {
        "synchronize",
        "max_memory_allocated",
        "get_device_name",
    }
    assert {index for _, index in gpus.asked} == {int(device[-1])}


def test_files_are_read_to_the_same_gpu(
    gpus: FakeGPUs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import safetensors
    from safetensors.numpy import save_file

    seen: list[str] = []
    whole = safetensors.safe_open

    def safe_open(path: Path, framework: str, device: str) -> Any:
        seen.append(device)
        return whole(path, framework=framework, device="cpu")

    save_file({"a": np.ones(3, np.float32)}, tmp_path / "a.safetensors")
    monkeypatch.setattr(safetensors, "safe_open", safe_open)
    get_backend("torch", "cuda", "float32").load(tmp_path / "a.safetensors")["a"]
    assert set(seen) == {"cuda:1"}


@pytest.mark.parametrize(("said", "told"), [(None, [False]), ("0", [False]), ("1", [])])
def test_attention_of_cudnn(
    gpus: FakeGPUs, monkeypatch: pytest.MonkeyPatch, said: str | None, told: list[bool]
) -> None:
    monkeypatch.delenv("MINIGEN_CUDNN_ATTENTION", raising=False)
    if said is not None:
        monkeypatch.setenv("MINIGEN_CUDNN_ATTENTION", said)
    get_backend("torch", "cpu", "float32")
    assert gpus.cudnn == []
    get_backend("torch", "cuda", "float32")
    assert gpus.cudnn == told


def test_a_setting_that_is_neither(gpus: FakeGPUs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGEN_CUDNN_ATTENTION", "yes")
    with pytest.raises(
        UsageError, match=r"^MINIGEN_CUDNN_ATTENTION is 'yes': set it to 0 \(the default\), or to 1"
    ):
        get_backend("torch", "cuda", "float32")


def test_the_bench_waits_for_its_gpu(gpus: FakeGPUs, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from runpy import run_path

    bench = run_path(str(Path(__file__).resolve().parents[2] / "bench" / "gpu.py"))
    model = SimpleNamespace(eval=lambda: model, generate=lambda *args, **settings: None)
    source = SimpleNamespace(from_config=lambda config, dtype: model)
    fake = SimpleNamespace(AutoModelForCausalLM=source)
    bench["theirs"].__globals__["transformers"] = fake
    monkeypatch.setattr(torch, "ones", lambda shape, dtype, device: np.ones(shape))
    monkeypatch.setattr(torch, "ones_like", np.ones_like)
    bench["theirs"](None, "cuda:2", "bfloat16", 3, static=False)()
    assert gpus.asked == [("synchronize", 2)]

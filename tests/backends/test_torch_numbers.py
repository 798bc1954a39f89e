"""How torch computes on a GPU, on a pretended one: float32 in full, sums in one order, and settings that come back."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minigen.backends import get_backend
from minigen.errors import BackendError, MinigenError

torch = pytest.importorskip("torch", reason="torch is not installed")


class PretendedDevice(str):
    """A CPU to torch, and a GPU to whoever asks the name."""

    def startswith(self, prefix: Any, *bounds: Any) -> bool:
        return bool(prefix == "cuda")


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arrays that were pinned, on a machine that can pin none."""
    found: list[Any] = []

    def pin(x: Any) -> Any:
        found.append(x)
        return x

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    return found


@pytest.fixture
def pretended(pinned: list[Any]) -> Any:
    """A backend on a GPU that is none."""
    ops: Any = get_backend("torch", "cpu", "float32")
    ops.device, ops.kernels = PretendedDevice("cpu"), None
    return ops


def settings() -> dict[str, Any]:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only warned": torch.is_deterministic_algorithms_warn_only_enabled(),
        "filled": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn": torch.backends.cudnn.deterministic,
        "benchmark": torch.backends.cudnn.benchmark,
        "matrices": torch.backends.cuda.matmul.fp32_precision,
        "recurrent": torch.backends.cudnn.rnn.fp32_precision,
    }


PLAIN = {
    "deterministic": False, "only warned": False, "filled": True, "cudnn": False, "benchmark": False,
    "matrices": "none", "recurrent": "tf32",
}  # fmt: skip
EXACT = PLAIN | {"deterministic": True, "filled": False, "cudnn": True, "recurrent": "ieee"}


def trainer(ops: Any, **changes: Any) -> Any:
    from minigen.families import HubConfig, find_family
    from minigen.layers.param import initialise
    from minigen.training.trainer import Optimizer, Trainer

    config = {
        "model_type": "lstm_lm",
        "vocab_size": 11,
        "embedding_size": 6,
        "hidden_size": 6,
        "num_layers": 2,
    }
    architecture = find_family(config).build(HubConfig(config))
    return Trainer(
        ops, architecture, initialise(architecture.shapes(), seed=1), Optimizer(), **changes
    )


def one_batch() -> Any:
    from minigen.training.batch import Batch

    ids = np.random.default_rng(0).integers(0, 11, (3, 8))
    return Batch(ids[:, :-1], ids[:, 1:], np.ones((3, 7), np.float32))


@pytest.mark.parametrize("deterministic", [True, False])
def test_settings_hold_while_training_computes(
    pretended: Any, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    """Forward, backward, norm, update and validation; afterwards all are what they were."""
    seen: dict[str, dict[str, Any]] = {}

    def watched(name: str, work: Any) -> Any:
        def watching(*arguments: Any, **named: Any) -> Any:
            seen[name] = settings()
            return work(*arguments, **named)

        return watching

    from minigen.backends.torch import recurrence as torch_recurrence

    made = trainer(pretended, deterministic=deterministic)
    monkeypatch.setitem(torch_recurrence.KERNELS, "lstm", watched("forward", torch.lstm))
    monkeypatch.setattr(torch.autograd, "grad", watched("backward", torch.autograd.grad))
    monkeypatch.setattr(torch.linalg, "vector_norm", watched("norm", torch.linalg.vector_norm))
    optimizer = made.gradients.optimizers[0]
    monkeypatch.setattr(optimizer, "step", watched("update", optimizer.step))
    assert settings() == PLAIN
    made.step([one_batch()], 1e-3, 0)
    assert settings() == PLAIN
    wanted = EXACT if deterministic else PLAIN | {"recurrent": "ieee"}
    assert seen == dict.fromkeys(("forward", "backward", "norm", "update"), wanted)
    seen.clear()
    made.losses(one_batch())
    assert seen == {"forward": wanted}
    assert settings() == PLAIN


def test_on_a_cpu_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigen.backends.torch import recurrence as torch_recurrence

    seen: list[dict[str, Any]] = []

    def watching(*arguments: Any) -> Any:
        seen.append(settings())
        return torch.lstm(*arguments)

    monkeypatch.setitem(torch_recurrence.KERNELS, "lstm", watching)
    trainer(get_backend("torch", "cpu", "float32")).step([one_batch()], 1e-3, 0)
    assert seen == [PLAIN, PLAIN]


def test_settings_of_others_come_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigen.backends.torch.numbers import training_numbers

    def work() -> None:
        with training_numbers("cuda:1", True):
            assert settings() == EXACT | {"matrices": "ieee"}
            raise ValueError("ours")

    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        before = settings()
        with pytest.raises(ValueError, match="ours"):
            work()
        assert settings() == before
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.fp32_precision = "none"
    assert settings() == PLAIN


REFUSED = {
    "cumsum_cuda_kernel does not have a deterministic implementation, but you set 'torch.use_...": "has cumsum_cuda_",
    "it uses CuBLAS and you have CUDA >= 10.2. ... CUBLAS_WORKSPACE_CONFIG=:4096:8 or": "CUBLAS_WORKSPACE_CONFIG=:4096",
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_torch_refuses_is_one_line(
    pretended: Any, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    made = trainer(pretended)

    def refuse(*arguments: Any) -> Any:
        raise RuntimeError(said)

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    with pytest.raises(MinigenError, match="--no-deterministic") as caught:
        made.step([one_batch()], 1e-3, 0)
    assert REFUSED[said] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert settings() == PLAIN


def test_other_errors_are_left_alone(pretended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(pretended)
    monkeypatch.setattr(torch.autograd, "grad", lambda *arguments: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        made.step([one_batch()], 1e-3, 0)


def test_the_compilers_own_switch_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's switch sets it too, and would leave it off for who had it on."""
    from torch._inductor import config as inductor

    from minigen.backends.torch.numbers import training_numbers

    if not hasattr(inductor, "deterministic"):
        pytest.skip("this torch's compiler has no such switch")
    for before in (True, False):
        monkeypatch.setattr(inductor, "deterministic", before)
        with training_numbers("cuda", True):
            assert inductor.deterministic
        assert inductor.deterministic is before


def test_batches_are_sent_from_pinned_memory(
    pretended: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    made = trainer(pretended)

    class Pinned:
        def __init__(self, x: Any) -> None:
            self.x = x

        def to(self, *device: Any, **how: Any) -> Any:
            sent.append({"device": device, **how})
            return self.x

    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda x: Pinned(x)
    )  # a class would not be a method
    made.step([one_batch()], 1e-3, 0)
    assert (
        sent == [{"device": (pretended.device,), "non_blocking": True}] * 3
    )  # ids, targets, weights


def test_weights_of_a_layer_are_one_piece_of_memory() -> None:
    """As cuDNN finds them: at the beginning of memory of their own, one behind the other."""
    from minigen.backends.torch.recurrence import in_one_piece

    whole = torch.arange(60.0, requires_grad=True)
    weights = [whole[10:34].view(8, 3), whole[34:50].view(8, 2), whole[50:58]]
    pieces = in_one_piece(weights)
    assert [piece.storage_offset() for piece in pieces] == [0, 24, 40]
    assert len({piece.untyped_storage().data_ptr() for piece in pieces}) == 1
    assert all(torch.equal(piece, weight) for piece, weight in zip(pieces, weights, strict=True))
    (gradient,) = torch.autograd.grad(sum(piece.sum() for piece in pieces), whole)
    assert gradient.tolist() == [0.0] * 10 + [1.0] * 48 + [0.0] * 2


def test_no_advice_on_weights_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    from minigen.backends.torch import recurrence as torch_recurrence

    def advising(*arguments: Any) -> Any:
        warnings.warn(
            "RNN module weights are not part of single contiguous chunk of memory.", UserWarning, 1
        )
        return torch.rnn_tanh(*arguments)

    monkeypatch.setitem(torch_recurrence.KERNELS, "rnn", advising)
    shapes = {"weight_ih": (4, 3), "weight_hh": (4, 4), "bias_ih": (4,), "bias_hh": (4,)}
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    y, (h,) = torch_recurrence.run("rnn", weights, torch.ones(2, 5, 3), (torch.zeros(2, 4),))
    assert (tuple(y.shape), tuple(h.shape)) == ((2, 5, 4), (2, 4))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_prompts_on_a_gpu_are_one_call(
    pretended: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With full float32, and what single steps give; 16 bits, 8-bit weights and single steps go step by step."""
    from minigen.backends.torch import recurrence as torch_recurrence
    from minigen.layers.cells import CELLS, RecurrentBlock
    from minigen.layers.param import as_arrays, initialise
    from minigen.layers.step import Step

    calls: list[str] = []
    kernel = torch_recurrence.KERNELS[name]

    def watching(*arguments: Any) -> Any:
        calls.append(torch.backends.cudnn.rnn.fp32_precision)
        return kernel(*arguments)

    monkeypatch.setitem(torch_recurrence.KERNELS, name, watching)
    block, plain = RecurrentBlock(CELLS[name], 32, 32), get_backend("torch", "cpu", "float32")
    p = as_arrays(plain, initialise(block.shapes(32, 1), seed=1))
    x = torch.randn(2, 40, 32, generator=torch.Generator().manual_seed(0))
    memory = (torch.zeros(2, 32),) * len(block.cell.memory)

    def run(ops: Any, weights: Any, inputs: Any, before: Any = memory) -> list[Any]:
        y, after = block.run(ops, weights, inputs, Step(0, inputs.shape[1]), before)
        return [y, *after]

    results = run(pretended, p, x)
    assert calls == ["ieee"]
    for ours, theirs in zip(results, run(plain, p, x), strict=True):
        assert float((ours - theirs).abs().max()) < 1e-5
    assert torch.backends.cudnn.rnn.fp32_precision == "tf32"
    run(pretended, p, x[:, :1])
    run(pretended, p | {"weight_hh": plain.quantize(p["weight_hh"], 8, 32)}, x)
    pretended.dtype = "bfloat16"
    half_weights = {key: weight.bfloat16() for key, weight in p.items()}
    run(pretended, half_weights, x.bfloat16(), tuple(h.bfloat16() for h in memory))
    assert calls == ["ieee"]


def test_tf32_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from minigen.backends.torch.numbers import warn_of_tf32

    with caplog.at_level(logging.WARNING, "minigen"):
        warn_of_tf32()
        assert caplog.messages == []
        try:
            torch.backends.cuda.matmul.fp32_precision = "tf32"
            warn_of_tf32()
            monkeypatch.setenv("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1")
            warn_of_tf32()
        finally:
            torch.backends.cuda.matmul.fp32_precision = "none"
    assert [message.split(" asks")[0] for message in caplog.messages] == [
        "float32 products are TF32 here, as torch.set_float32_matmul_precision",
        "float32 products are TF32 here, as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1",
    ]


@pytest.mark.parametrize("device", ["mps", "mps:0"])
def test_metal_by_torch_is_refused(device: str) -> None:
    with pytest.raises(BackendError, match="use --backend mlx"):
        get_backend("torch", device)


@pytest.mark.parametrize("asked", [None, ":16:8"])
def test_the_workspace_is_asked_for_before_the_first_product(asked: str | None) -> None:
    """torch looks at the variable once: a backend has set it by the time that it can compute."""
    environment = {
        name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"
    }
    environment |= {} if asked is None else {"CUBLAS_WORKSPACE_CONFIG": asked}
    code = (
        "import os; from minigen.backends import get_backend; get_backend('torch', 'cpu'); "
        "print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (asked or ":4096:8")


@pytest.mark.parametrize("device", ["cuda:1", "xpu:0"])
def test_dropout_keeps_the_generator_of_its_own_device(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """torch takes a device without its kind for one of CUDA."""
    from minigen.backends.torch.training import TorchTraining

    kept: list[tuple[Any, ...]] = []
    module = SimpleNamespace(
        get_rng_state=lambda at: kept.append(("get", str(at))) or torch.zeros(1),  # type: ignore[func-returns-value]
        set_rng_state=lambda state, at: kept.append(("set", str(at))),
    )
    asked: list[str] = []
    monkeypatch.setattr(torch, "get_device_module", lambda kind: asked.append(kind) or module)  # type: ignore[func-returns-value]
    ops = SimpleNamespace(device=device, accelerated=True, rate=0.1)
    with TorchTraining.seeded(SimpleNamespace(ops=ops), 3):  # type: ignore[arg-type]
        pass
    assert asked == [device.partition(":")[0]]
    assert kept == [("get", device), ("set", device)]

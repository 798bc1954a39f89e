"""What holds on each device: the one table of it, for `minigen doctor` and `minigen help internals`."""

from __future__ import annotations

from dataclasses import dataclass

HEAD = ("device", "text in float32", "training", "float32 products", "known by")

# What the words of the table mean, and what it takes.
NOTES = (
    "Text: what a model says to a prompt and a seed, against torch on a CPU. The same: but for rounding, which in "
    "float32 changes a token rarely.",
    "Training: in every run, and after a kill and a resume, with as many processes and threads, the same versions and "
    "the same kind of device. Bytes: those of the run's files.",
    "By default: --no-deterministic trains without it on a GPU, where a fixed order of sums costs some speed. "
    "CUBLAS_WORKSPACE_CONFIG=:4096:8 is a part of it, and set unless the environment has another.",
    "Products: of two numbers of float32, before they are summed; TF32 would keep 10 bits of their 23. "
    "MLX_ENABLE_TF32=0 is set unless the environment has another. Where TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 or the "
    "program has torch make them of TF32, a warning says so; training has them in full.",
    "Sources: read in those of the frameworks, and not measured on such a device.",
)


@dataclass(frozen=True)
class Promise:
    """A row. `backend` and `kind` say which devices it is about: "cpu", "cuda", or "gpu" (Apple's)."""

    backend: str
    kind: str
    device: str
    text: str
    training: str
    products: str
    known: str

    def cells(self) -> tuple[str, ...]:
        """In the order of HEAD."""
        return (self.device, self.text, self.training, self.products, self.known)


PROMISES = (
    Promise("torch", "cpu", "torch, CPU", "the reference", "the same bytes", "float32", "tests"),
    Promise(
        "torch",
        "cuda",
        "torch, NVIDIA GPU",
        "the same",
        "the same bytes, by default",
        "float32",
        "sources",
    ),
    Promise("mlx", "cpu", "MLX, CPU", "the same", "the same bytes", "float32", "tests"),
    Promise(
        "mlx",
        "gpu",
        "MLX, Apple GPU",
        "the same",
        "the same bytes, by default",
        "float32",
        "sources",
    ),
)


def promise_for(backend: str, device: str) -> Promise | None:
    """The row of a device, by its name as a backend has it ("cuda:1"); None where there is none."""
    kind = device.partition(":")[0]
    return next((row for row in PROMISES if (row.backend, row.kind) == (backend, kind)), None)

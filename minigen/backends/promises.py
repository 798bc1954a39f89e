"""What minigen guarantees on each device: the table for `minigen doctor`."""

from __future__ import annotations

from dataclasses import dataclass

HEAD = ("device", "text in float32", "training", "float32 products", "known by")

# The terms of the table, and what each guarantee depends on.
NOTES = (
    "Text: the tokens for a prompt and a seed, compared with torch on a CPU. The same: except for "
    "rounding, which in float32 rarely changes a token.",
    "Training: in every run, also after a kill and a resume, given the same number of processes "
    "and threads, the same versions and the same kind of device. Bytes: those of the run's files.",
    "By default: --no-deterministic turns it off on a GPU, where a fixed order of sums costs some "
    "speed. CUBLAS_WORKSPACE_CONFIG=:4096:8 is part of it, and is set unless the environment has "
    "another value.",
    "Products: of two float32 numbers, before they are summed; TF32 would keep 10 of their 23 "
    "bits. MLX_ENABLE_TF32=0 is set unless the environment has another value. If "
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 or the program makes torch use TF32, a warning says so; "
    "training uses full float32 in any case.",
    "Sources: concluded from the source code of the frameworks, not measured on such a device.",
)


@dataclass(frozen=True)
class Promise:
    """A row, about the devices of one `kind` ("cpu", "cuda", or Apple's "gpu") of a backend."""

    backend: str
    kind: str
    device: str
    text: str
    training: str
    products: str
    known: str

    def cells(self) -> tuple[str, ...]:
        """The cells of the row, in the order of HEAD."""
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
    """The row of a device, by the backend's name of it ("cuda:1"); None if there is no such row."""
    kind = device.partition(":")[0]
    for row in PROMISES:
        if (row.backend, row.kind) == (backend, kind):
            return row
    return None

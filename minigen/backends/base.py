"""What a framework must offer, and nothing more: the model is written once over these operations.

What PyTorch and MLX spell alike stays Python (`+ - * / @ []`, `.reshape`, `.shape`); an operation is here because
they spell it differently. Letters in shapes: B batch, T new steps, S keys, H heads, G key/value heads, D head width,
C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from minigen.backends.choosing import Choosing
from minigen.backends.quantized import BITS, QUANTS, Array, Held, Quantized, Tree, arrays_of

if TYPE_CHECKING:  # the command line asks this file for DTYPES, and need not wait for NumPy
    import numpy.typing as npt

__all__ = [
    "BITS",
    "DTYPES",
    "QUANTS",
    "Array",
    "Backend",
    "Quantized",
    "Tree",
    "plain",
    "rotate_halves",
    "write_arrays",
]

NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
DTYPES = tuple(NUMBER_BYTES)


class Backend(Choosing, Protocol):
    """One framework on one device, computing in one dtype. Passed as the first argument and called `ops`."""

    name: str
    device: str
    dtype: str
    accelerated: bool  # a GPU: the checkpoint's own dtype is then the default
    asynchronous: bool  # operations are only asked for: the next step may be queued before the last one's token is read

    # -- in and out ---------------------------------------------------------------------------------------------------
    def asarray(self, x: npt.ArrayLike) -> Array:
        """NumPy to device. Floats become `dtype`, integers the framework's index type, booleans stay."""
        ...

    def from_numpy(self, x: npt.NDArray[Any]) -> Array:
        """NumPy to device, in the same dtype: floats of 32 and 16 bits, and unsigned integers of 32 and 8."""
        ...

    def numpy(self, x: Array) -> npt.NDArray[Any]:
        """Device to NumPy: 16-bit floats are widened to float32. It may be a view of `x`."""
        ...

    def fetch(self, *arrays: Array) -> Callable[[], list[npt.NDArray[Any]]]:
        """Begins to bring arrays to the host. What is returned gives them, as `numpy` would, and waits for them alone,
        not for what was asked for since."""
        ...

    def zeros(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        """In the model's dtype, if none is given; "uint32" is that of codes. Raises BackendError for more than the
        device's memory."""
        ...

    def astype(self, x: Array, dtype: str) -> Array: ...

    def view(self, x: Array, dtype: str) -> Array:
        """The same bytes read as integers of another size, "uint8" or "uint32", which are more or fewer on the last
        axis."""
        ...

    def contiguous(self, x: Array) -> Array:
        """The same values in memory order, so that a transposed weight is laid out once, at load."""
        ...

    def load(self, path: Path) -> Mapping[str, Array]:
        """The tensors of a safetensors file whose header has been checked, read when first looked up."""
        ...

    def save(self, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        """Writes a safetensors file in place; the caller writes beside and renames."""
        ...

    # -- shape --------------------------------------------------------------------------------------------------------
    def permute(self, x: Array, axes: Sequence[int]) -> Array: ...

    def split(self, x: Array, sizes: Sequence[int], axis: int) -> list[Array]: ...

    def concat(self, xs: Sequence[Array], axis: int) -> Array: ...

    def stack(self, xs: Sequence[Array], axis: int) -> Array: ...

    def take(self, x: Array, indices: Sequence[int], axis: int) -> Array:
        """A copy of the chosen slices along `axis`, in the order given."""
        ...

    # -- layers -------------------------------------------------------------------------------------------------------
    def embedding(self, ids: Array, weight: Array | Quantized) -> Array:
        """ids (B, T), weight (V, C) -> (B, T, C)."""
        ...

    def linear(self, x: Array, weight: Array | Quantized, bias: Array | None = None) -> Array:
        """x (..., in), weight (out, in), bias (out,) -> (..., out)."""
        ...

    def quantize(self, weight: Array, bits: int, group: int) -> Quantized:
        """weight (..., out, in) by the rule of `mx.quantize`: the same codes on every backend. The number of a group
        that is farthest from 0 is met exactly, and so is 0. Scales and biases have weight's dtype. `group` is 32, 64 or
        128 and divides in, or it is in: a multiple of 8 up to 128."""
        ...

    def dequantize(self, weight: Quantized) -> Array:
        """(..., out, in), in the dtype that the model computes in, which affine scales have."""
        ...

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array: ...

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array: ...

    def gelu(self, x: Array, approximate: bool) -> Array:
        """With `approximate`, the tanh form that GPT-2 was trained with."""
        ...

    def relu(self, x: Array) -> Array: ...

    def silu(self, x: Array) -> Array: ...

    def sigmoid(self, x: Array) -> Array: ...

    def tanh(self, x: Array) -> Array: ...

    def scale_columns(self, x: Array, factors: Array, plus: Array | None = None) -> Array:
        """x (..., C) times `factors` (C,), and `plus` (C,) more where it is given."""
        ...

    def where(self, condition: Array, x: Array, y: Array) -> Array: ...

    def rotate(self, x: Array, cos: Array, sin: Array) -> Array:
        """x (B, H, T, D), cos and sin (B or 1, 1, T, half) -> x with dimension i of each head turned together with
        i + half; those from 2 half on pass through."""
        ...

    def attention(self, q: Array, k: Held, v: Held, scale: float, mask: Array | str | None) -> Array:
        """q (B, H, T, D), k and v (B, G, S, D) with G dividing H -> (B, H, T, D).

        `mask` is None (every query sees every key), "causal" (query t sees keys up to t + S - T), or booleans
        (B or 1, 1, T, S), true where a query may look.
        """
        ...

    def dropout(self, x: Array) -> Array:
        """`x` itself. In training, what a `Training` computes with drops some of it instead."""
        ...

    def recurrence(self, cell: str, p: Any, x: Array, state: tuple[Array, ...]) -> Any:
        """A layer of "lstm", "gru" or "rnn" over all steps by the framework's own kernel: x (B, T, I) -> (B, T, H) and
        the state after them; None where it has none, and in generation: the caller then goes step by step."""
        ...

    # -- state --------------------------------------------------------------------------------------------------------
    def write(self, buffers: Sequence[Held], new: Sequence[Array], position: int) -> list[Held]:
        """Each of `buffers` (B, G, S, D) with its part of `new` (B, G, T, D) at `position` on axis 2, quantized where
        the buffer is: keys and values, say, which are alike. The given buffers are dead afterwards: torch writes into
        them, MLX reuses their memory only where nobody else holds it."""
        ...

    def remembered(self, buffer: Array) -> Array:
        """What a slot without time holds, as an operand of this pass."""
        ...

    def assign(self, buffer: Array, new: Array) -> Array:
        """`new` in the place of what a buffer held, in place where the framework can; the buffer."""
        ...

    def copy(self, x: Array) -> Array:
        """The same numbers elsewhere, which `assign` does not change."""
        ...

    # -- steps --------------------------------------------------------------------------------------------------------
    def replay(
        self, ids: npt.NDArray[Any] | Array, state: Any, at: tuple[int, ...], record: Callable[[Any, Array], Any]
    ) -> Array | None:
        """A pass of new tokens `ids` (B, T), NumPy's or on the device, by whatever is faster than one operation after
        the other: the logits (B, len(at), V) after the tokens `at`, which the state has then read. None, and nothing
        done, where there is no such way.

        `record(ops, ids)` is the pass, at every position at once, for a backend that writes operations down.
        """
        ...

    def one_text(self) -> AbstractContextManager[None]:
        """While one text is written: a backend that has several ways to compute does not change to another one where
        it depends on the time whether it would."""
        ...

    def prepare(self) -> None:
        """Waits for what is otherwise made ready while the first texts are written. Who measures calls this first."""
        ...

    # -- running ------------------------------------------------------------------------------------------------------
    def all_finite(self, xs: Sequence[Array]) -> list[bool]:
        """For each array, whether it is free of NaN and infinity."""
        ...

    def sync(self, *trees: Tree) -> None:
        """Waits until the arrays in these trees have been computed."""
        ...

    def release(self) -> None:
        """Gives back what is kept of arrays that are gone: after a prompt, whose sizes do not come again."""
        ...

    def memory(self) -> int:
        """Peak memory of this process on the device so far, in bytes."""
        ...

    def total_memory(self) -> int:
        """What the device has, in bytes."""
        ...

    def threads(self) -> int | None:
        """CPU threads that an operation is spread over; None where the framework does not say."""
        ...

    def device_name(self) -> str | None:
        """What the maker calls the GPU; None on a CPU."""
        ...


def turn(a: Array, b: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    """The two halves of what is rotated, after it."""
    return a * cos - b * sin, b * cos + a * sin


def rotate_halves(ops: Backend, x: Array, cos: Array, sin: Array, turn: Callable[..., Any] = turn) -> Array:
    """`Backend.rotate` by plain operations."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = turn(a, b, cos, sin)
    return ops.concat(turned if rest.shape[-1] == 0 else [*turned, rest], axis=-1)


def write_arrays(ops: Backend, buffer: Held, new: Held, position: int) -> Held:
    """`Backend.write` of one buffer by plain operations; what is new may be quantized already."""
    quantized = isinstance(buffer, Quantized) and not isinstance(new, Quantized)
    x = ops.quantize(new, buffer.bits, buffer.group) if quantized else new
    for into, part in zip(arrays_of(buffer), arrays_of(x), strict=True):
        into[:, :, position : position + new.shape[2]] = part
    return buffer


def plain(ops: Backend, x: Array | Quantized) -> Array:
    """The numbers of an array, whether it is quantized or not."""
    return ops.dequantize(x) if isinstance(x, Quantized) else x

"""The operations that a framework must offer: every model is written once over these.

Where PyTorch and MLX use the same spelling (`+ - * / @ []`, `.reshape`, `.shape`), models use it
directly; an operation is here because the two spell it differently. Letters in shapes: B batch,
T new steps, S keys, H heads, G key/value heads, D head width, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from minigen.backends.choosing import Choosing
from minigen.backends.quantized import BITS, QUANTS, Array, Held, Quantized, Tree

if TYPE_CHECKING:  # the command line imports DTYPES from here, and should not wait for NumPy
    import numpy.typing as npt

__all__ = ["BITS", "DTYPES", "QUANTS", "Array", "Backend", "Quantized", "Tree"]

NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
DTYPES = tuple(NUMBER_BYTES)


class Backend(Choosing, Protocol):
    """One framework on one device, computing in one dtype. Passed first, under the name `ops`."""

    name: str
    device: str
    dtype: str
    accelerated: bool  # a GPU: the checkpoint's own dtype is then the default
    asynchronous: bool  # operations are queued: a step may start before the last token is read

    # -- in and out -------------------------------------------------------------------------------
    def asarray(self, x: npt.ArrayLike) -> Array:
        """NumPy to device. Floats become `dtype`, integers the framework's index type; booleans
        stay booleans."""
        ...

    def numpy(self, x: Array) -> npt.NDArray[Any]:
        """Device to NumPy. 16-bit floats are widened to float32. It may be a view of `x`."""
        ...

    def fetch(self, *arrays: Array) -> Callable[[], list[npt.NDArray[Any]]]:
        """Starts to copy arrays to the host.

        Returns a function that waits for these arrays only, not for work that was queued later,
        and gives them as `numpy` would.
        """
        ...

    def zeros(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        """Zeros in the model's dtype, or in `dtype` ("uint32" is the one of codes).

        Raises BackendError for more than the device's memory.
        """
        ...

    def astype(self, x: Array, dtype: str) -> Array: ...

    def view(self, x: Array, dtype: str) -> Array:
        """The same bytes read as integers of another size, "uint8" or "uint32"; the last axis gets
        longer or shorter accordingly."""
        ...

    def contiguous(self, x: Array) -> Array:
        """The same values in memory order; a transposed weight is laid out once, at load."""
        ...

    def load(self, path: Path) -> Mapping[str, Array]:
        """The tensors of a safetensors file whose header was checked; each is read on first use."""
        ...

    def save(self, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        """Writes a safetensors file directly at `path`; callers pass a temporary one and rename."""
        ...

    # -- shape ------------------------------------------------------------------------------------
    def permute(self, x: Array, axes: Sequence[int]) -> Array: ...

    def split(self, x: Array, sizes: Sequence[int], axis: int) -> list[Array]: ...

    def concat(self, xs: Sequence[Array], axis: int) -> Array: ...

    def stack(self, xs: Sequence[Array], axis: int) -> Array: ...

    def take(self, x: Array, indices: Sequence[int], axis: int) -> Array:
        """A copy of the chosen slices along `axis`, in the order given."""
        ...

    # -- layers -----------------------------------------------------------------------------------
    def embedding(self, ids: Array, weight: Array | Quantized) -> Array:
        """ids (B, T), weight (V, C) -> (B, T, C)."""
        ...

    def linear(self, x: Array, weight: Array | Quantized, bias: Array | None = None) -> Array:
        """x (..., in), weight (out, in), bias (out,) -> (..., out)."""
        ...

    def quantize(self, weight: Array, bits: int, group: int) -> Quantized:
        """weight (..., out, in) by the rule of `mx.quantize`; every backend makes the same codes.

        In each group, 0 and the number farthest from 0 are represented exactly. Scales and biases
        have weight's dtype. `group` is 32, 64 or 128 and divides `in`, or it is `in` itself: then
        a multiple of 8 up to 128.
        """
        ...

    def dequantize(self, weight: Quantized) -> Array:
        """The numbers (..., out, in), in the dtype that the model computes in (which affine scales
        have too)."""
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
        """x (..., C) times `factors` (C,), plus `plus` (C,) if it is given."""
        ...

    def where(self, condition: Array, x: Array, y: Array) -> Array: ...

    def rotate(self, x: Array, cos: Array, sin: Array) -> Array:
        """Rotates x (B, H, T, D) by the angles in cos and sin (B or 1, 1, T, half).

        Dimension i of each head forms a pair with i + half; dimensions from 2 half on are
        unchanged.
        """
        ...

    def attention(
        self, q: Array, k: Held, v: Held, scale: float, mask: Array | str | None
    ) -> Array:
        """q (B, H, T, D), k and v (B, G, S, D) with G dividing H -> (B, H, T, D).

        `mask` is None (every query sees every key), "causal" (query t sees keys up to t + S - T),
        or booleans (B or 1, 1, T, S), true where a query may look.
        """
        ...

    def dropout(self, x: Array) -> Array:
        """`x` itself; the operations of a `Training` override this."""
        ...

    def recurrence(self, cell: str, p: Any, x: Array, state: tuple[Array, ...]) -> Any:
        """A layer of "lstm", "gru" or "rnn" over all steps, by the framework's own kernel.

        x (B, T, I) -> (B, T, H) and the state after the last step. Returns None if there is no such
        kernel, and always in generation: the caller then computes step by step.
        """
        ...

    # -- state ------------------------------------------------------------------------------------
    def write(self, buffers: Sequence[Held], new: Sequence[Array], position: int) -> list[Held]:
        """Writes each of `new` (B, G, T, D) into its buffer (B, G, S, D) at `position` on axis 2.

        The buffers are alike (keys and values, for example); numbers are quantized if the buffer
        is. Returns the updated buffers. Those passed in must not be used again: torch overwrites
        them, and MLX reuses their memory if nothing else refers to it.
        """
        ...

    def remembered(self, buffer: Array) -> Array:
        """The content of a state without a time axis, as an operand of this pass."""
        ...

    def assign(self, buffer: Array, new: Array) -> Array:
        """Replaces the content of a buffer by `new`, in place if the framework can. Returns the
        buffer."""
        ...

    def copy(self, x: Array) -> Array:
        """The same numbers in memory that `assign` does not change."""
        ...

    # -- steps ------------------------------------------------------------------------------------
    def replay(
        self,
        ids: npt.NDArray[Any] | Array,
        state: Any,
        at: tuple[int, ...],
        record: Callable[[Any, Array], Any],
    ) -> Array | None:
        """A pass over new tokens by a faster way than one operation after another, if there is one.

        `ids` (B, T) is NumPy's or on the device. `record(ops, ids)` is the pass with the position
        as an input, for a backend that records operations. Returns the logits (B, len(at), V) after
        the tokens `at`, and `state` has then advanced; or None, and then nothing was done.
        """
        ...

    def one_text(self) -> AbstractContextManager[None]:
        """Held while one text is generated: a backend with several ways to compute does not switch
        between them here if the moment of the switch depends on timing."""
        ...

    def prepare(self) -> None:
        """Waits for preparation that otherwise runs during the first texts; for measurements."""
        ...

    # -- running ----------------------------------------------------------------------------------
    def all_finite(self, xs: Sequence[Array]) -> list[bool]:
        """For each array, whether it is free of NaN and infinity."""
        ...

    def sync(self, *trees: Tree) -> None:
        """Waits until the arrays in these trees have been computed."""
        ...

    def release(self) -> None:
        """Frees cached memory of deleted arrays, as after a prompt, whose sizes do not recur."""
        ...

    def memory(self) -> int:
        """Peak memory of this process on the device so far, in bytes."""
        ...

    def total_memory(self) -> int:
        """Memory of the device, in bytes."""
        ...

    def threads(self) -> int | None:
        """CPU threads that an operation is spread over; None if the framework does not tell."""
        ...

    def device_name(self) -> str | None:
        """The vendor's name of the GPU; None on a CPU."""
        ...

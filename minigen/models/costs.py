"""What a model must do for a token: floating-point operations, and the bytes it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from minigen.backends.base import NUMBER_BYTES
from minigen.backends.quantized import group_for
from minigen.layers.attention import Attention
from minigen.models.architecture import Architecture, Trainable
from minigen.models.packing import Packing, Packings
from minigen.tree import flatten

# Bytes per number. Quantized numbers include the scales of llama.cpp's Q8_0 and Q4_0, which are the
# smallest of any program that minigen is compared with.
ITEMSIZE: dict[str, float] = {**NUMBER_BYTES, "8-bit": 8.5 / 8, "4-bit": 4.5 / 8}


def shapes_of(architecture: Trainable) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter, by its path."""
    return {path: param.shape for path, param in flatten(architecture.shapes()).items()}


def parameters(architecture: Trainable) -> int:
    """The number of parameters."""
    return sum(prod(shape) for shape in shapes_of(architecture).values())


def memory_of(shapes: Mapping[str, tuple[int, ...]], packings: Packings) -> tuple[int, int]:
    """What arrays of these shapes take: numbers in the model's dtype, and bytes of codes."""
    numbers, codes = 0, 0
    for path, shape in shapes.items():
        array_numbers, array_codes = memory_of_array(shape, packings.get(path))
        numbers += array_numbers
        codes += array_codes
    return numbers, codes


def memory_of_array(shape: tuple[int, ...], packing: Packing | None) -> tuple[int, int]:
    """The same for one array, which is quantized unless `packing` is None."""
    size = prod(shape)
    if packing is None:
        return size, 0
    return packing.memory(size)


def weights_bytes(architecture: Architecture, packings: Packings, dtype: str) -> int:
    """The bytes of all parameters together."""
    numbers, codes = memory_of(shapes_of(architecture), packings)
    return round(numbers * ITEMSIZE[dtype]) + codes


def training_flops(architecture: Architecture, context: int) -> float:
    """Operations per token of a training step, forward and backward.

    It is 6 N + 12 L C T (Chowdhery et al. 2022, appendix B). N is the number of weights that a
    token is multiplied with, L the number of layers, C the width of all heads together and T the
    context; by convention every token counts as seeing all T. For recurrent models it is 6 N.
    """
    costs = Costs.of(architecture)
    width = sum(attention.heads * attention.head_dim for attention in costs.attentions)
    return 6.0 * (costs.body + costs.head) + 12.0 * width * context


@dataclass(frozen=True)
class Costs:
    """What one token needs of the weights.

    Parameters of which a token looks up a single row are not counted as read: positions, and the
    embedding unless it is also the head.

    Fields:
        used: How many weights in the model's dtype are read, with scales and biases of quantized
            ones.
        body: How many weights of matrices a token is multiplied with, without the head.
        head: How many weights the head has.
        attentions: One for each layer that has one.
        codes: How many bytes of quantized weights are read.
        kv_bits: The bits of each number in keys and values; None: they have the model's dtype.
    """

    used: int
    body: int
    head: int
    attentions: tuple[Attention, ...]
    codes: int = 0
    kv_bits: int | None = None

    @classmethod
    def of(cls, architecture: Architecture, packings: Packings | None = None) -> Costs:
        """The costs of a model whose weights are quantized as `packings` says."""
        shapes = shapes_of(architecture)
        head_path = "embedding.weight"
        if "head.weight" in shapes:
            head_path = "head.weight"
        for looked_up in {"embedding.weight", "positions.weight"} - {head_path}:
            shapes.pop(looked_up, None)
        matrices = 0
        for shape in shapes.values():
            if len(shape) == 2:
                matrices += prod(shape)
        numbers, codes = memory_of(shapes, packings or {})
        head = prod(shapes[head_path])
        return cls(
            used=numbers,
            body=matrices - head,
            head=head,
            attentions=architecture.attentions,
            codes=codes,
            kv_bits=architecture.kv_bits,
        )

    def flops(self, length: int, new: int, batch: int) -> int:
        """Operations of one pass over `new` tokens per row after `length` others.

        Logits are computed for the last token of each row. It is 2 operations per weight and token,
        and 4 C per key that a token sees, itself included.
        """
        total = 2 * (self.body * new + self.head)
        for attention in self.attentions:
            keys = sum(visible_keys(attention, at + 1) for at in range(length, length + new))
            total += 4 * attention.heads * attention.head_dim * keys
        return batch * total

    def bytes_read(self, length: int, new: int, batch: int, dtype: str) -> float:
        """The bytes that such a pass must read at least.

        These are every weight once for the whole batch, and the keys and values of each row. Rows
        that are looked up, a recurrent state and what is written are too small to count.
        """
        numbers, codes = self.used, self.codes
        for attention in self.attentions:
            keys = visible_keys(attention, length + 1) + new - 1
            packing = None
            if self.kv_bits is not None:
                packing = Packing(self.kv_bits, group_for(attention.head_dim))
            shape = (batch, 2, attention.kv_heads, keys, attention.head_dim)
            cache_numbers, cache_codes = memory_of_array(shape, packing)
            numbers += cache_numbers
            codes += cache_codes
        return numbers * ITEMSIZE[dtype] + codes


def visible_keys(attention: Attention, tokens: int) -> int:
    """How many of the first `tokens` tokens the last of them sees, itself included."""
    if attention.window is None:
        return tokens
    return min(tokens, attention.window)


@dataclass(frozen=True)
class Limit:
    """The least time that a measurement can take.

    Fields:
        seconds: That time.
        by: "memory" or "compute", whichever takes most of it.
        bytes_read: The bytes that its passes read; None: not counted.
        flops: The operations of its passes.
    """

    seconds: float
    by: str
    bytes_read: float | None
    flops: float


def limit(
    costs: Costs,
    passes: Iterable[tuple[int, int]],
    batch: int,
    dtype: str,
    bandwidth: float,
    peak: float,
) -> Limit:
    """The least time for some passes, by the roofline model (Williams et al. 2009).

    Each pass takes as long as the slower of memory and arithmetic.

    Args:
        costs: What a token needs.
        passes: (length, new) of each pass.
        batch: The number of rows.
        dtype: The dtype of weights and state.
        bandwidth: Bytes per second.
        peak: Operations per second.
    """
    seconds = {"memory": 0.0, "compute": 0.0}
    total_bytes, total_flops = 0.0, 0
    for length, new in passes:
        bytes_read = costs.bytes_read(length, new, batch, dtype)
        flops = costs.flops(length, new, batch)
        memory_seconds, compute_seconds = bytes_read / bandwidth, flops / peak
        if memory_seconds >= compute_seconds:
            seconds["memory"] += memory_seconds
        else:
            seconds["compute"] += compute_seconds
        total_bytes += bytes_read
        total_flops += flops
    slower = "memory"
    if seconds["compute"] > seconds["memory"]:
        slower = "compute"
    return Limit(sum(seconds.values()), slower, total_bytes, total_flops)


def training_limit(architecture: Architecture, context: int, batch: int, peak: float) -> Limit:
    """The least time for a training step on (batch, context) tokens, by its operations alone."""
    flops = training_flops(architecture, context) * batch * context
    return Limit(flops / peak, "compute", None, flops)

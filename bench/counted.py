"""What a decoding step on a GPU costs, counted instead of timed: operations, and bytes moved.

    python bench/counted.py [--shapes llama-1b smollm2-135m] [--keys 1024 8192]

The step is the static one that a CUDA graph is made of (minigen/backends/torch/static.py), for one
token of one row in bfloat16, over the given number of keys. It runs on tensors that have shapes but no
values (torch's device meta), so it needs neither memory nor a GPU. It counts the operations that
reach torch's kernels: a view does not, and a product, a norm and attention are one operation each,
because each is one kernel on CUDA or nearly. The bytes are those of an operation's inputs and
outputs; for look-ups, those of the rows that are read.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minigen.backends.torch.backend import TorchBackend
from minigen.backends.torch.static_step import StaticStep
from minigen.benchmark.shapes import SHAPES
from minigen.checkpoints.quantization import GROUP, choose_packings
from minigen.families import build_architecture
from minigen.tree import flatten, unflatten

aten = torch.ops.aten
LOOK_UPS = {
    aten.embedding.default,
    aten.index.Tensor,
    aten.index_select.default,
    aten.gather.default,
}
WRITES = {aten.index_copy_.default}  # only the rows that are written count
# One kernel on CUDA, or one and a small one, but several operations on tensors without values.
WHOLE = {F.scaled_dot_product_attention, F.rms_norm, F.layer_norm, F.linear}
PRECISIONS = {  # name -> --quant and --kv-bits
    "bfloat16": (None, None),
    "8 bits": ("8", None),
    "4 bits": ("4", None),
    "bfloat16, cache of 8 bits": (None, 8),
    "bfloat16, cache of 4 bits": (None, 4),
}


class MetaBackend(TorchBackend):
    """Torch's operations as on a GPU, on tensors without values; reading a value is an error."""

    def __init__(self, dtype: str) -> None:
        self.device, self.dtype = "meta", dtype
        self.accelerated = self.asynchronous = True


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Tensors without values report that they are on a GPU."""
    own = torch.Tensor.__dict__.get("is_cuda")
    torch.Tensor.is_cuda = property(lambda x: x.is_meta)
    try:
        yield
    finally:
        if own is None:
            del torch.Tensor.is_cuda
        else:
            torch.Tensor.is_cuda = own


def params_without_values(
    ops: MetaBackend, architecture: Any, quant: str | None = None, group: int = GROUP
) -> Any:
    """The parameter tree of a model, quantized as `--quant` would have it."""
    packings = {}
    if quant is not None:
        packings = choose_packings(quant, architecture, {}, "the model", group)
    weights = {}
    for path, param in flatten(architecture.shapes()).items():
        weights[path] = ops.zeros(param.shape)
        if path in packings:
            packing = packings[path]
            weights[path] = ops.quantize(weights[path], packing.bits, packing.group)
    return unflatten(weights)


@dataclass
class Count:
    """How many operations of each name there were, and the bytes they read and wrote."""

    operations: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, size: int) -> None:
        self.operations[name] += 1
        self.bytes[name] += size


class Counting(TorchDispatchMode):
    """Counts operations as they are dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()
        self.whole = WholeOperations(self)
        self.within = False  # an operation that counts as a whole

    def __enter__(self) -> Counting:
        self.whole.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.whole.__exit__(*error)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if not self.within:
            self.note(function, [args, kwargs], result)
        return result

    def note(self, function: Any, given: Any, result: Any) -> None:
        """Count one operation, unless it is a view."""
        inputs, outputs = tensors_in(given), tensors_in(result)
        schema = getattr(function, "_schema", None)
        changes_input = schema is not None and schema.is_mutable
        if storages(outputs) <= storages(inputs) and not changes_input:
            return
        if function in LOOK_UPS:
            inputs = [*inputs[1:], *outputs]
        elif function in WRITES:
            inputs, outputs = inputs[1:], inputs[-1:]
        elif schema is not None and not inputs:
            outputs = outputs[:1]
        name = getattr(function, "__name__", str(function)).split(".")[0]
        self.count.add(name, sum(map(size_of, [*inputs, *outputs])))


class WholeOperations(TorchFunctionMode):
    """Counts some operations as one, whatever they consist of."""

    def __init__(self, counting: Counting) -> None:
        super().__init__()
        self.counting = counting

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function not in WHOLE or self.counting.within:
            return function(*args, **(kwargs or {}))
        self.counting.within = True
        try:
            result = function(*args, **(kwargs or {}))
        finally:
            self.counting.within = False
        self.counting.note(function, [args, kwargs], result)
        return result


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors in arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def storages(tensors: Sequence[torch.Tensor]) -> set[int]:
    """What identifies the memory of tensors; a view has that of its base."""
    return {tensor.untyped_storage()._cdata for tensor in tensors}


def size_of(x: torch.Tensor) -> int:
    """The bytes of a tensor; values that a stride of 0 repeats count once."""
    values = 1
    for length, stride in zip(x.shape, x.stride(), strict=True):
        if stride:
            values *= length
    return values * x.element_size()


def count_step(
    config: dict[str, Any], quant: str | None, kv_bits: int | None, keys: int, static: bool
) -> Count:
    """One token after keys - 1 others, by the static step or operation by operation."""
    architecture = build_architecture(config).with_kv_bits(kv_bits)
    ops = MetaBackend("bfloat16")
    with as_on_a_gpu():
        params = params_without_values(ops, architecture, quant)
        state = architecture.new_state(ops, 1, keys)
        ids = torch.zeros((1, 1), dtype=torch.int64, device=ops.device)

        def record(of: Any, ids: Any) -> Any:
            return architecture.record(of, params, ids, state, (-1,))

        def op_by_op() -> None:
            state.length = keys - 1
            architecture.forward(ops, params, ids, state, (-1,))

        decode = op_by_op
        if static:
            state.length = keys - 1
            step = StaticStep(ops, (1, 1), keys, state)
            decode = partial(step.compute, state, record, step.ids, step.length)
        decode()  # creates the constants
        with Counting() as counting:
            decode()
    return counting.count


def table(shape: str, keys: int, details: bool) -> Iterator[str]:
    yield f"\n## {shape}, {keys:,} keys\n"
    yield "| weights and cache | operations | MB moved | op by op: operations | MB moved |"
    yield "|---|---|---|---|---|"
    counts = {}
    for name, (quant, kv_bits) in PRECISIONS.items():
        numbers = []
        for static in (True, False):
            count = count_step(dict(SHAPES[shape]), quant, kv_bits, keys, static)
            counts[name, static] = count
            numbers += [f"{count.operations.total():,}", f"{count.bytes.total() / 1e6:,.0f}"]
        yield f"| {name} | {' | '.join(numbers)} |"
    if details:
        for (name, static), count in counts.items():
            operations = [f"{kind} {n}" for kind, n in count.operations.most_common()]
            step = "static" if static else "op by op"
            yield f"\n{name}, {step}: {', '.join(operations)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=["llama-1b", "smollm2-135m"],
        help="as minigen bench names them",
    )
    parser.add_argument("--keys", nargs="+", type=int, default=[1024, 8192])
    parser.add_argument(
        "--details", action="store_true", help="list the operations, and how many there are of each"
    )
    args = parser.parse_args()
    print(f"""# Operations and bytes of a decoding step on a GPU

`{shlex.join(["python", "bench/counted.py", *sys.argv[1:]])}`, torch {torch.__version__}. Counted
without a GPU: one token of one row. The first two columns are the static step, which a CUDA graph
launches as one; the others are the same pass operation by operation, as the first pass of a text
runs, and all passes with MINIGEN_GRAPHS=0. A MB is 10^6 bytes.""")
    for shape in args.shapes:
        for keys in args.keys:
            for line in table(shape, keys, args.details):
                print(line, flush=True)


if __name__ == "__main__":
    main()

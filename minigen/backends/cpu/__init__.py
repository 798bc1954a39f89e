"""Kernels for a CPU, compiled by numba, and how a pass is recorded and replayed, here and on a GPU.

A pass of few new tokens costs Python more than the processor: hundreds of small operations, each
of them a call. So the pass is recorded once for each kind (how many rows and tokens, and after
which tokens logits are needed), and from then on replayed by one call.

1. The runner asks its backend: `Backend.replay(ids, state, at, record)`. The answer is the logits,
   or None, and then the runner computes the pass one operation after the other. So the first pass
   of each kind goes: recording pays only from the second on.
2. `record(ops, ids)` is the model's own code, written once, run on other operations. It computes
   at every position at once (`layers.step.AnyStep`): nothing in it may depend on a number of
   Python's that changes from token to token.
3. On a CPU `ops` is a `recorder.Recorder`. It computes nothing: each operation takes memory for
   its result and appends an instruction. `instructions.py` describes the instructions, each once;
   `as_program` makes the table of them, with named fields, that the compiled loop `program.run`
   reads. `steps.Steps` keeps the programs, one for each state and kind.
4. On a GPU `ops` is a `torch.static.StaticOps`: torch's operations, where the position is a tensor
   on the device. The pass is captured as a CUDA graph, which is launched from then on
   (`torch/graphs.py`), one for each state, kind and number of keys that attention looks at.
5. Both hold the addresses of the state's buffers. Where the buffers have moved, the pass is
   recorded again.
6. What cannot be recorded raises `UnrecordableError` (CPU) or `UnsupportedError` (GPU) inside the
   backend. The kind is marked, and goes one operation after the other.

Replayed and plain passes give the same logits up to rounding (`tests/backends/test_steps.py` and
`test_torch_graphs.py`). The other files here: kernels in `dots.py`, `panels.py`, `linear.py`,
`attention.py`, `small.py` and `packing.py`, over vectors that `vectors.py` and `tiles.py` write as
LLVM code; when numba starts and where its code is kept in `start.py`, `compiling.py` and
`compile.py`; the number of threads in `crew.py`.
"""

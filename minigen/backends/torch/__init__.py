"""PyTorch, on CUDA and on a CPU.

`backend.py` has the operations, `training.py` gradients and optimizers, `group.py` processes that
train together. `cpu.py` calls the kernels of `backends/cpu/`; `graphs.py` and `static.py` decode
with CUDA graphs.
"""

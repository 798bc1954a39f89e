"""PyTorch, on CUDA and on a CPU.

`backend.py` has the operations, `training.py` gradients and optimizers, `group.py` processes that train together.
`cpu.py` hands work to the kernels of `backends/cpu/`; `graphs.py` and `static.py` decode by CUDA graphs.
"""

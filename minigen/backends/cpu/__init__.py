"""What a CPU does with the steps of few tokens, compiled by numba: see recorder.py for how they come to be."""

"""MLX, on Apple silicon and on a CPU: operations, training, and processes that train together."""

"""The pieces that a family composes: norms, positions, attention, feed-forward, residual layout, recurrent cells.

A piece is a frozen dataclass that is both its own configuration and a pure function: `shapes(width)` says what
parameters it has, and calling its method on such parameters computes it. A family that needs a new kind adds a class.
"""

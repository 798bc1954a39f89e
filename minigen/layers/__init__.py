"""The pieces that a model family composes.

There are norms, positions, attention, feed-forward networks, blocks and recurrent cells. A piece
is a frozen dataclass that is both its own configuration and a pure function: `shapes(width)` says
which parameters it has, and `apply` computes it with such parameters. A family that needs a new
kind of piece adds a class.
"""

"""Models composed of `layers/`, what a model remembers of a text, and what a token costs.

In: ids (B, T), a tree of parameters, a state, the operations of a backend. Out: logits (B, T, V).
`architecture.py` says what the rest of minigen asks of any model.
"""

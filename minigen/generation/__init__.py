"""From prompts to text. The walk of one prompt:

1. `text.py` encodes it, and in the end makes words of the ids; `options.py` has the settings, checked.
2. `dispatch.py` picks who runs it: sampling, beam search (`beam.py`), or speculation.
3. `loop.py` reads the prompt (`Runner.prefill`) and goes step by step: a pass of the model, an id for each row, is the
   row at its end?
4. `choosing.py` makes ids of logits, on the device where that gives the same id, else by `minigen/sampling/`.
5. `stopping.py` looks for stop strings in the text as it grows.

`shared_text.py` and `branches.py` read a beginning that many texts share once; `speculation.py` and `drafting.py` guess
tokens and check several in one pass.
"""

"""How well a model does: the likelihood of texts (`perplexity.py`), of choices (`scoring.py`), and prompt files scored
by their answers (`fewshot/`)."""

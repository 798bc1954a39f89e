"""How good a model is: the likelihood of texts (`perplexity.py`) and of given tokens (`scoring.py`),
and scores of the answers to prompt files (`fewshot/`)."""

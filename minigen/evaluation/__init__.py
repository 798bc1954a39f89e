"""How good a model is: the likelihood of texts and tokens, and of answers to prompt files.

`perplexity.py` scores texts, `scoring.py` given tokens, `fewshot/` prompt files.
"""

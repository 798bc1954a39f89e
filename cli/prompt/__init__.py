"""`minigen prompt` around `minigen/evaluation/fewshot/`: checks, runs, the journal, the report."""

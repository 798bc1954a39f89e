"""What `minigen prompt` does around `minigen/evaluation/fewshot/`: checks files, runs them, keeps answers, reports."""

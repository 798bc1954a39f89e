"""minigen and its peers at the same work, in one run: see README.md."""

"""How fast a model runs here, and how fast it could: the tests, the machine's limits, and what two runs differ by."""

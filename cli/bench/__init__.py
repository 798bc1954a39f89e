"""What `minigen bench` adds to `minigen/benchmark/`: subjects from flags, columns, reports."""

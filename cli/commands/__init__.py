"""One module per command: `add_arguments` adds its flags, `run` returns the exit code."""

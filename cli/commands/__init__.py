"""One module for each command: `add_arguments` describes its flags, `run` does it and returns the exit code."""

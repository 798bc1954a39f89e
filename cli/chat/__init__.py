"""The chat as a person sees it: the line that is typed, commands, the answer as it streams, Markdown."""

"""The chat as the user sees it: the input line, commands, streamed answers, Markdown."""

"""What the commands share to read and show words: texts, tables, progress, warnings."""

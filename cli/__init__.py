"""The `minigen` command, installed as `minigen.cli`: words typed in, words on a screen out."""

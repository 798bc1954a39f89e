"""The models that ship with minigen, as data: one folder per model, read by importlib.resources."""

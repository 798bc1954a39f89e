"""The model that ships with minigen, as data: one folder a model, read through importlib.resources."""

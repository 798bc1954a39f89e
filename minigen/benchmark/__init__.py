"""How fast a model runs, how fast this machine could run it, and how two results differ."""

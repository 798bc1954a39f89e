"""`python -m minigen` is the `minigen` command."""

import sys
from importlib import import_module

sys.exit(import_module("minigen.cli.entry").main())

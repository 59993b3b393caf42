"""The command line. Each command parses its arguments, calls one function, and prints the result."""

from skystill.cli.commands import app, main

__all__ = ["app", "main"]

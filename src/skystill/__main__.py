"""Run the command line with `python -m skystill`."""

from skystill.cli.commands import main

main()

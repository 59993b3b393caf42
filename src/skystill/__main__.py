"""`python -m skystill`."""

from skystill.cli.commands import main

main()

"""`python -m skystill`."""

from skystill.cli import main

main()

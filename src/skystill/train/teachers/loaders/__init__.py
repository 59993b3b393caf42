"""One file for each origin of teachers."""

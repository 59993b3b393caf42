"""The networks, the table of their sizes, and their weights files."""

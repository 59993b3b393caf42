"""Loaders of teachers: one file for each kind of teacher."""

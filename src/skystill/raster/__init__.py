"""Rasters of any size: read in windows and written in blocks, never held in memory as a whole."""

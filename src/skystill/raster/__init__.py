"""Rasters of any size: read in windows, written in blocks, never held whole."""

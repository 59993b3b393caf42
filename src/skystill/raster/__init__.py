"""Rasters of any size: read in windows, written in blocks, never held whole."""

from skystill.raster.grid import Grid, Tile, Unit
from skystill.raster.output import Layer, RasterOutput
from skystill.raster.source import RasterSource, gdal_environment, is_georeferenced
from skystill.raster.spool import RowSpool

__all__ = [
    "Grid",
    "Layer",
    "RasterOutput",
    "RasterSource",
    "RowSpool",
    "Tile",
    "Unit",
    "gdal_environment",
    "is_georeferenced",
]

"""Archives to predict: rasters of squares, a model whose answer is plain to see, and what a folder of results holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from tests.channel_model import INFO, write_model
from tests.contents import tables


def write_raster(path: Path, height: int, width: int, seed: int = 0, **options: object) -> Path:
    """A raster in which every pixel has one bright channel, in squares of 20 pixels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (height // 20 + 1, width // 20 + 1)).repeat(20, 0).repeat(20, 1)[:height, :width]
    path.parent.mkdir(parents=True, exist_ok=True)
    form: dict[str, object] = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256}
    form |= {"crs": "EPSG:32640", "transform": from_origin(300_000, 2_800_000, 0.5, 0.5), **options}
    with rasterio.open(path, "w", height=height, width=width, count=3, dtype="uint8", **form) as file:
        file.write((200 * (labels == np.arange(3)[:, None, None])).astype(np.uint8))
    return path


def small_tiles(folder: Path) -> Path:
    """The model of `channel_model`, in tiles of 128 pixels."""
    return write_model(folder / "m.onnx", replace(INFO, tile_size=128).to_metadata())


def contents(folder: Path) -> dict[str, object]:
    """Every file but those of the archive: its bytes, or the rows of a GeoPackage without the times of writing."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".skystill" not in str(path.relative_to(folder))]
    return {
        str(path.relative_to(folder)): tables(path) if path.suffix == ".gpkg" else path.read_bytes() for path in files
    }

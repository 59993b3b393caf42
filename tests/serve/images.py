"""Images that the tests send: small, and with classes that change every few pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

UTM, PLACE = "EPSG:32640", from_origin(300_000, 2_800_000, 0.5, 0.5)


def waves(height: int, width: int) -> np.ndarray[Any, Any]:
    """(3, H, W) uint8: three waves of different lengths, 7 to 247, without ties."""
    rows, columns = np.mgrid[:height, :width]
    bands = [np.sin(rows / 5 + columns / 9), np.sin(rows / 7 - columns / 6 + 2), np.cos(rows / 11 + columns / 4)]
    return np.stack([np.rint(127 + 120 * wave) for wave in bands]).astype(np.uint8)


def write_tif(path: Path, bands: np.ndarray[Any, Any], **more: Any) -> Path:
    """Write a GeoTIFF with pixels of half a metre."""
    profile = {
        "driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2],
        "dtype": bands.dtype.name, "crs": UTM, "transform": PLACE,
    }  # fmt: skip
    given = {name: value for name, value in (profile | more).items() if value is not None}
    with rasterio.open(path, "w", **given) as file:
        file.write(bands)
    return path


def write_images(folder: Path) -> dict[str, Path]:
    """One image of every kind that is taken."""
    folder.mkdir(exist_ok=True)
    bands = waves(120, 150)
    picture = Image.fromarray(bands.transpose(1, 2, 0))
    turned = picture.getexif()
    turned[0x0112] = 6  # a quarter turn
    clear = np.full((120, 150), 255, np.uint8)
    clear[20:60, 30:90] = 0
    holes = bands.copy()
    holes[:, 10:40, 50:140] = 0
    picture.save(folder / "rgb.png")
    picture.crop((0, 0, 80, 70)).save(folder / "one-tile.png")
    picture.convert("L").save(folder / "grey.png")
    picture.quantize(64).save(folder / "palette.png")
    Image.fromarray(np.dstack([bands.transpose(1, 2, 0), clear])).save(folder / "clear.png")
    picture.save(folder / "turned.jpg", exif=turned, quality=95, subsampling=0)
    picture.save(folder / "progressive.jpg", progressive=True)
    picture.save(folder / "lossless.webp", lossless=True)
    write_tif(folder / "plain.tif", bands, crs=None, transform=None)
    write_tif(folder / "nodata.tif", holes, nodata=0, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    write_tif(folder / "strips.tif", bands, compress="lzw", predictor=2, bigtiff="yes")
    write_tif(folder / "sixteen.tif", bands.astype(np.uint16) * 16)
    write_tif(folder / "degrees.tif", bands, crs="EPSG:4326", transform=from_origin(55.2, 25.3, 1e-5, 1e-5))
    write_tif(folder / "four.tif", np.concatenate([bands, bands[:1]]))
    return {path.name: path for path in sorted(folder.iterdir())}


def png(height: int = 70, width: int = 80) -> bytes:
    """The bytes of a PNG that is a single tile."""
    buffer = io.BytesIO()
    Image.fromarray(waves(height, width).transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()

"""Maps that tests make: a raster, layers of features, and a classes file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from rasterio.transform import Affine, from_origin

UTM, LEFT, TOP = "EPSG:32633", 500_000.0, 5_000_000.0


def write_raster(
    path: Path,
    height: int,
    width: int,
    pixel: float = 1.0,
    crs: str | None = UTM,
    origin: tuple[float, float] = (LEFT, TOP),
    **more: Any,
) -> Affine:
    """Write three bands of noise, and return the transform."""
    transform = more.pop("transform", from_origin(*origin, pixel, pixel))
    values = more.pop("values", None)
    if values is None:
        values = np.random.default_rng(0).integers(1, 255, (3, height, width)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=3,
        dtype="uint8",
        crs=crs,
        transform=transform,
        **more,
    ) as file:
        file.write(values)
    return transform


def write_layer(
    path: Path,
    shapes: Sequence[shapely.Geometry],
    layer: str | None = None,
    crs: str | None = UTM,
    **fields: Sequence[Any],
) -> None:
    """Write or append a layer. `fields` are attributes."""
    kinds = {shape.geom_type for shape in shapes if shape is not None}
    columns = {
        name: np.array(values, object if isinstance(values[0], str | None) else None) for name, values in fields.items()
    }
    drivers = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(shapes, object)), list(columns.values()), list(columns), layer=layer, crs=crs,
        geometry_type=kinds.pop() if len(kinds) == 1 else "Unknown", driver=drivers[path.suffix],
        append=path.exists(), promote_to_multi=False,
    )  # fmt: skip


def write_classes(root: Path, classes: Mapping[str, str]) -> None:
    """Write classes.yaml: what stands under from, by name."""
    lines = [f"  - {{name: {name}, from: {source}}}" for name, source in classes.items()]
    (root / "classes.yaml").write_text("\n".join(["classes:", *lines]) + "\n", encoding="utf-8")


def box(transform: Affine, top: float, bottom: float, left: float, right: float) -> shapely.Polygon:
    """Return a rectangle given in pixels, in the CRS."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return shapely.Polygon([transform * corner for corner in corners])


def centres(transform: Affine, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y (H, W) of the centres of all pixels."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = transform * (columns, rows)
    return np.asarray(x), np.asarray(y)

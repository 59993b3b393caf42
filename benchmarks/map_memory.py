"""Peak memory of the commands on a large map against that on a small one.

    python benchmarks/map_memory.py --side 20000     # some minutes
    python benchmarks/map_memory.py                  # 60,000 x 60,000 pixels and 200,000 polygons: about 5 GB of disk

Maps are generated: a tiled and compressed GeoTIFF of which 3 in 10 windows are empty (sparse), and a GeoPackage with as
many polygons per pixel as the largest map has. Each command runs in a process of its own, on both maps:
  check     skystill data check --html
  train     some hundred steps of the smallest network
  distill   the same with cached logits of that network
A line per command gives the peak of its largest process on each map and their ratio. Results: map_memory.json.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely
from rasterio.transform import from_origin
from rasterio.windows import Window

from skystill.data.scenes import paint_scene
from skystill.run_folder import write_json

POLYGONS, SIDE, SMALL = 200_000, 60_000, 6_000
WINDOW, EMPTY = 1024, 0.3
UNLABELED = 2 * WINDOW  # rows of pixels below the area: some hundred windows of the large map, which are cached
DRAWN = ["--limit-images=100", "--crops-per-image=12"]  # of the large map: 300 steps of 4 crops
ALL = ["--crops-per-image=30"]  # about as many of the small map
CLASSES = """classes:
  - {name: Land, from: rest}
  - {name: Roof, from: {layer: land, field: kind, values: [roof]}}
  - {name: Park, from: {layer: land, field: kind, values: [park]}}
"""


def main() -> None:
    """Make both maps, run the commands, print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/map_memory"))
    parser.add_argument("--side", type=int, default=SIDE)
    chosen = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for side in (SMALL, chosen.side):
        data = make_map(chosen.out / f"map-{side}", side)
        for name, peak, seconds in run_all(chosen.out / f"runs-{side}", data, side == SMALL):
            found.setdefault(name, {})[str(side)] = peak
            print(f"{name:8} {side:6,} x {side:6,}: {peak:5.0f} MB, {seconds:5.0f} s", flush=True)
    for name, peaks in found.items():
        small, large = peaks.values()
        print(f"{name}: {large:.0f} MB, {large / small:.2f} times that of {SMALL:,} x {SMALL:,}")
    write_json(chosen.out / "map_memory.json", {"side": chosen.side, "peak_mb": found})


def make_map(folder: Path, side: int) -> Path:
    """Write a map with its classes, unless it is there already."""
    if (folder / "classes.yaml").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    transform, rng = from_origin(500_000, 5_000_000, 0.5, 0.5), np.random.default_rng(side)
    scenes = [np.maximum(paint_scene(WINDOW, seed)[0], 1).transpose(2, 0, 1) for seed in range(6)]
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1,
               "interleave": "pixel", "sparse_ok": True, "bigtiff": "if_safer", "nodata": 0}  # fmt: skip
    with rasterio.open(folder / "ortho.tif", "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8",
                       crs="EPSG:32633", transform=transform, **options) as file:  # fmt: skip
        for top in range(0, side, WINDOW):
            for left in range(0, side, WINDOW):
                height, width = min(WINDOW, side - top), min(WINDOW, side - left)
                scene = np.rot90(scenes[rng.integers(len(scenes))], rng.integers(4), (1, 2))
                if rng.random() >= EMPTY:
                    file.write(scene[:, :height, :width], window=Window(left, top, width, height))
    count = round(POLYGONS * (side / SIDE) ** 2)
    x, y = 500_000 + rng.uniform(0, side / 2, count), 5_000_000 - rng.uniform(0, side / 2, count)
    wide, high = rng.uniform(10, 60, (2, count))
    kinds = rng.choice(np.array(["roof", "park"], object), count)
    write_layer(folder / "labels.gpkg", "land", shapely.box(x, y - high, x + wide, y), kinds)
    area = shapely.box(500_000, 5_000_000 - (side - UNLABELED) / 2, 500_000 + side / 2, 5_000_000)
    write_layer(folder / "labels.gpkg", "area", np.array([area], object), np.array(["all"], object))
    (folder / "classes.yaml").write_text(CLASSES)
    return folder


def write_layer(path: Path, name: str, shapes: np.ndarray, kinds: np.ndarray) -> None:
    """Write or append a layer of polygons with an attribute."""
    pyogrio.raw.write(path, shapely.to_wkb(shapes), [kinds], ["kind"], layer=name, crs="EPSG:32633", driver="GPKG",
                      geometry_type="Polygon", append=path.exists())  # fmt: skip


def run_all(runs: Path, data: Path, small: bool) -> Iterator[tuple[str, float, float]]:
    """Run the commands on a map, and yield the name of each, its peak in MB, and its time in seconds.

    Args:
        runs: folder for what they write.
        data: the map.
        small: whether all training windows are drawn from.
    """
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)
    short = ["--data", data, "--epochs=1", "--no-report", *(ALL if small else DRAWN)]
    teacher = runs / "teacher"
    learns = [
        "--student=two-level",
        "--no-alone",
        "--teacher-mode=cached",
        "--cache-symmetry=none",
        "--unlabeled",
        data,
    ]
    yield "check", *measured("data", "check", data, "--html", runs / "check.html")
    yield "train", *measured("train", "--out", teacher, "--network=two-level", *short)
    yield "distill", *measured("distill", "--out", runs / "student", "--teacher", teacher, *learns, *short)


def measured(*arguments: object) -> tuple[float, float]:
    """Run a command, and return the peak in MB of the largest process in it, and its time in seconds."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "skystill", *map(str, arguments)], stdout=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)  # with its children
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"skystill {' '.join(map(str, arguments))} ended with {child.returncode}")
    return usage.ru_maxrss * 1024 / 1e6, time.perf_counter() - began


if __name__ == "__main__":
    main()

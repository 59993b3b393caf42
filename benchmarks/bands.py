"""What bands and data types cost: three bands of bytes, here and in another commit, and six bands of uint16.

    python benchmarks/bands.py
    python benchmarks/bands.py --before /path/to/another/checkout/src     # three bands of bytes there, in the same turn

The images are procedural scenes; the six bands are their colours on a scale of 16 bits, and three mixtures of them. All
ways run in processes of their own, in turn, --repeats times:
  train     `skystill train` of swift-small, crops of 256, batches of 4: time of the steps, peak resident memory
  predict   `skystill predict` of an INT8 swift-small on a tiled raster: time of the command, peak resident memory
Medians are compared. The script prints a table with ratios to three bands of bytes here, and writes bands.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image

from skystill.data.scenes import SCENE_CLASSES, paint_scene, write_scene_classes
from skystill.run_folder import write_json

SCENES, SIDE = 8, 512
WAYS = ("before", "three", "six")


def main() -> None:
    """Make the images, run everything, print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="folder src of a checkout of another commit")
    parser.add_argument("--out", type=Path, default=Path("runs/bands"))
    parser.add_argument("--side", type=int, default=6_000, help="of the raster, in pixels")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        print(json.dumps(run_here(chosen, *chosen.part)))
        return
    make_all(chosen)
    ways = [way for way in WAYS if way != "before" or chosen.before]
    found: dict[str, dict[str, list[dict[str, float]]]] = {
        what: {way: [] for way in ways} for what in ("train", "predict")
    }
    for _ in range(chosen.repeats):
        for what, rows in found.items():
            for way in ways:
                rows[way].append(run_apart(chosen, what, way))
    table = {what: {way: medians(rows[way]) for way in ways} for what, rows in found.items()}
    for what, rows in table.items():
        for way, row in rows.items():
            ratios = ", ".join(f"{name} {row[name] / rows['three'][name]:.2f}" for name in row)
            print(f"{what:8} {way:7} {row['seconds']:7.2f} s {row['peak_mb']:6.0f} MB   ratio to three: {ratios}")
    write_json(chosen.out / "bands.json", {"runs": found, "medians": table})


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def six_bands(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Return (6, H, W): the colours on a scale of 16 bits, and three mixtures of them."""
    red, green, blue = image.transpose(2, 0, 1).astype(np.uint16) * 30 + 300
    return np.stack([red, green, blue, (green + blue) // 2, (red + green) // 2, (red + blue) // 2])


def make_all(chosen: argparse.Namespace) -> None:
    """Write both data sets, both rasters and both model files, unless they are there already."""
    if (chosen.out / "six.onnx").exists():
        return
    for way in ("three", "six"):
        folder = chosen.out / f"data-{way}"
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for index in range(SCENES):
            image, labels = paint_scene(SIDE, index)
            write_image(folder / "images" / f"{index}.tif", image, way)
            Image.fromarray(SCENE_CLASSES.paint(labels)).save(folder / "masks" / f"{index}.png")
        write_scene_classes(folder)
        scene = paint_scene(1024, 5)[0]
        times = -(-chosen.side // 1024)
        write_image(chosen.out / f"{way}.tif", np.tile(scene, (times, times, 1))[: chosen.side, : chosen.side], way)
        make_model(chosen.out / f"{way}.onnx", folder, way)


def write_image(path: Path, image: npt.NDArray[np.uint8], way: str) -> None:
    """Write an image as a tiled GeoTIFF with three bands of bytes or six of uint16."""
    bands = six_bands(image) if way == "six" else image.transpose(2, 0, 1)
    with rasterio.open(
        path, "w", driver="GTiff", height=image.shape[0], width=image.shape[1], count=len(bands), dtype=bands.dtype,
        crs="EPSG:32640", transform=rasterio.transform.from_origin(300_000, 2_800_000, 0.3, 0.3), compress="deflate",
        tiled=True, blockxsize=512, blockysize=512,
    ) as file:  # fmt: skip
        file.write(bands)
        file.descriptions = ("red", "green", "blue", "a", "b", "c")[: len(bands)]


def make_model(path: Path, data: Path, way: str) -> None:
    """Train for one epoch and quantise, so that INT8 has real scales."""
    from skystill import api
    from skystill.data import find_pairs, read_image
    from skystill.model.file import open_session, read_info
    from skystill.model.quantize import quantize_model

    run = path.with_suffix("")
    api.train(data=data, out=run, network="swift-small", bands=bands_of(way), epochs=1, report=False)
    spec = read_info(open_session(run / "model.onnx"), run / "model.onnx").input_spec
    crops = [read_image(pair.image, spec) for pair in find_pairs(data).pairs[:4]]
    quantize_model(run / "model.onnx", path, crops, lambda file: 0.0)


def bands_of(way: str) -> str | None:
    """Return the value of --bands."""
    return "all" if way == "six" else None


def run_apart(chosen: argparse.Namespace, what: str, way: str) -> dict[str, float]:
    """Run one way in a process of its own."""
    source = {"PYTHONPATH": str(chosen.before)} if way == "before" else {}
    command = [sys.executable, __file__, "--out", str(chosen.out), "--epochs", str(chosen.epochs), "--part", what, way]
    done = subprocess.run(command, env=os.environ | source, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_here(chosen: argparse.Namespace, what: str, way: str) -> Mapping[str, float]:
    """Run one way in a child of this process."""
    name = "six" if way == "six" else "three"
    if what == "predict":
        out = chosen.out / f"classes-{way}.tif"
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "skystill", "predict", str(chosen.out / f"{name}.tif"), "--model",
             str(chosen.out / f"{name}.onnx"), "--runtime", "onnxruntime", "--out", str(out)],
            check=True, capture_output=True,
        )  # fmt: skip
        seconds = time.monotonic() - began
        return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3}
    run = chosen.out / f"train-{way}-{time.time_ns()}"
    chosen_bands = [f"--bands={bands_of(way)}"] if way == "six" else []  # the other commit may not know the option
    subprocess.run(
        [sys.executable, "-m", "skystill", "train", "--data", str(chosen.out / f"data-{name}"), "--out", str(run),
         "--network", "swift-small", "--epochs", str(chosen.epochs), "--no-report", *chosen_bands],
        check=True, capture_output=True,
    )  # fmt: skip
    record = json.loads((run / "training.json").read_text(encoding="utf-8"))
    return {"seconds": record["seconds"], "peak_mb": record["peak_rss_bytes"] / 1e6}


if __name__ == "__main__":
    main()

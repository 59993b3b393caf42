"""A large DataArray of dask through `skystill.predict_dataarray`, compared with `skystill predict` on the same raster.

    python benchmarks/predict_dataarray.py                            # 20,000 x 20,000, the bundled model
    python benchmarks/predict_dataarray.py --side 5000 --mode blend --chunk 1000

The raster is one procedural scene repeated and mirrored at each seam, with a corner without data, as a tiled GeoTIFF.
Two ways run in processes of their own: the command, and a DataArray of chunks that do not lie on the grid of tiles,
whose labels rioxarray writes chunk by chunk. The script prints time and peak resident memory of each, and how many
labels differ. It fails if one does.
"""

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from skystill.data.scenes import paint_scene
from skystill.model.bundled import bundled_model
from skystill.model.measure import peak_rss_bytes


def main() -> None:
    """Make the raster, run both ways, compare the labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--out", type=Path, default=Path("runs/predict_dataarray"))
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--chunk", type=int, default=1_500, help="side of the chunks of the array in pixels")
    parser.add_argument("--mode", default="crop", choices=("crop", "blend"))
    parser.add_argument("--way", choices=("command", "dataarray"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    source = options.out / f"{options.side}.tif"
    if options.way:
        run(options, source)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        write_raster(source, options.side)
    for way in ("command", "dataarray"):
        subprocess.run([sys.executable, __file__, "--way", way, *sys.argv[1:]], check=True)
    differing, seen = compare(options.out)
    print(f"{differing} of {options.side**2:,} labels differ; {seen:,} are those of classes")
    sys.exit(differing != 0)


def write_raster(path: Path, side: int) -> None:
    """Write the raster, one row of blocks at a time."""
    scene = paint_scene(1024, seed=0)[0].transpose(2, 0, 1)
    both = np.concatenate([scene, scene[:, :, ::-1]], axis=2)
    row = np.tile(both, (1, 1, -(-side // both.shape[2])))[:, :, :side]
    profile = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8", "nodata": 0}
    place = {"crs": "EPSG:32640", "transform": rasterio.Affine(0.3, 0, 300_000, 0, -0.3, 2_800_000)}
    with rasterio.open(path, "w", tiled=True, blockxsize=512, blockysize=512, **profile, **place) as file:
        for number, top in enumerate(range(0, side, 1024)):
            part = np.maximum(row[:, :: -1 if number % 2 else 1][:, : side - top], 1)
            if top < side // 10:
                part[:, :, : side // 10] = 0
            file.write(part, window=Window(0, top, side, part.shape[1]))


def run(options: argparse.Namespace, source: Path) -> None:
    """Run one way in this process, and print its time and memory."""
    began = time.perf_counter()
    target = options.out / f"{options.way}.tif"
    target.unlink(missing_ok=True)
    if options.way == "command":
        from skystill.api import predict

        predict(inputs=str(source), model=options.model, out=target, mode=options.mode)
    else:
        import rioxarray

        import skystill

        da = rioxarray.open_rasterio(source, chunks={"x": options.chunk, "y": options.chunk})
        found = skystill.predict_dataarray(da, options.model, mode=options.mode)
        found.rio.to_raster(target, tiled=True, compress="deflate", lock=threading.Lock())
    seconds, peak = time.perf_counter() - began, peak_rss_bytes() / 1e6
    print(f"{options.way:9}: {seconds:.0f} s, {options.side**2 / 1e6 / seconds:.1f} MP/s, peak memory {peak:.0f} MB")


def compare(folder: Path) -> tuple[int, int]:
    """Return how many labels differ, and how many of the command's are those of classes, window by window."""
    differing = seen = 0
    with rasterio.open(folder / "command.tif") as one, rasterio.open(folder / "dataarray.tif") as other:
        for _, window in one.block_windows(1):
            expected = one.read(1, window=window)
            differing += int((expected != other.read(1, window=window)).sum())
            seen += int((expected != 255).sum())
    return differing, seen


if __name__ == "__main__":
    main()

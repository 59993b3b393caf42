"""A large raster through `skystill predict`, compared with the plain way and with the ceiling.

    python benchmarks/predict_raster.py --student student-int8.onnx --teacher RUN          # 20,000 x 20,000
    python benchmarks/predict_raster.py --student student-int8.onnx --teacher RUN --huge   # 50,000 x 50,000 as well

The raster is one photograph repeated and mirrored at each seam (give your own with --photo; the default is a procedural
scene), once as a tiled GeoTIFF and once striped. For each raster these ways run, in processes of their own:
  ours      skystill predict with its defaults: time of the whole command, peak resident memory of the process
  ceiling   the same session and workers fed from memory with the same tiles; the class maps are thrown away
  plain     torch, the U-Net teacher, tile by tile (256 x 256, no overlap) into one array, on as many of the first rows
            of the raster as fit into --plain-megapixels; its megapixels per second are what is compared
All ways run in turn, --repeats times; medians are compared. The script prints a line per raster and writes
predict_raster.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from skystill.data import read_image
from skystill.data.scenes import paint_scene
from skystill.model.measure import peak_rss_bytes
from skystill.run_folder import write_json


@dataclass(frozen=True)
class Measured:
    """One run of one way.

    Args:
        mp_per_second: megapixels per second.
        peak_mb: peak resident memory of the process in MB.
        seconds: time.
    """

    mp_per_second: float
    peak_mb: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """All ways on one raster.

    Args:
        raster: its layout and its side in pixels.
        mp_per_second: median megapixels per second of each way.
        spread: the lowest and the highest of each way.
        peak_mb: largest peak resident memory of each way in MB.
        of_ceiling: ours as a part of the ceiling.
        times_plain: ours as a multiple of plain; None if plain was left out.
    """

    raster: str
    mp_per_second: dict[str, float]
    spread: dict[str, tuple[float, float]]
    peak_mb: dict[str, float]
    of_ceiling: float
    times_plain: float | None


def main() -> None:
    """Make the rasters, run everything, print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, help="run folder with a torch teacher; without it plain is left out")
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/predict_raster"))
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--compress", default="deflate", help="of the generated rasters: deflate, lzw, zstd, none")
    parser.add_argument("--huge", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain-megapixels", type=float, default=40.0)
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        way, raster = chosen.part
        print(json.dumps(asdict(PARTS[way](chosen, raster))))
        return
    rows: list[Row] = []
    for side in (chosen.side, *([50_000] if chosen.huge else [])):
        for kind in ("tiled", "striped"):
            name = f"{kind}-{chosen.compress}-{side}.tif"
            raster = make_raster(chosen.out / name, side, kind == "tiled", photo(chosen.photo), chosen.compress)
            rows.append(compare(chosen, f"{kind} {side}", raster, chosen.repeats if side <= 20_000 else 1))
            print_row(rows[-1])
    write_json(chosen.out / "predict_raster.json", {"rows": [asdict(row) for row in rows]})


def photo(path: Path | None) -> np.ndarray:
    """Return the picture to repeat."""
    return read_image(path) if path else paint_scene(1024, 5)[0]


def make_raster(path: Path, side: int, tiled: bool, image: np.ndarray, compress: str) -> Path:
    """Write the raster in strips of 512 rows, unless it is there already."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = np.concatenate([image, image[:, ::-1]], axis=1)
    unit = np.concatenate([unit, unit[::-1]], axis=0)
    wide = np.tile(unit, (1, -(-side // unit.shape[1]), 1))[:, :side]
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512} if tiled else {"tiled": False, "blockysize": 8}
    part = path.with_name(f".part-{path.name}")
    with rasterio.open(
        part, "w", driver="GTiff", height=side, width=side, count=3, dtype="uint8", crs="EPSG:32640",
        transform=rasterio.transform.from_origin(300_000, 2_800_000, 0.3, 0.3), compress=compress,
        interleave="pixel", photometric="rgb", bigtiff="if_safer", **layout,
    ) as file:  # fmt: skip
        for top in range(0, side, 512):
            rows = np.arange(top, min(top + 512, side)) % len(wide)
            file.write(np.ascontiguousarray(wide[rows].transpose(2, 0, 1)), window=Window(0, top, side, len(rows)))
    part.replace(path)
    return path


def compare(chosen: argparse.Namespace, title: str, raster: Path, repeats: int) -> Row:
    """Run the ways in turn, each in a process of its own, since its peak memory is one of the results."""
    ways = [way for way in PARTS if way != "plain" or chosen.teacher]
    found: dict[str, list[Measured]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            command = [sys.executable, __file__, *sys.argv[1:], "--part", way, str(raster)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[way].append(Measured(**json.loads(done.stdout.strip().splitlines()[-1])))
    rates = {way: [run.mp_per_second for run in runs] for way, runs in found.items()}
    medians = {way: statistics.median(each) for way, each in rates.items()}
    return Row(
        raster=title,
        mp_per_second=medians,
        spread={way: (min(each), max(each)) for way, each in rates.items()},
        peak_mb={way: max(run.peak_mb for run in runs) for way, runs in found.items()},
        of_ceiling=medians["ours"] / medians["ceiling"],
        times_plain=medians["ours"] / medians["plain"] if "plain" in medians else None,
    )


def run_ours(chosen: argparse.Namespace, raster: str) -> Measured:
    """Run the command as a user runs it, start-up included."""
    # A process and not skystill.api.predict: what is measured is the whole command, with the memory of nothing else.
    out = chosen.out / "ours.tif"
    began = time.perf_counter()
    command = [sys.executable, "-m", "skystill", "predict", raster, f"--model={chosen.student}", f"--out={out}",
               "--runtime=onnxruntime"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_of(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"skystill predict failed: {process.returncode}")
    seconds = time.perf_counter() - began
    with rasterio.open(raster) as source:
        pixels = source.height * source.width
    return Measured(pixels / 1e6 / seconds, peak / 1e6, seconds)


def peak_of(pid: int) -> int:
    """Return the peak resident memory of another process in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def run_ceiling(chosen: argparse.Namespace, raster: str) -> Measured:
    """Run the same workers on the same tiles from memory; nothing is read or written."""
    from concurrent.futures import ThreadPoolExecutor

    from skystill.model.measure import cores
    from skystill.predict import Predictor
    from skystill.predict.plan import choose_plan
    from skystill.predict.stream import most_likely
    from skystill.raster.source import RasterSource, gdal_environment
    from skystill.settings import RasterSettings
    from skystill.tiling import Tile

    predictor = Predictor(chosen.student)
    infer = predictor.single_threaded()
    info = predictor.info
    with gdal_environment():
        source = RasterSource(raster)
        plan = choose_plan(source, info.tile_size, info.overlap, len(info.classes), 0, RasterSettings(), None)
        planes, _ = source.read(0, min(4096, source.height), 0, min(4096, source.width))
    tiles = [tile for unit in plan.grid.units() for tile in unit.tiles][: 120 * cores()]

    def one(tile: Tile) -> int:
        height, width = tile.read_bottom - tile.read_top, tile.read_right - tile.read_left
        top = tile.top % (planes.shape[1] - height + 1)  # different pixels each time, as in a raster
        left = tile.left % (planes.shape[2] - width + 1)
        most_likely(infer(planes[:, top : top + height, left : left + width]))
        return (tile.bottom - tile.top) * (tile.right - tile.left)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(one, tiles[: 2 * cores()]))
        began = time.perf_counter()
        pixels = sum(pool.map(one, tiles))
        seconds = time.perf_counter() - began
    return Measured(pixels / 1e6 / seconds, peak_rss_bytes() / 1e6, seconds)


def run_plain(chosen: argparse.Namespace, raster: str) -> Measured:
    """Run what people write first: torch, the teacher, one tile after the other, one array for the result."""
    import torch

    from skystill.train.networks.weights import read_network

    network, _ = read_network(chosen.teacher / "checkpoints" / "model.safetensors")
    with rasterio.open(raster) as source, torch.inference_mode():
        width = source.width // 256 * 256
        height = max(256, min(source.height, int(chosen.plain_megapixels * 1e6 / width)) // 256 * 256)
        result = np.empty((height, width), np.uint8)
        began = time.perf_counter()
        for top in range(0, height, 256):
            for left in range(0, width, 256):
                image = torch.from_numpy(source.read(window=Window(left, top, 256, 256)))[None]
                result[top : top + 256, left : left + 256] = network(image)[0].argmax(0).numpy()
        seconds = time.perf_counter() - began
    return Measured(result.size / 1e6 / seconds, peak_rss_bytes() / 1e6, seconds)


PARTS = {"ours": run_ours, "ceiling": run_ceiling, "plain": run_plain}


def print_row(row: Row) -> None:
    """Print one line for a raster."""
    cells = [
        f"{way} {rate:.2f} MP/s ({row.spread[way][0]:.2f} to {row.spread[way][1]:.2f}), {row.peak_mb[way]:.0f} MB"
        for way, rate in row.mp_per_second.items()
    ]
    times = "" if row.times_plain is None else f"; {row.times_plain:.1f} times plain"
    print(f"{row.raster}: {'; '.join(cells)}; {100 * row.of_ceiling:.0f} % of the ceiling{times}", flush=True)


if __name__ == "__main__":
    main()

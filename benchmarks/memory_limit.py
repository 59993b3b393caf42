"""`skystill predict --max-memory` over a matrix of rasters, models and modes: is the limit kept?

    python benchmarks/memory_limit.py                   # the whole matrix
    python benchmarks/memory_limit.py --only striped    # the cases whose name holds this word

Each case runs twice, each time in a process of its own: with the smallest limit that the command names as possible,
and with half as much again. The peak is that of the largest process: VmHWM of the command, or the largest resident
memory of a process that it started. Networks have random weights; the INT8 one is the bundled model. A line per run
gives limit, peak and excess, the last line the largest excess in percent, which must be at most 0. Results:
memory_limit.json.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.shutil import copy as convert
from rasterio.windows import Window

from skystill.classes import DUBAI
from skystill.model.bundled import bundled_model
from skystill.model.file import ModelInfo
from skystill.raster.input_spec import RGB, Band, InputSpec
from skystill.run_folder import write_json

SIX = InputSpec(tuple(Band(f"b{number}", number, 1000.0, 500.0, 0.0, 4000.0) for number in range(1, 7)), "uint16")
TILED: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
RASTERS: dict[str, dict[str, Any]] = {
    "tiled": TILED,
    "striped": {"blockysize": 8, "compress": "lzw"},
    "nodata": {**TILED, "nodata": 0},
    "mask": {**TILED, "mask": True},
    "jpeg tiles": {**TILED, "compress": "jpeg", "photometric": "ycbcr"},
    "one strip": {"blockysize": 100_000, "compress": "deflate"},
    "16 bits": {**TILED, "dtype": "uint16", "nodata": 0},
    "six bands": {**TILED, "dtype": "uint16", "count": 6, "nodata": 0},
    "six bands striped": {"dtype": "uint16", "count": 6, "blockysize": 16},
    "wide nodata": {"blockysize": 1, "width": 30_000, "height": 1_500, "nodata": 0},
    "png": {"driver": "PNG"},
    "jpeg": {"driver": "JPEG"},
    "progressive jpeg": {"driver": "JPEG", "PROGRESSIVE": "ON"},
}
CASES = [
    *[(raster, "float", ()) for raster in RASTERS if not raster.startswith("six")],
    *[(raster, "int8", ()) for raster in ("tiled", "striped", "wide nodata", "16 bits", "png")],
    *[(raster, "six", ()) for raster in ("six bands", "six bands striped")],
    *[("tiled", model, ("--views=8",)) for model in ("float", "int8")],
    *[("tiled", model, ("--mode=blend",)) for model in ("float", "int8")],
    ("wide nodata", "float", ("--mode=blend", "--probabilities")),
    *[("tiled", model, ("--confidence", "--probabilities")) for model in ("float", "int8")],
    ("tiled", "int8", ("--areas", "--overlay", "--cog")),
    ("tiled", "float", ("--vector=gpkg",)),
    ("tiled", "int8", ("--vector=gpkg",)),
    ("tiled", "int8", ("--smooth=5", "--min-area=30px")),
    *[("tiled", model, ("--runtime=openvino",)) for model in ("float", "int8")],
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One run: its peak against its limit.

    Args:
        case: raster, model and flags.
        limit_mb: the limit.
        peak_mb: the peak of the largest process.
        excess: the peak above the limit in percent; negative if it is kept.
        seconds: time of the whole command.
    """

    case: str
    limit_mb: float
    peak_mb: float
    excess: float
    seconds: float


def main() -> None:
    """Make models and rasters, run every case, print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/memory_limit"))
    parser.add_argument("--only", default="")
    parser.add_argument("--height", type=int, default=3_000)
    parser.add_argument("--width", type=int, default=5_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--times", type=float, nargs="+", default=[1.0, 1.5], help="limits, in smallest ones")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for left in chosen.out.glob(".unfinished-*"):  # of a run that was stopped
        shutil.rmtree(left)
    rows: list[Row] = []
    for raster, model, flags in CASES:
        case = " ".join((raster, model, *flags))
        if chosen.only not in case or ("openvino" in case and importlib.util.find_spec("openvino") is None):
            continue
        command = [
            str(make_raster(chosen, raster)), f"--model={make_model(chosen.out, model)}",
            f"--out={chosen.out / f'classes-{len(rows)}.tif'}", f"--threads={chosen.threads}", *flags,
        ]  # fmt: skip
        _, said, _, _ = run([*command, "--max-memory=1MB"])
        smallest = re.search(r"smallest possible is (\d+)MB", " ".join(said.split()))
        if not smallest:
            raise SystemExit(said)
        for limit in (int(times * int(smallest[1])) for times in chosen.times):
            code, said, peak, seconds = run([*command, f"--max-memory={limit}MB"])
            if code:
                raise SystemExit(said)
            rows.append(Row(case, limit, peak / 1e6, 100 * (peak / 1e6 / limit - 1), seconds))
            print(
                f"{case}: {limit} MB, peak {peak / 1e6:.0f} MB, {rows[-1].excess:+.1f} %, {seconds:.1f} s", flush=True
            )
    worst = max(rows, key=lambda row: row.excess)
    print(f"{len(rows)} runs; the largest excess is {worst.excess:+.1f} % ({worst.case}).")
    write_json(chosen.out / "memory_limit.json", {"rows": [asdict(row) for row in rows]})


def run(arguments: list[str]) -> tuple[int, str, int, float]:
    """Exit code, output, peak memory in bytes of the largest process, and seconds of one prediction."""
    code = (
        "import re, resource, runpy, sys\n"
        "from pathlib import Path\n"
        "sys.argv[0] = 'skystill'\n"
        "try:\n    runpy.run_module('skystill', run_name='__main__')\n"
        "finally:\n    print('PEAK', *re.findall(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text()),\n"
        "          resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "400"},
    )  # fmt: skip
    text = done.stdout + done.stderr
    found = re.search(r"PEAK (\d+) (\d+)", text)
    if not found:
        raise SystemExit(text)
    return done.returncode, text, max(map(int, found.groups())) * 1024, time.perf_counter() - began


def make_model(folder: Path, name: str) -> Path:
    """Return a model file: a float network of random weights, one of six bands, or the bundled INT8 model."""
    if name == "int8":
        return bundled_model()
    path = folder / f"{name}.onnx"
    if not path.exists():
        import torch

        from skystill.train.compress.export import export_network
        from skystill.train.networks.table import build_network

        torch.manual_seed(0)
        network, spec = ("swift-small", RGB) if name == "float" else ("kite-small", SIX)
        info = ModelInfo(DUBAI, network, parameters=1, multiply_adds_per_megapixel=0, tile_size=832, overlap=128)
        export_network(build_network(network, 6, spec), ModelInfo(**{**vars(info), "input_spec": spec}), path)
    return path


def make_raster(chosen: argparse.Namespace, name: str) -> Path:
    """Write a raster of smooth noise, of which a corner has no data, unless it is there already."""
    options = dict(RASTERS[name])
    driver, mask = options.pop("driver", "GTiff"), options.pop("mask", False)
    path = chosen.out / f"{name.replace(' ', '-')}{'.tif' if driver == 'GTiff' else '.' + driver.lower()}"
    if path.exists():
        return path
    made = path.with_name(f"{path.stem}-made.tif") if driver != "GTiff" else path
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": chosen.height, "width": chosen.width, "count": 3, "dtype": "uint8",
        "crs": "EPSG:32640", "transform": rasterio.transform.from_origin(300_000, 2_800_000, 0.5, 0.5),
    }  # fmt: skip
    more = options if driver == "GTiff" else {}
    rng = np.random.default_rng(1)
    with rasterio.open(made, "w", **{**profile, **more}) as file:
        factor = 1 if file.dtypes[0] == "uint8" else 12
        for top in range(0, file.height, 512):
            height = min(512, file.height - top)
            coarse = rng.integers(1, 250, (file.count, -(-height // 8), -(-file.width // 8)))
            bands = (coarse.repeat(8, 1).repeat(8, 2)[:, :height, : file.width] * factor).astype(file.dtypes[0])
            if top == 0:
                bands[:, :, : file.width // 3] = 0
            file.write(bands, window=Window(0, top, file.width, height))
    if mask:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(made, "r+") as file:
            shown = np.full(file.shape, 255, np.uint8)
            shown[: file.height // 3, : file.width // 3] = 0
            file.write_mask(shown)
    if driver != "GTiff":
        convert(made, path, driver=driver, **options)
        made.unlink()
    return path


if __name__ == "__main__":
    main()

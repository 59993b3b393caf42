"""An archive on a Dask cluster against the plain command: overhead, one and two workers, 10,000 small inputs.

    python benchmarks/archive.py                     # one raster of 12,000 x 12,000, five times each, side by side
    python benchmarks/archive.py --inputs 10000 --rounds 1      # as many images of 512 x 512: half an hour
    python benchmarks/archive.py --side 3000 --rounds 1

The cluster is a scheduler and workers in processes of their own on this machine, each worker with one thread. It runs
before anything is timed, and has opened the model. The script prints
  overhead     time with one worker, divided by the time of the plain command with one thread, less 1; for each input
  efficiency   time with one worker, divided by twice the time with two workers
  memory       peak of the process of the command, and what it is for each input beside that of one input
  manifest     bytes of it for each input
  status       time of `skystill status` while the command runs and at its end
  messages     bytes of a task and of its result, through the command and the scheduler
and what `skystill status` says at the end, and writes archive.json. The results of all ways must be the same bytes. The
medians of the rounds are taken, and their ranges printed.
"""

import argparse
import contextlib
import hashlib
import json
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from skystill.data.scenes import paint_scene
from skystill.model.bundled import bundled_model
from skystill.run_folder import write_json


def main() -> None:
    """Make the inputs, run each way in turn, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/archive"))
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--side", type=int, default=12_000)
    parser.add_argument("--inputs", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part is not None:
        print(json.dumps(run_once(chosen)))
        return
    folder = make_images(chosen) if chosen.inputs else make_raster(chosen)
    found: dict[str, list[dict[str, Any]]] = {"plain": [], "1 worker": [], "2 workers": []}
    with running(chosen.out / "dask-1", 1) as one, running(chosen.out / "dask-2", 2) as two:
        parts = {"plain": "", "1 worker": one, "2 workers": two}
        alone = [call(chosen, address, "--warm") for address in (one, two)]  # each worker opens the model
        for _ in range(chosen.rounds):
            for name, address in parts.items():
                found[name].append(call(chosen, address))
    seconds = {name: [one["seconds"] for one in times] for name, times in found.items()}
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{folder}: {chosen.inputs or 1:,} inputs")
    for name, times in seconds.items():
        print(f"{name}: {middle[name]:.2f} s ({min(times):.2f} to {max(times):.2f})")
    last = found["2 workers"][-1]
    overhead = middle["1 worker"] / middle["plain"] - 1
    efficiency = middle["1 worker"] / (2 * middle["2 workers"])
    count = chosen.inputs or 1
    each_ms = 1e3 * (middle["1 worker"] - middle["plain"]) / count
    print(f"overhead: {100 * overhead:.1f} %, {each_ms:.2f} ms for each input")
    print(f"efficiency of 2 workers: {100 * efficiency:.0f} %")
    print(f"memory of the command: {last['peak_mb']:.0f} MB, of the plain one {found['plain'][-1]['peak_mb']:.0f} MB")
    grown = (last["peak_mb"] - alone[1]["peak_mb"]) / count
    print(f"memory of the command for each input: {1e3 * grown:.1f} kB; manifest: {last['manifest_kb'] / count:.2f} kB")
    print(f"status: {1e3 * last['status_running_s']:.0f} ms while it runs, {1e3 * last['status_s']:.0f} ms at the end")
    digests = {one["digest"] for times in found.values() for one in times}
    if len(digests) != 1:
        raise SystemExit("the results differ between the ways.")
    print(f"results: the same bytes in all ways ({min(digests)})")
    print(
        subprocess.run(
            [sys.executable, "-m", "skystill", "status", chosen.out / "results"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    messages = message_bytes()
    for name, size in messages.items():
        print(f"bytes of {name}: {size:,}")
    ratios = {"overhead": overhead, "overhead_ms_per_input": each_ms, "efficiency": efficiency}
    write_json(chosen.out / "archive.json", {**ratios, "seconds": seconds, **last, "messages": messages})


def call(chosen: argparse.Namespace, address: str, *flags: str) -> dict[str, Any]:
    """Run one prediction in a process of its own."""
    part = ["--part", f"{address}{' warm' if flags else ''}"]
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], *part], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def run_once(chosen: argparse.Namespace) -> dict[str, Any]:
    """Predict, and time it from the call of the function to its end."""
    from skystill.api import predict_each, status
    from skystill.model.measure import peak_rss_bytes
    from skystill.progress import Event, Progress
    from skystill.settings import PredictSettings

    address, _, warm = chosen.part.partition(" ")
    out = chosen.out / "results"
    shutil.rmtree(out, ignore_errors=True)
    given = make_images(chosen) if chosen.inputs else make_raster(chosen)
    inputs = [str(sorted(given.iterdir())[0])] if warm and given.is_dir() else [str(given)]
    settings = PredictSettings(inputs=inputs, model=chosen.model, out=out, threads=1, dask=address or None)
    looked = 0.0

    def look(event: Event) -> None:
        nonlocal looked
        if address and not looked and isinstance(event, Progress) and event.done > event.total // 2:
            at = time.perf_counter()
            status(out=out)
            looked = time.perf_counter() - at

    began = time.perf_counter()
    for _ in predict_each(settings, on_progress=look):
        pass
    seconds = time.perf_counter() - began
    at = time.perf_counter()
    if address:
        status(out=out)
    at = time.perf_counter() - at
    manifest = out / ".skystill/manifest.sqlite"
    return {
        "seconds": seconds, "peak_mb": peak_rss_bytes() / 1e6, "status_s": at, "status_running_s": looked,
        "manifest_kb": manifest.stat().st_size / 1e3 if address else 0.0, "digest": digest_of(out),
    }  # fmt: skip


def digest_of(folder: Path) -> str:
    """Return one digest of all results."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".skystill" not in path.parts:
            found.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def message_bytes() -> dict[str, int]:
    """Return the bytes of tasks and results as Dask sends them, without those of its own protocol."""
    from skystill.cluster import tasks
    from skystill.predict.batch import PredictedInput
    from skystill.predict.predictor import Prediction

    where = ("/results/2026/county-17/.skystill", "0123456789abcdef")
    items = tuple(
        (number, f"/archive/2026/county-17/sheet-{number:06d}.tif", f"/results/2026/county-17/sheet-{number:06d}.tif")
        for number in range(500)
    )
    done = [
        tasks.Outcome(
            number, "done", 262_144, 9_000, f"{number:064x}", 0.05, "worker-17",
            source_state=f"{number} 179{number:016}",
            target_state=f"{number} 179{number:016}",
            about=PredictedInput(source, Prediction(Path(target), 262_144, (), ()), 0.05, ()),
        )
        for number, source, target in items
    ]  # fmt: skip
    piece = tasks.Outcome(1, "done", 60_000_000, 4_000_000, f"{1:064x}", 60.0, "worker-17")
    return {
        "a task on a piece of a large raster": len(pickle.dumps((tasks.compute_piece, *where, items[0], 0, 24))),
        "its result": len(pickle.dumps(piece)),
        "a task on 500 small inputs": len(pickle.dumps((tasks.predict_inputs_of, *where, items, 60_000_000, 60.0))),
        "its result, for 500": len(pickle.dumps(done)),
    }


@contextlib.contextmanager
def running(folder: Path, workers: int) -> Iterator[str]:
    """Yield the address of a scheduler with some workers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "log"
    with log.open("w") as out:
        dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
        started = [subprocess.Popen([*dask, "--no-dashboard"], stdout=out, stderr=out)]
        try:
            while not (found := re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text())):
                time.sleep(0.1)
            worker = [
                sys.executable,
                "-m",
                "distributed.cli.dask_worker",
                found[1],
                "--nthreads",
                "1",
                "--no-dashboard",
            ]
            worker += ["--no-nanny", "--local-directory", str(folder)]
            started += [subprocess.Popen(worker, stdout=out, stderr=out) for _ in range(workers)]
            wait_for(found[1], workers)
            yield found[1]
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


def wait_for(address: str, workers: int) -> None:
    """Wait until the workers are there."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(workers)


def make_images(chosen: argparse.Namespace) -> Path:
    """Write PNG images of 512 x 512, in the eight views of a few scenes, unless they are there already."""
    whole = chosen.out / f"images-{chosen.inputs}"
    if not whole.is_dir():
        folder = chosen.out / f"part-{chosen.inputs}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        scenes = [paint_scene(512, seed)[0] for seed in range(8)]
        for index in range(chosen.inputs):
            scene = np.rot90(scenes[index // 8 % 8], index % 4)
            Image.fromarray(scene if index % 8 < 4 else scene[:, ::-1]).save(
                folder / f"{index:06d}.png", compress_level=1
            )
        folder.rename(whole)
    return whole


def make_raster(chosen: argparse.Namespace) -> Path:
    """Write a tiled GeoTIFF of procedural scenes, unless it is there already."""
    path = chosen.out / f"raster-{chosen.side}.tif"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scene = paint_scene(1024, 0)[0].transpose(2, 0, 1)
        with rasterio.open(
            path, "w", driver="GTiff", height=chosen.side, width=chosen.side, count=3, dtype="uint8", tiled=True,
            compress="deflate", zlevel=1, crs="EPSG:32640", transform=from_origin(300_000, 2_800_000, 0.5, 0.5),
        ) as file:  # fmt: skip
            for _, window in file.block_windows(1):
                top, left = window.row_off % 768, window.col_off % 768
                file.write(scene[:, top : top + window.height, left : left + window.width], window=window)
    return path


if __name__ == "__main__":
    main()

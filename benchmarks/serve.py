"""Requests per second of `skystill serve` beside the images per second of the raw engine, on the same machine.

    python benchmarks/serve.py [--model MODEL] [--images 200] [--clients 8] [--side 512] [--rounds 3]

Both in turn, so that other work on the machine meets both. The engine runs one image after the other, with all cores on
each, in a process of its own: no file is opened, decoded or written. The clients of the service send a PNG or a tiled
GeoTIFF over loopback and read the classes as PNG; they run in this process, on the same cores.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from skystill.data.scenes import write_scene
from skystill.model.bundled import bundled_model

_ENGINE = """
import json, sys, time
import numpy as np
from PIL import Image
from skystill.predict import Predictor
predictor = Predictor(sys.argv[1])
image = np.asarray(Image.open(sys.argv[2]))
for _ in range(5):
    predictor.labels(image)
began, times = time.perf_counter(), []
for _ in range(int(sys.argv[3])):
    start = time.perf_counter()
    predictor.labels(image)
    times.append(time.perf_counter() - start)
print(json.dumps({"seconds": time.perf_counter() - began, "times": times}))
"""


def main() -> None:
    """Print one line for each round and a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = make_images(folder, given.side)
        figures: dict[str, list[tuple[float, list[float]]]] = {}
        with Service(folder, given.model) as service:
            for _ in range(given.rounds):
                figures.setdefault("engine", []).append(run_engine(given.model, folder / "image.png", given.images))
                for kind, body in bodies.items():
                    for clients in (1, given.clients):
                        done = service.run(body, given.images, clients)
                        figures.setdefault(f"{kind}, {clients} client(s)", []).append(done)
            peak = service.peak_mib
    print(
        f"{os.cpu_count()} cores, {given.images} images of {given.side} x {given.side} in each of {given.rounds} rounds"
    )
    print(f"{'':24} {'per second':>10} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8}")
    for name, rounds in figures.items():
        rate, times = max(rounds, key=lambda one: one[0])  # the round that other work disturbed least
        middle, high, highest = (1e3 * float(np.percentile(times, part)) for part in (50, 95, 99))
        print(f"{name:24} {rate:10.1f} {middle:8.1f} {high:8.1f} {highest:8.1f}")
    print(f"peak memory of the service: {peak:.0f} MiB")


def make_images(folder: Path, side: int) -> dict[str, bytes]:
    """One scene as PNG and as GeoTIFF."""
    write_scene(folder, 0, side, seed=1)
    scene = next((folder / "images").iterdir())
    pixels = np.asarray(Image.open(scene).convert("RGB"))
    Image.fromarray(pixels).save(folder / "image.png")
    buffer = io.BytesIO()
    place = from_origin(300_000, 2_800_000, 0.5, 0.5)
    with rasterio.open(
        buffer, "w", driver="GTiff", height=side, width=side, count=3, dtype="uint8", tiled=True, crs="EPSG:32640",
        transform=place, compress="deflate",
    ) as file:  # fmt: skip
        file.write(pixels.transpose(2, 0, 1))
    return {"PNG": (folder / "image.png").read_bytes(), "GeoTIFF": buffer.getvalue()}


def run_engine(model: Path, image: Path, count: int) -> tuple[float, list[float]]:
    """Images per second of the engine alone, and the seconds of each."""
    command = [sys.executable, "-c", _ENGINE, str(model), str(image), str(count)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return count / found["seconds"], found["times"]


class Service:
    """The service in a process of its own."""

    def __init__(self, folder: Path, model: Path) -> None:
        self._log = folder / "log"
        command = [sys.executable, "-m", "skystill", "serve", str(model), "--port=0"]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(command, stderr=log)
        while " on http://" not in self._log.read_text():
            if self._process.poll() is not None:
                raise SystemExit(self._log.read_text())
            time.sleep(0.05)
        line = next(line for line in self._log.read_text().splitlines() if " on http://" in line)
        self._client = httpx.Client(
            base_url=line.split(" on ")[1], timeout=60, limits=httpx.Limits(max_connections=None)
        )
        self.peak_mib = 0.0

    def __enter__(self) -> "Service":
        while True:
            try:
                self._client.get("/health")
                return self
            except httpx.TransportError:
                time.sleep(0.05)

    def __exit__(self, *raised: object) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait()

    def run(self, body: bytes, count: int, clients: int) -> tuple[float, list[float]]:
        """Requests per second, and the seconds of each."""

        def send(_: int) -> float:
            began = time.perf_counter()
            self._client.post("/predict?f=png", content=body).raise_for_status()
            return time.perf_counter() - began

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(send, range(2 * clients)))
            began = time.perf_counter()
            times = list(pool.map(send, range(count)))
            seconds = time.perf_counter() - began
        self.peak_mib = max(self.peak_mib, psutil.Process(self._process.pid).memory_info().rss / 2**20)
        return count / seconds, times


if __name__ == "__main__":
    main()

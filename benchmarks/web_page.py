"""The page of `skystill export --format html` against ONNX Runtime: time of the network, memory, and the longest task.

    python benchmarks/web_page.py                        # speed, threads, then memory at 1, 4, 24 and 100 megapixels
    python benchmarks/web_page.py --part speed --rounds 9
    python benchmarks/web_page.py --part memory --megapixels 4

It needs Chromium or Chrome. **speed**: one tile of the bundled INT8 model, and one of a float network of the same kind
with random weights, in the page (WebAssembly, one thread) and in ONNX Runtime on one and on two threads, in turn. The
figures are processor time per megapixel, of which the least of all rounds is given: other work on the machine changes
it less than the time on the clock, which is given for two threads. In the page it contains the classes, their
confidence and the counting. **threads**: the page of `--format web`, isolated, on all cores: a worker of one thread for
each core against one worker whose threads share memory, in turn, on one tile and on six; the median time on the clock
per megapixel. **memory**: a tiled GeoTIFF is labelled in a fresh page; the peak is VmHWM of the page's
process, and the longest task is processor time on the page's own thread, from the opening to saved polygons, with
zooming and panning in between. Results: web_page.json.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import rasterio
from memory_limit import make_model
from rasterio.transform import from_origin

from skystill.api import export
from skystill.data.scenes import paint_scene
from skystill.model.file import open_session
from skystill.predict.web.browser import Browser, find_browser, open_browser
from skystill.predict.web.check import ISOLATED, served
from skystill.run_folder import write_json

ROWS, COLUMNS = 640, 1152  # the tile of the bundled model
MEGAPIXELS = ROWS * COLUMNS / 1e6
SIDES = {1: (1000, 1000), 4: (2000, 2000), 24: (4000, 6000), 100: (10000, 10000)}
TILE = f"""(async () => {{
    const [top, left, bottom, right] = [0, 0, {ROWS}, {COLUMNS}];
    const tile = {{ top, left, bottom, right, readTop: top, readLeft: left, readBottom: bottom, readRight: right }};
    return (await pool.workers[0].ask({{ planes: drawn, valid: null, tile, geo: null }})).ms;
}})()"""
POOLS = f"""(async () => {{
    const made = async (count, threads) => {{
        const one = Object.assign(new Pool(pool.url, pool.opening, count), {{ threads }});
        await one.open(count);
        return one;
    }};
    const cores = navigator.hardwareConcurrency;
    pools = {{ workers: await made(cores, 1), threads: await made(1, cores) }};
    timed = async ({{ workers }}, tiles) => {{
        const [top, left, bottom, right] = [0, 0, {ROWS}, {COLUMNS}];
        const tile = {{ top, left, bottom, right, readTop: top, readLeft: left, readBottom: bottom, readRight: right }};
        let waiting = tiles;
        const work = async (worker) => {{
            while (waiting-- > 0) await worker.ask({{ planes: drawn, valid: null, tile, geo: null }});
        }};
        const began = performance.now();
        await Promise.all(workers.map(work));
        return (performance.now() - began) / (tiles * {MEGAPIXELS});
    }};
    const opened = await Promise.all(Object.values(pools).map((one) => one.workers[0].ready));
    return [cores, ...opened.map(({{ threads }}) => threads)];
}})()"""
DRAWN = f"drawn = Uint8Array.from({{ length: 3 * {ROWS} * {COLUMNS} }}, () => 256 * Math.random()); 0"
MOVES = """(async () => {
    const frame = () => new Promise((next) => requestAnimationFrame(next));
    const times = [];
    const timed = async (move) => {
        const began = performance.now();
        move();
        view.paint();
        times.push(performance.now() - began);
        await frame();
    };
    view.zoom(8);
    for (let i = 0; i < 60; i++) await timed(() => view.pan(-7, -5));
    view.fit();
    for (let i = 0; i < 40; i++) await timed(() => view.zoom(1.1));
    await new Promise((next) => setTimeout(next, 3000));
    times.sort((a, b) => a - b);
    return [times[times.length >> 1], times.at(-1)];
})()"""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("speed", "threads", "memory"), default=None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megapixels", type=int, nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--out", type=Path, default=Path("runs/web_page"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    models = {name: make_model(chosen.out, name) for name in ("int8", "float")}
    found: dict[str, Any] = {}
    if chosen.part in (None, "speed"):
        found["speed"] = [measure_speed(chosen, name, model) for name, model in models.items()]
    if chosen.part in (None, "threads"):
        found["threads"] = measure_threads(chosen, models["int8"])
    if chosen.part in (None, "memory"):
        page = export(run=models["int8"], format="html", out=chosen.out / "int8.html")
        found["memory"] = [measure_memory(chosen.out, page, megapixels) for megapixels in chosen.megapixels]
    write_json(chosen.out / "web_page.json", found)


@contextmanager
def opened() -> Iterator[Browser]:
    """A fresh browser, in which workers are not watched: this takes time."""
    binary = find_browser()
    if binary is None:
        raise SystemExit("This needs Chromium or Chrome.")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        open_browser(binary, Path(folder), patience=1800) as browser,
    ):
        browser.call("Target.setAutoAttach", autoAttach=False, waitForDebuggerOnStart=False)
        yield browser


def renderers(browser: Browser) -> list[dict[str, Any]]:
    """Number and processor time of the processes of pages."""
    session, browser._session = browser._session, None
    try:
        told = browser.call("SystemInfo.getProcessInfo")["processInfo"]
    finally:
        browser._session = session
    return [one for one in told if one["type"] == "renderer"]


def measure_speed(chosen: argparse.Namespace, name: str, model: Path) -> dict[str, Any]:
    """Processor time of one tile in the page and in ONNX Runtime, in turn."""
    page = export(run=model, format="html", out=chosen.out / f"{name}.html")
    tile = np.random.default_rng(0).integers(0, 256, (1, 3, ROWS, COLUMNS), np.uint8)
    sessions = {threads: open_session(model, threads) for threads in (1, 2)}
    times: dict[str, list[float]] = {"page": [], "native": [], "native, 2 threads (clock)": []}
    with opened() as browser:
        browser.open(page)
        browser.run(DRAWN)
        for number in range(chosen.rounds + 1):
            own = [page_seconds(browser), native_seconds(sessions[1], tile)[0], native_seconds(sessions[2], tile)[1]]
            for key, value in zip(times, own, strict=True):
                times[key] += [1000 * value / MEGAPIXELS] * (number > 0)  # the first round warms up
    least = {key: round(min(values), 1) for key, values in times.items()}
    print(f"{name}: {least} ms per megapixel; page / native: {least['page'] / least['native']:.1f}", flush=True)
    return {"model": name, "rounds": times, "least": least}


def measure_threads(chosen: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Median time on the clock per megapixel: workers of one thread against one worker whose threads share memory."""
    folder = export(run=model, format="web", out=chosen.out / "web")
    times: dict[str, list[float]] = {}
    with served(folder, ISOLATED) as address, opened() as browser:
        browser.open(address)
        browser.run(DRAWN)
        cores, *threads = browser.run(POOLS)
        if threads != [1, cores]:
            raise SystemExit(f"{threads} threads were opened on {cores} cores.")
        for tiles in (1, 6):
            for number in range(chosen.rounds + 1):
                for name in ("workers", "threads"):
                    value = browser.run(f"timed(pools.{name}, {tiles})")
                    times.setdefault(f"{name}, {tiles} tiles", []).extend([value] * (number > 0))
    median = {key: round(statistics.median(values)) for key, values in times.items()}
    print(f"{cores} cores: {median} ms per megapixel", flush=True)
    return {"cores": cores, "rounds": times, "median": median}


def page_seconds(browser: Browser) -> float:
    """Processor time of the page's process for one tile."""
    before = sum(one["cpuTime"] for one in renderers(browser))
    browser.run(TILE)
    return float(sum(one["cpuTime"] for one in renderers(browser)) - before)


def native_seconds(session: ort.InferenceSession, tile: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Processor time and time on the clock for one tile."""
    cpu, clock = time.process_time(), time.perf_counter()
    session.run(None, {session.get_inputs()[0].name: tile})[0].argmax(axis=1)
    return time.process_time() - cpu, time.perf_counter() - clock


def measure_memory(folder: Path, page: Path, megapixels: int) -> dict[str, Any]:
    """Peak memory and longest task while an image is labelled, looked at and saved."""
    image = make_image(folder, *SIDES[megapixels])
    events: list[dict[str, Any]] = []
    with opened() as browser:
        note = browser._note

        def collect(message: dict[str, Any]) -> None:
            events.extend(message["params"]["value"] if message.get("method") == "Tracing.dataCollected" else [])
            note(message)

        browser._note = collect  # type: ignore[method-assign]
        browser.call("Tracing.start", traceConfig={"includedCategories": ["toplevel"], "excludedCategories": ["*"]})
        began = time.perf_counter()
        browser.open(page)
        opening, ready, began = time.perf_counter() - began, peak_mb(browser), time.perf_counter()
        if browser.label(image) != "done":
            raise SystemExit(browser.status)
        seconds, peak = time.perf_counter() - began, peak_mb(browser)
        frames = browser.run(MOVES)
        browser.save("save-png", f"{image.stem}-classes.png")
        polygons = time.perf_counter()
        browser.save("save-geojson", f"{image.stem}-classes.geojson")
        polygons = time.perf_counter() - polygons
        after = peak_mb(browser)
        browser.call("Tracing.end")
        while not events:
            browser.run("1")
        time.sleep(2)
        browser.run("1")
    found = {
        "megapixels": megapixels, "opening_seconds": round(opening, 1),
        "seconds": round(seconds, 1), "ready_mb": ready, "peak_mb": peak,
        "peak_mb_with_polygons": after, "polygons_seconds": round(polygons, 1), "longest_task_ms": longest_task(events),
        "frame_ms_median_and_longest": [round(one, 1) for one in frames],
    }  # fmt: skip
    print(found, flush=True)
    return found


def peak_mb(browser: Browser) -> int:
    """Largest resident memory of the page's process so far."""
    peaks = []
    for one in renderers(browser):
        lines = Path(f"/proc/{one['id']}/status").read_text().splitlines()
        peaks += [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return round(max(peaks) / 1024)


def longest_task(events: list[dict[str, Any]]) -> float:
    """Processor time in milliseconds of the longest task on the page's own thread."""
    names = {(one["pid"], one["tid"]): one["args"]["name"] for one in events if one["name"] == "thread_name"}
    tasks = [one["tdur"] for one in events if one["name"].endswith("RunTask") and "tdur" in one
             and names.get((one["pid"], one["tid"])) == "CrRendererMain"]  # fmt: skip
    return round(max(tasks) / 1000, 1)


def make_image(folder: Path, height: int, width: int) -> Path:
    """A tiled GeoTIFF of a procedural scene, repeated."""
    path = folder / f"{height}x{width}.tif"
    if path.exists():
        return path
    part = paint_scene(500, 5)[0].transpose(2, 0, 1)
    planes = np.tile(part, (1, -(-height // 500), -(-width // 500)))[:, :height, :width]
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=height, width=width, dtype="uint8", tiled=True, compress="deflate",
        photometric="rgb", crs="EPSG:32640", transform=from_origin(330000, 2790000, 0.5, 0.5),
    ) as file:  # fmt: skip
        file.write(planes)
    return path


if __name__ == "__main__":
    main()

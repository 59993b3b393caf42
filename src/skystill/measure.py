"""What a model file costs: latency and peak memory, each model in a process of its own.

`python -m skystill.measure MODEL` measures one file and prints JSON; `measure_models` runs that for several.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from skystill.errors import ModelFileError

_SIDE = 1024
_RUNS = 7


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far.

    On Linux this is VmHWM, which begins anew with the program; getrusage's figure is inherited from the parent.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))


def time_per_megapixel(
    run: Callable[[], object], pixels: int, runs: int = _RUNS, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Milliseconds per 10^6 pixels of each of `runs` calls, after two that warm up.

    Args:
        run: what to time; each call handles `pixels` pixels.
        pixels: of one call.
        runs: timed calls.
        clock: seconds; for tests.
    """
    run()
    run()
    times: list[float] = []
    for _ in range(runs):
        began = clock()
        run()
        times.append((clock() - began) * 1e3 / (pixels / 1e6))
    return times


def measure_here(path: Path) -> dict[str, Any]:
    """Measure one model file in this process, which should have done nothing else.

    Raises:
        ModelFileError: the file cannot be opened, or is not ours.
    """
    from skystill.model_file import open_session, read_info

    session = open_session(path)
    info = read_info(session, path)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, _SIDE, _SIDE), dtype=np.uint8)
    times = time_per_megapixel(lambda: session.run(None, {"image": image}), _SIDE**2)
    return {
        "size_bytes": path.stat().st_size,
        "network": info.network,
        "parameters": info.parameters,
        "multiply_adds_per_megapixel": info.multiply_adds_per_megapixel,
        "latency_ms_per_mp": statistics.median(times),
        "latency_spread_ms_per_mp": [min(times), max(times)],
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "peak_rss_bytes": peak_rss_bytes(),
        "tile_pixels": _SIDE**2,
    }


def measure_models(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Measure model files one after the other, each in its own process.

    Raises:
        ModelFileError: one of them cannot be measured.
    """
    results: list[dict[str, Any]] = []
    for path in paths:
        done = subprocess.run(
            [sys.executable, "-m", "skystill.measure", path], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ModelFileError(f"{path} could not be measured: {done.stderr.strip().splitlines()[-1]}")
        results.append(json.loads(done.stdout))
    return results


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_here(Path(sys.argv[1]))))

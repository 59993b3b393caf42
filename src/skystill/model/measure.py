"""What a model file costs: latency and peak memory, each model in a process of its own.

`python -m skystill.model.measure MODEL THREADS RUNTIME` measures one file and prints JSON; `measure_models` runs that.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from skystill.errors import ModelFileError
from skystill.progress import OnProgress, ignore_progress, tracked

_SIDE = 1024
_RUNS = 7


@dataclass(frozen=True)
class ModelCost:
    """What a model file costs in use, measured in a process of its own.

    Args:
        size_bytes: of the file.
        network: name of the network in the table.
        precision: "float32" or "int8".
        parameters: number of learnt values.
        multiply_adds_per_megapixel: for 10^6 pixels.
        latency_ms_per_mp: median time in milliseconds per 10^6 pixels.
        latency_spread_ms_per_mp: the shortest and the longest time.
        threads: that one call used.
        runtime: "onnxruntime" or "openvino".
        peak_rss_bytes: peak resident memory of the process.
        tile_pixels: pixels of the tile that was run.
    """

    size_bytes: int
    network: str
    precision: str
    parameters: int
    multiply_adds_per_megapixel: int
    latency_ms_per_mp: float
    latency_spread_ms_per_mp: tuple[float, float]
    threads: int
    runtime: str
    peak_rss_bytes: int
    tile_pixels: int


@dataclass(frozen=True)
class ComparedCost(ModelCost):
    """What a model file costs on all threads and on one.

    Args:
        path: the file.
        latency_ms_per_mp_1_thread, latency_spread_ms_per_mp_1_thread: the same on one thread.
        peak_fraction: part of the machine's peak that the file reaches: its multiply-adds per second over those of a
            large float32 matrix product, measured here on all threads. An INT8 file can pass 1.
    """

    path: str
    latency_ms_per_mp_1_thread: float
    latency_spread_ms_per_mp_1_thread: tuple[float, float]
    peak_fraction: float


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


def measure_here(path: Path, threads: int = 0, runtime: str = "onnxruntime") -> ModelCost:
    """Measure one model file in this process, which should have done nothing else.

    Args:
        path: the file.
        threads: 0 for all cores.
        runtime: onnxruntime or openvino.

    Raises:
        ModelFileError: the file cannot be opened, or is not ours.
        SettingsError: the runtime is not installed.
    """
    from skystill.model.engine import open_engine

    engine = open_engine(path, threads, runtime)
    infer, info = engine.infer, engine.info
    planes = np.random.default_rng(0).integers(0, 256, (3, _SIDE, _SIDE), dtype=np.uint8)
    times = time_per_megapixel(lambda: infer(planes), _SIDE**2)
    return ModelCost(
        size_bytes=path.stat().st_size,
        network=info.network,
        precision=info.precision,
        parameters=info.parameters,
        multiply_adds_per_megapixel=info.multiply_adds_per_megapixel,
        latency_ms_per_mp=statistics.median(times),
        latency_spread_ms_per_mp=(min(times), max(times)),
        threads=threads or cores(),
        runtime=runtime,
        peak_rss_bytes=peak_rss_bytes(),
        tile_pixels=_SIDE**2,
    )


def measure_models(paths: Sequence[Path], threads: int = 0, runtime: str = "onnxruntime") -> list[ModelCost]:
    """Measure model files one after the other, each in its own process.

    Raises:
        ModelFileError: one of them cannot be measured.
    """
    found = []
    for path in paths:
        values = _in_process(str(path), str(threads), runtime, about=str(path))
        low, high = values.pop("latency_spread_ms_per_mp")
        found.append(ModelCost(**values, latency_spread_ms_per_mp=(low, high)))
    return found


def compare_models(
    paths: Sequence[Path], runtime: str = "onnxruntime", on_progress: OnProgress = ignore_progress
) -> list[ComparedCost]:
    """Measure model files on one thread and on all.

    Raises:
        ModelFileError: one of them cannot be measured.
    """
    peak = _in_process("peak", about="the machine's peak")["multiply_adds_per_second"]
    found = []
    for path in tracked(paths, "measuring", on_progress):
        one, every = (measure_models([path], threads, runtime)[0] for threads in (1, 0))
        rate = every.multiply_adds_per_megapixel / (every.latency_ms_per_mp / 1e3)
        found.append(
            ComparedCost(
                **asdict(every),
                path=str(path),
                latency_ms_per_mp_1_thread=one.latency_ms_per_mp,
                latency_spread_ms_per_mp_1_thread=one.latency_spread_ms_per_mp,
                peak_fraction=rate / peak,
            )
        )
    return found


def measure_peak() -> dict[str, float]:
    """Multiply-adds a second of a float32 matrix product of 2048 x 2048 on all threads: the best of five."""
    side = 2048
    one = np.random.default_rng(0).random((side, side), np.float32)
    seconds = min(time_per_megapixel(lambda: one @ one, 1_000_000, runs=5)) / 1e3
    return {"multiply_adds_per_second": side**3 / seconds}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_process(*arguments: str, about: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "skystill.model.measure", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it was killed"]
        raise ModelFileError(f"{about} could not be measured: {lines[-1]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    if sys.argv[1] == "peak":
        sys.stdout.write(json.dumps(measure_peak()))
    else:
        sys.stdout.write(json.dumps(asdict(measure_here(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))))

"""Measure latency and peak memory of model files, each in a process of its own.

`python -m skystill.model.measure MODEL THREADS RUNTIME` measures one file and prints JSON. `measure_models` calls it.
"""

import contextlib
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

from skystill.environment import number_in_environment
from skystill.errors import ModelFileError
from skystill.model.external import model_bytes
from skystill.model.trial_images import random_image
from skystill.progress import OnProgress, ignore_progress, phase, tracked

SIDE = "SKYSTILL_MEASURED_SIDE"
"""Environment variable with another side in pixels of the image that models are timed on. Small images say little of
large ones: it is for tests, which look at what becomes of the figures, and not at the figures."""
_SIDE = 1024
_RUNS = 7


@dataclass(frozen=True)
class ModelCost:
    """Size, latency and memory of a model file, measured in a process of its own.

    Args:
        size_bytes: size of the file.
        network: name of the network in the table of sizes.
        precision: "float32" or "int8".
        parameters: number of learnt values.
        multiply_adds_per_megapixel: multiply-adds for 10^6 pixels of input.
        latency_ms_per_mp: median time in milliseconds per 10^6 pixels.
        latency_spread_ms_per_mp: shortest and longest time in milliseconds per 10^6 pixels.
        threads: number of threads that one call used.
        runtime: "onnxruntime" or "openvino".
        peak_rss_bytes: peak resident memory of the process.
        tile_pixels: number of pixels of the tile that was run.
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
    """Size, latency and memory of a model file on all threads, and its latency on one thread.

    Args:
        path: the model file.
        latency_ms_per_mp_1_thread, latency_spread_ms_per_mp_1_thread: `latency_ms_per_mp` and
            `latency_spread_ms_per_mp` on one thread.
        peak_fraction: fraction of the machine's peak rate that the file reaches. This is its multiply-adds per second,
            divided by those of a large float32 matrix product on the same machine, both on all threads. It can exceed
            1 for an INT8 file.
    """

    path: str
    latency_ms_per_mp_1_thread: float
    latency_spread_ms_per_mp_1_thread: tuple[float, float]
    peak_fraction: float


def peak_rss_bytes() -> int:
    """Return the peak resident memory of this process so far, in bytes.

    On Linux this is VmHWM, which starts anew with each program; the figure of getrusage is inherited from the parent
    process. On a system that reports no peak, it is the current resident memory.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))


def reset_peak_rss() -> None:
    """Begin to measure the peak resident memory of this process anew, on Linux. Elsewhere this does nothing."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def time_per_megapixel(
    infer: Callable[[], object], pixels: int, runs: int = _RUNS, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the milliseconds per 10^6 pixels of each of `runs` calls, after two warm-up calls.

    Args:
        infer: the function to time.
        pixels: number of pixels that one call processes.
        runs: number of calls that are timed.
        clock: returns the time in seconds; tests give a fake clock.
    """
    infer()
    infer()
    times: list[float] = []
    for _ in range(runs):
        began = clock()
        infer()
        times.append((clock() - began) * 1e3 / (pixels / 1e6))
    return times


def measure_here(path: Path, threads: int = 0, runtime: str = "onnxruntime") -> ModelCost:
    """Measure one model file in this process.

    The process should have done nothing else before, because the peak memory is that of the whole process.

    Args:
        path: the model file.
        threads: number of threads that one call uses; 0 uses all cores.
        runtime: onnxruntime or openvino.

    Raises:
        ModelFileError: the file cannot be opened, or SkyStill did not export it.
        SettingsError: the runtime is not installed.
    """
    from skystill.model.engine import open_engine

    engine = open_engine(path, threads, runtime)
    infer, info = engine.infer, engine.info
    side = measured_side()
    planes = random_image(info.input_spec, side, side)
    times = time_per_megapixel(lambda: infer(planes), side**2)
    return ModelCost(
        size_bytes=model_bytes(path),
        network=info.network,
        precision=info.precision,
        parameters=info.parameters,
        multiply_adds_per_megapixel=info.multiply_adds_per_megapixel,
        latency_ms_per_mp=statistics.median(times),
        latency_spread_ms_per_mp=(min(times), max(times)),
        threads=threads or cores(),
        runtime=runtime,
        peak_rss_bytes=peak_rss_bytes(),
        tile_pixels=side**2,
    )


def measured_side() -> int:
    """Return the side in pixels of the image that models are timed on.

    Raises:
        SettingsError: the environment variable holds something else than a number from 32 to 8192.
    """
    return int(number_in_environment(SIDE, _SIDE, "a number from 32 to 8192", 32, 8192))


def measure_models(paths: Sequence[Path], threads: int = 0, runtime: str = "onnxruntime") -> list[ModelCost]:
    """Measure model files one after the other, each in a process of its own.

    Args:
        paths: the model files.
        threads: number of threads that one call uses; 0 uses all cores.
        runtime: onnxruntime or openvino.

    Raises:
        ModelFileError: one of the files cannot be measured.
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
    """Measure model files on one thread and on all threads.

    Args:
        paths: the model files.
        runtime: onnxruntime or openvino.
        on_progress: called with a `Progress` after each file.

    Raises:
        ModelFileError: one of the files cannot be measured.
    """
    with phase("measuring the peak rate of this computer", on_progress, None):
        peak = _in_process("peak", about="the machine's peak")["multiply_adds_per_second"]
    found = []
    for path in tracked(paths, "measuring time and memory", on_progress, leaves_line=True):
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
    """Return the multiply-adds per second of a float32 product of two 2048 x 2048 matrices on all threads.

    It is the best of five. With a smaller `measured_side`, the matrices are smaller, too.
    """
    side = 2 * measured_side()
    one = np.random.default_rng(0).random((side, side), np.float32)
    seconds = min(time_per_megapixel(lambda: one @ one, 1_000_000, runs=5)) / 1e3
    return {"multiply_adds_per_second": side**3 / seconds}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_process(*arguments: str, about: str) -> dict[str, Any]:
    # -P: a script of the user's own in the current folder, such as statistics.py, is not imported.
    command = [sys.executable, "-P", "-m", "skystill.model.measure", *arguments]
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

"""What runs in the process of `skystill.model.trial`: open a model file under a limit, and run it on made-up images.

It imports nothing of SkyStill, so that it starts fast. Arguments: the file, the limit in bytes, the number of bands or
0. Its exit code is 0 if the file was run, or if what opens it will say why it fails; 3 if memory was refused; and 4 if
it is SkyStill's own by its metadata, and runs on no image.

After each image that was run, it prints the number of values of the image, and the bytes that the call took. Where the
file takes images of any size, the second image is larger, so that memory that grows with the image is seen.
"""

import contextlib
import itertools
import os
import sys
from typing import Any

TOO_LARGE, RUNS_NOT = 3, 4
_OWN = "skystill_version"  # a key of the metadata
_REFUSED = (
    "alloc", "not enough memory", "out of memory", "exceeds the supported", "require more than", "integer overflow",
    "safeint", "length_error", "vector::", "array is too big",
)  # fmt: skip
"""Parts of messages of ONNX Runtime, in lower case, of memory that it did not get or that no machine has."""
_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(int16)": "int16",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
_SIDES = ((131, 97), (130, 98), (132, 100), (136, 104), (144, 112), (160, 96), (192, 64), (384, 128))
"""Rows and columns that are tried, in this order: multiples of 1, 2, 4 and so on up to 128."""
_LARGER = 4
_MOST_PIXELS = 2**18  # of the larger image: what it takes says enough of a tile of two to three times as many

Shape = tuple[int, ...]


def limit_memory(most: int) -> None:
    """Limit the address space of this process, where the system can."""
    try:
        import resource
    except ImportError:  # on Windows only time is limited
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def shapes(declared: list[object], bands: int) -> list[tuple[Shape, Shape]]:
    """Return the shapes of images that are tried, each with that of a larger one: what the file declares, filled in.

    Both are the same if the size is fixed.
    """
    fixed = [side if isinstance(side, int) and side > 0 else None for side in declared]
    found = []
    for (rows, columns), channels in itertools.product(_SIDES, dict.fromkeys((bands or 3, 3, 1, 4))):
        times = _LARGER if rows * columns * _LARGER**2 <= _MOST_PIXELS else 2
        for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
            small, large = (1, channels, rows, columns), (1, channels, times * rows, times * columns)
            found.append(tuple(_filled(fixed, [guess[axis] for axis in order]) for guess in (small, large)))
    return list(dict.fromkeys((small, large) for small, large in found))


def _filled(fixed: list[int | None], guess: list[int]) -> Shape:
    return tuple(own or other for own, other in zip(fixed, guess, strict=True))


class RunsNotError(Exception):
    """A file of SkyStill's own that runs on no image. Its metadata are enough to open it, and then it is run."""


def run(path: str, bands: int, most: int) -> None:
    """Open a file and run it until one image gives an answer. Raises what ONNX Runtime raises on the last."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = min(4, os.cpu_count() or 1)
    options.log_severity_level = 4
    options.enable_mem_pattern = False  # as in `open_session`, and so is the arena: it takes what that takes
    arena = [{"arena_extend_strategy": "kSameAsRequested"}]
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"], provider_options=arena)
    taken = session.get_inputs()
    if len(taken) != 1 or len(taken[0].shape) != 4 or taken[0].type not in _TYPES:
        return  # opening it says what is wrong
    failure: Any = None
    for small, large in shapes(taken[0].shape, bands):
        try:
            _call(session, small)
        except Exception as error:
            if is_refused(error):
                raise
            failure = error
            continue
        if small != large:
            _run_larger(session, large, most)
        return
    if failure is not None and _OWN in session.get_modelmeta().custom_metadata_map:
        raise RunsNotError(str(failure)) from failure
    if failure is not None:
        raise failure


def _run_larger(session: Any, shape: Shape, most: int) -> None:  # noqa: ANN401 - onnxruntime carries no types
    """Run the larger image. If memory is refused, the file may still be used, but on smaller images only."""
    try:
        _call(session, shape)
    except Exception as error:  # noqa: BLE001 - all others are left to what runs the file
        if is_refused(error):
            _say(shape, 2 * most)  # it would have been more, and nobody knows how much


def _call(session: Any, shape: Shape) -> None:  # noqa: ANN401
    import numpy as np

    taken = session.get_inputs()[0]
    # Noise: in zeros, a file that picks pixels by their values would find none.
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8).astype(_TYPES[taken.type])
    before = _reset_peak()
    session.run([session.get_outputs()[0].name], {taken.name: image})
    if before is not None:
        _say(shape, max(0, (_status("VmHWM") or 0) - before))


def _say(shape: Shape, taken: int) -> None:
    import math

    print(math.prod(shape), taken, flush=True)  # noqa: T201


def _reset_peak() -> int | None:
    """Begin to measure the peak memory anew, and return the memory now; None where the system does not say it."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):  # free pages of the heap would hide what a call takes
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return _status("VmRSS")


def _status(name: str) -> int | None:
    """Return a figure in bytes from what Linux says of this process, or None on another system."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status", encoding="ascii") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith(name)), None)
    return None


def is_refused(error: BaseException) -> bool:
    """Whether an error says that memory was refused."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _REFUSED)


def main() -> int:
    """Run the trial that the arguments describe, and return the exit code."""
    path, most, bands = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    limit_memory(most)
    try:
        run(path, bands, most)
    except Exception as error:  # noqa: BLE001 - all others are left to what opens the file
        if is_refused(error) or isinstance(error, RunsNotError):
            sys.stderr.write((str(error).strip() or type(error).__name__).splitlines()[0])
            return RUNS_NOT if isinstance(error, RunsNotError) else TOO_LARGE
    return 0


if __name__ == "__main__":
    sys.exit(main())

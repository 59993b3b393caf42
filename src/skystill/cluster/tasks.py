"""What a worker does: each function is one task of Dask. They return small records, and raise nothing of SkyStill.

A worker has one open model and one pool of threads. If Dask gives it several tasks at the same time, they take turns,
and each of them has all its threads.
"""

import functools
import hashlib
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import rasterio
from rasterio._err import CPLE_BaseError  # GDAL's own errors, which rasterio does not always wrap

from skystill.cluster.orders import Fence, Stale, leave_sign, model_of, read_order
from skystill.errors import ClusterError, DamagedSource, DataError, InUse, SkystillError, UserError, first_few
from skystill.predict.batch import (
    PredictedInput,
    as_failure,
    images_at_a_time,
    is_small,
    open_predictor,
    predict_one,
)
from skystill.predict.further import check_one
from skystill.predict.pieces import begin_raster, compute_units, join_units
from skystill.predict.predictor import Predictor
from skystill.predict.several import run_in_order
from skystill.progress import ignore_progress
from skystill.raster.opening import is_plain, open_raster
from skystill.raster.source import gdal_environment
from skystill.raster.source_states import source_states
from skystill.settings import PredictSettings
from skystill.tiling import Unit

Item = tuple[int, str, str]
"""Number of an input in the manifest, the input, and the path of its result."""

_IN_USE_SECONDS = 300.0  # a worker whose command was killed may still be writing the same result
_MOST_TEXT = 2000
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Outcome:
    """What became of an input or a piece of it.

    Args:
        number: number of the input, or of the piece.
        kind: "done", "large" for an input that is to be cut into pieces, "later" for one that was not begun, "failed".
        pixels, size, digest, seconds: as in `Done`.
        host: the worker.
        units: number of units of a large raster.
        missing: first unit and the one after the last of each stretch of units that were not computed.
        one: what became of the first of them, which was computed: its time tells how to cut the others.
        source_state, target_state: results of `source_state` and `file_state`, so that a change is found.
        error: why it failed; or what of the source could not be read, if it is done.
        ours: whether a failure is a fault of SkyStill.
        about: the result, for the caller of the command.
    """

    number: int
    kind: str
    pixels: int = 0
    size: int = 0
    digest: str = ""
    seconds: float = 0.0
    host: str = ""
    units: int = 0
    missing: tuple[tuple[int, int], ...] = ()
    one: "Outcome | None" = None
    source_state: str = ""
    target_state: str = ""
    error: str | None = None
    ours: bool = False
    about: PredictedInput | None = None


@dataclass(frozen=True)
class Fatal:
    """Why nothing can go on: this worker cannot be used, or the model file is at fault."""

    text: str


@dataclass(frozen=True)
class Ended:
    """A task whose command has ended, or whose worker does not see what the command wrote.

    Args:
        host: the worker.
    """

    host: str


@dataclass(frozen=True)
class Crashed:
    """A task that ended in a way that SkyStill does not expect.

    Args:
        text: kind and message of the exception.
    """

    text: str


def reporting(work: Callable[P, R]) -> "Callable[P, R | Fatal | Ended | Crashed]":
    """Let no exception go to the scheduler: not all of them can be pickled, and the message is enough.

    A command whose Dask cannot unpickle one would wait for it for ever.
    """

    @functools.wraps(work)
    def run(*arguments: P.args, **keywords: P.kwargs) -> "R | Fatal | Ended | Crashed":
        try:
            return work(*arguments, **keywords)
        except Stale:
            return Ended(socket.gethostname())
        except ImportError as error:
            return Fatal(f"the worker on {socket.gethostname()} lacks a package: {error}. Install it there.")
        except SkystillError as error:
            return Fatal(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the command hears of it
            return Crashed(f"{type(error).__name__}: {shortened_text(str(error))}")

    return run


def in_turn(work: Callable[P, R]) -> Callable[P, R]:
    """Let the tasks of a worker take turns."""

    @functools.wraps(work)
    def run(*arguments: P.args, **keywords: P.kwargs) -> R:
        with _ONE_AT_A_TIME:
            return work(*arguments, **keywords)

    return run


_ONE_AT_A_TIME, _ONE_JOIN, _OPENING = threading.Lock(), threading.Lock(), threading.Lock()


@reporting
def look_around(folder: str, token: str, source: str | None, dask_worker: Any = None) -> str:  # noqa: ANN401 - of Dask
    """Check that this worker has the right versions, and sees the output, the model and the first input.

    Returns:
        the address of the worker. It has left a file in the folder that says so.
    """
    order = read_order(Path(folder), token)
    model_of(order)
    if source is not None and not os.path.lexists(source):
        raise ClusterError(_unseen(source))
    leave_sign(Path(folder), token, str(dask_worker.address))
    return str(dask_worker.address)


@reporting
@in_turn
def predict_inputs_of(
    folder: str, token: str, items: Sequence[Item], most_pixels: int, budget_seconds: float
) -> list[Outcome]:
    """Predict inputs one after the other, and begin those that are larger than `most_pixels`.

    After `budget_seconds` no other is begun: it is left for later.
    """
    predictor, settings = _opened(folder, token)
    fence, began = Fence(folder, token), time.monotonic()

    def run(item: Item) -> Outcome:
        if time.monotonic() - began > budget_seconds:
            return Outcome(item[0], "later")
        fence()
        return _predict_or_begin(predictor, settings, fence, item, most_pixels)

    def small(item: Item) -> bool:
        return is_small(predictor, (item[1], Path(item[2])))

    at_a_time = images_at_a_time(settings, len(items))
    return [_outcome(item, found) for item, found in run_in_order(items, run, small, at_a_time)]


@reporting
@in_turn
def compute_piece(folder: str, token: str, item: Item, first: int, last: int) -> Outcome:
    """Compute units of a large raster, and write their entries into its journal."""
    predictor, settings = _opened(folder, token)
    try:
        return _computed(predictor, settings, Fence(folder, token), item, range(first, last))
    except Exception as error:  # noqa: BLE001 - whatever one input raises, the others are predicted
        return _outcome(item, error)


def _computed(
    predictor: Predictor, settings: PredictSettings, fence: Fence, item: Item, units: Sequence[int]
) -> Outcome:
    number, source, target = item
    began, size, pixels, digest = time.monotonic(), 0, 0, hashlib.sha256()

    def on_unit(unit: Unit, content: bytes) -> None:
        nonlocal size, pixels
        if not content:
            fence()
            return
        size += len(content)
        pixels += (unit.bottom - unit.top) * (unit.right - unit.left)
        digest.update(content)

    compute_units(predictor, source, Path(target), settings.for_raster(), units, on_unit)
    seconds = time.monotonic() - began
    return Outcome(number, "done", pixels, size, digest.hexdigest(), seconds, socket.gethostname())


@reporting
def join_pieces(folder: str, token: str, item: Item) -> Outcome:
    """Write the units of a large raster into its rasters while other tasks compute them, as one machine does.

    It leaves its slot to another task of this worker. It mostly waits: its seconds are those of the processor.
    """
    from distributed import secede

    secede()
    with _ONE_JOIN:
        began, fence = time.thread_time(), Fence(folder, token)
        predictor, settings = _opened(folder, token)
        number, source, target = item
        try:
            found = _patiently(lambda: join_units(predictor, source, Path(target), settings.for_raster(), fence))
        except Exception as error:  # noqa: BLE001 - whatever one input raises, the others are predicted
            return _outcome(item, error)
        size, digest = 0, hashlib.sha256()
        for path in found:
            size += path.stat().st_size
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        seconds = time.thread_time() - began
        return Outcome(number, "done", 0, size, digest.hexdigest(), seconds, socket.gethostname())


@reporting
@in_turn
def write_files(folder: str, token: str, item: Item) -> Outcome:
    """Write the results of a large raster whose units are all computed."""
    predictor, settings = _opened(folder, token)
    try:
        return _predicted(predictor, settings, Fence(folder, token), item)
    except Exception as error:  # noqa: BLE001 - whatever one input raises, the others are predicted
        return _outcome(item, error)


@reporting
@in_turn
def measure_rate(folder: str, token: str, source: str) -> tuple[float, float, int]:
    """Predict one window of a raster. Returns seconds, bytes of its entry, and its pixels."""
    from skystill.predict.ahead import measure_window

    predictor, settings = _opened(folder, token)
    return measure_window(predictor, source, settings)


def _predict_or_begin(
    predictor: Predictor, settings: PredictSettings, fence: Fence, item: Item, most_pixels: int
) -> Outcome:
    number, source, target = item
    if is_plain(source) and Path(source).is_absolute() and not os.path.lexists(source):
        raise DataError(_unseen(source))
    try:
        with gdal_environment(), open_raster(source) as file:
            pixels = int(file.height) * int(file.width)
    except (rasterio.errors.RasterioError, CPLE_BaseError, OSError):
        pixels = 0  # the prediction reports it
    if pixels <= most_pixels:
        return _predicted(predictor, settings, fence, item)
    further = check_one(predictor, settings, ignore_progress, (source, Path(target)))
    begun = _patiently(lambda: begin_raster(predictor, source, Path(target), settings.for_raster(), further.files()))
    if begun.units == 1:
        return _predicted(predictor, settings, fence, item)
    one = _computed(predictor, settings, fence, item, begun.missing[:1]) if begun.missing else None
    stretches = tuple(_stretches(begun.missing))
    return Outcome(number, "large", begun.pixels, units=begun.units, missing=stretches, one=one)


def _predicted(predictor: Predictor, settings: PredictSettings, fence: Fence, item: Item) -> Outcome:
    number, source, target = item
    state, began = source_state(source), time.monotonic()
    found = _patiently(lambda: predict_one(predictor, settings, True, fence, (source, Path(target))))
    seconds = time.monotonic() - began
    prediction = found.prediction
    error = None
    if prediction.damaged:
        error = str(DamagedSource(source, Path(target), prediction.damaged))[:_MOST_TEXT]
        found = replace(found, prediction=replace(prediction, damaged=tuple(first_few(prediction.damaged))))
    with open(target, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Outcome(
        number, "done", prediction.pixels, Path(target).stat().st_size, digest, seconds, socket.gethostname(),
        source_state=state, target_state=file_state(target), error=error, about=found,
    )  # fmt: skip


def source_state(source: str) -> str:
    """Return a digest of size and time of all files of a raster, such as a world file, by which a change is found.

    Of a raster on a server, it is what the server says of it, which takes one request. Overviews are left out: somebody
    may make them, and they change no result.
    """
    return source_states(source, overviews=False).shared_digest


def file_state(name: str) -> str:
    """Return size and time of a local file, or nothing of any other name."""
    try:
        found = os.stat(name)  # noqa: PTH116 - a name of GDAL may be no path
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def _outcome(item: Item, found: Outcome | Exception) -> Outcome:
    """Return the outcome of an input, also of what it raised."""
    if isinstance(found, Outcome):
        return found
    if isinstance(found, Stale | ImportError):
        raise found
    failure = as_failure(item[1], found)
    text = shortened_text(str(failure))
    return Outcome(item[0], "failed", host=socket.gethostname(), error=text, ours=not isinstance(failure, UserError))


def shortened_text(text: str) -> str:
    """Return a message that may have several lines, but no more than some."""
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 4] + " ..."


def _stretches(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first index, and the one after the last, of each stretch without a gap."""
    first = 0
    for place in range(1, len(indices) + 1):
        if place == len(indices) or indices[place] != indices[place - 1] + 1:
            yield indices[first], indices[place - 1] + 1
            first = place


def _unseen(source: str) -> str:
    return (
        f"the worker on {socket.gethostname()} does not see {source}. Workers need the inputs under the same paths as "
        "this command: on a disk that they share, or as a URL or a name of GDAL that they can open."
    )


def _opened(folder: str, token: str) -> tuple[Predictor, PredictSettings]:
    """Return the one open model of this worker, and the settings with the number of its threads."""
    with _OPENING:
        return _opened_once(folder, token)


@functools.lru_cache(maxsize=1)
def _opened_once(folder: str, token: str) -> tuple[Predictor, PredictSettings]:
    from distributed import get_worker

    warnings.simplefilter("ignore")  # as the command line does: what matters is told as a note
    order = read_order(Path(folder), token)
    threads = order.settings.threads or int(get_worker().state.nthreads)
    settings = order.settings.model_copy(update={"threads": threads, "model": model_of(order)})
    return open_predictor(settings), settings


def _patiently(work: Callable[[], R]) -> R:
    """Do what another process may still be in the way of: a worker whose command was killed."""
    until = time.monotonic() + _IN_USE_SECONDS
    while True:
        try:
            return work()
        except InUse:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)

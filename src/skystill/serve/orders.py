"""One image of a request: looked at, predicted, and thrown away. All of this runs in threads of their own."""

import contextlib
import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from skystill.errors import DataError, SkystillError
from skystill.predict.batch import as_failure, predict_one
from skystill.predict.opening import open_source
from skystill.predict.predictor import Predictor
from skystill.progress import Event, Progress
from skystill.raster.around import Limits, too_much_around
from skystill.raster.opening import LISTING, NOTHING_BESIDE, open_raster
from skystill.raster.refusals import refuse_unreadable
from skystill.raster.source import gdal_environment, is_georeferenced
from skystill.serve.bodies import check_room
from skystill.serve.kinds import Form, Kind, default_form, source_name
from skystill.serve.parameters import Wanted, result_path
from skystill.serve.problems import Problem

_AROUND = Limits(64 * 2**10, 4 * 2**20, 200_000, 64, behind_pixels=True)
"""What may stand around the pixels: less than in files on a disk, because anybody may send much of it at once."""
DECODER_BYTES = 256 * 2**20
"""Most memory that decoding one image may take besides GDAL's cache: for a block, or for a file that is held whole."""
MOST_BANDS = 256
_NARROW = 4
"""An image may have this many times the tiles of a square image of the most pixels: each takes time, however small."""
_LEAST_TILES, _LEAST_BLOCKS, _BLOCK_PIXELS = 64, 2**16, 1024
"""Tiles and blocks that are always taken; of blocks, one more for each `_BLOCK_PIXELS` that an image may have. A block
that cannot be read takes 0.1 ms."""
_MOST_RESULT = 20
"""Most bytes of a result, with the work for it, for each pixel; 64 MiB more are always allowed."""
_ROOM_EVERY_SECONDS = 0.5
_LARGER_BLOCKS = "gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN OUT.tif"


class Cancelled(Exception):
    """A prediction that nobody waits for any more."""


@dataclass
class Result:
    """What was predicted.

    Args:
        path: the file.
        form: its form.
        pixels: number of pixels of the class raster.
        notes: how bands, bit depth and resolution were handled.
    """

    path: Path
    form: Form
    pixels: int
    notes: tuple[str, ...]


@dataclass
class Order:
    """An image and what is asked for.

    Args:
        folder: a folder of its own, which goes with it.
        kind: the kind of image.
        wanted: what is asked for.

    The others are filled in on the way: `form`, `megapixels` and whether the image is a single tile by `look_at`,
    `percent` by `carry_out`, and `work` by the lane that does it.
    """

    folder: Path
    kind: Kind
    wanted: Wanted
    is_cancelled: bool = False
    percent: int = 0
    form: Form | None = None
    megapixels: float = 0.0
    is_small: bool = False
    work: "Future[Any] | None" = None
    _room_at: float = field(default=0.0, repr=False)

    @property
    def source(self) -> Path:
        """The image."""
        return self.folder / source_name(self.kind)

    def release(self) -> None:
        """End the work, if there is any, and delete the folder as soon as it has ended."""
        self.is_cancelled = True
        if self.work is None or self.work.done() or self.work.cancel():
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self.work.add_done_callback(lambda _: shutil.rmtree(self.folder, ignore_errors=True))

    def on_progress(self, event: Event) -> None:
        """Take the event of a prediction, and end it if nobody waits for it or the disk becomes full."""
        if self.is_cancelled:
            raise Cancelled
        if time.monotonic() - self._room_at > _ROOM_EVERY_SECONDS:
            self._room_at = time.monotonic()
            self._check_room()
        if isinstance(event, Progress) and event.total > 0:
            done = event.done / event.total
            # 90 % for the network, the rest for smoothing, merging and polygons.
            step = int(90 * done) if event.unit == "pixels" else 90 + int(9 * done)
            self.percent = max(self.percent, min(step, 99))

    def _check_room(self) -> None:
        check_room(self.folder)
        size = 0
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                size += path.stat().st_size
        most = _MOST_RESULT * int(1e6 * self.megapixels) + 64 * 2**20 + self.source.stat().st_size
        if size > most:
            raise Problem(
                422, f"The result takes more than {most / 2**20:,.0f} MiB of the disk. Cut the image, or take fewer "
                "polygons: smooth, min_area, simplify.",
            )  # fmt: skip


def look_at(order: Order, predictor: Predictor, most_megapixels: float) -> None:
    """Open the image, without decoding it, and fill in what is to be known of it.

    Args:
        order: the image.
        predictor: the model.
        most_megapixels: most pixels of the image and of its result, in millions.

    Raises:
        Problem: it cannot be opened, or is too large.
    """
    with _apart(), gdal_environment(), _named():
        if reason := too_much_around(order.source, _AROUND):
            raise Problem(413, f"The image cannot be taken: {reason}")
        try:
            file = open_raster(order.source)
        except RasterioError as error:
            raise DataError(f"the image cannot be opened as {order.kind.name} ({error}).") from error
        with file:
            _check_header(order, file, predictor.info.tile_size, most_megapixels)
            order.form = order.wanted.form or default_form(is_georeferenced(file))
            order.megapixels = file.height * file.width / 1e6
            order.is_small = max(file.height, file.width) <= predictor.info.tile_size
        if order.wanted.values.get("resolution") is not None:
            _look_at_resampled(order, predictor, most_megapixels)


def carry_out(order: Order, predictor: Predictor) -> Result:
    """Predict the image.

    Args:
        order: the image, after `look_at`.
        predictor: the model.

    Raises:
        Problem: it cannot be predicted.
        Cancelled: nobody waits for it any more.
        SkystillError: an error of the service.
    """
    if order.form is None:
        raise ValueError("look_at comes first")
    target, path = result_path(order.folder / "out", order.form, order.wanted.confidence)
    with _apart(), _named():
        order.on_progress(Progress("image", 0, 1, "pixels"))
        done = predict_one(
            predictor, order.wanted.settings(order.form), False, order.on_progress, (str(order.source), target)
        )  # fmt: skip
        damaged = done.prediction.damaged
        if damaged:
            raise DataError(f"the image is damaged: {'; '.join(damaged[:3])} cannot be read. Send a whole copy.")
    order.source.unlink(missing_ok=True)
    return Result(path, order.form, done.prediction.pixels, done.prediction.notes)


def _check_header(order: Order, file: rasterio.DatasetReader, tile: int, most_megapixels: float) -> None:
    if file.driver not in order.kind.drivers:
        raise DataError(f"the image cannot be opened as {order.kind.name}, only as {file.driver}.")
    _check_size(file.width, file.height, tile, most_megapixels)
    _check_blocks(file, most_megapixels)
    if file.count > MOST_BANDS:
        raise Problem(
            413, f"The image has {file.count:,} bands; at most {MOST_BANDS} are taken. Leave out what is not fed."
        )
    held = refuse_unreadable(file, str(order.source))
    rows, columns = file.block_shapes[0] if file.count else (0, 0)
    pixel = sum(np.dtype(kind).itemsize for kind in file.dtypes)
    decoder = held + 3 * min(rows, file.height) * min(columns, file.width) * pixel
    if decoder > DECODER_BYTES:
        raise Problem(
            413, f"Decoding the image takes {decoder / 2**20:,.0f} MiB at once (its blocks have {columns} x {rows} "
            f"pixels); at most {DECODER_BYTES // 2**20} are taken. Write it as a tiled GeoTIFF: {_LARGER_BLOCKS}.",
        )  # fmt: skip


def _look_at_resampled(order: Order, predictor: Predictor, most_megapixels: float) -> None:
    settings = predictor.with_own_bands(order.wanted.settings(order.form or default_form(False)).for_raster())
    source = open_source(str(order.source), settings, predictor.info)
    with contextlib.closing(source):
        _check_size(source.width, source.height, predictor.info.tile_size, most_megapixels)
        order.is_small = order.is_small and max(source.height, source.width) <= predictor.info.tile_size
        order.megapixels = max(order.megapixels, source.height * source.width / 1e6)


def _check_size(width: int, height: int, tile: int, most: float) -> None:
    """Check pixels and tiles: an image of one column has few pixels, and a tile for every few hundred of them."""
    about = f"The image, or its result, has {width:,} x {height:,} pixels"
    if width * height > most * 1e6:
        raise Problem(
            413,
            f"{about}, {width * height / 1e6:,.1f} megapixels; at most {most:g} are taken. Cut it into smaller ones.",
        )
    tiles = math.ceil(width / tile) * math.ceil(height / tile)
    most_tiles = _LEAST_TILES + int(_NARROW * most * 1e6 / tile**2)
    if tiles > most_tiles:
        raise Problem(
            413, f"{about}, which are {tiles:,} tiles of {tile} x {tile}; at most {most_tiles:,} are taken. Cut it "
            "into shorter ones.",
        )  # fmt: skip


def _check_blocks(file: rasterio.DatasetReader, most_megapixels: float) -> None:
    rows, columns = file.block_shapes[0] if file.count else (file.height, file.width)
    blocks = math.ceil(file.height / rows) * math.ceil(file.width / columns)
    most = _LEAST_BLOCKS + int(most_megapixels * 1e6 / _BLOCK_PIXELS)
    if blocks > most:
        raise Problem(
            413, f"The image is stored in {blocks:,} blocks of {columns} x {rows} pixels; at most {most:,} are taken. "
            f"Write it with larger blocks: {_LARGER_BLOCKS}.",
        )  # fmt: skip


def _apart() -> rasterio.Env:
    """Return an environment of GDAL in which no file beside an image is looked for."""
    return rasterio.Env(**{LISTING: NOTHING_BESIDE})


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Turn whatever is raised into an error of SkyStill."""
    try:
        yield
    except (Cancelled, SkystillError):
        raise
    except Exception as error:
        raise as_failure("the image", error) from error

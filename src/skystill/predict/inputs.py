"""What `skystill predict` predicts, what each result is called, and the check that no result is an input."""

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from skystill.errors import DataError, SettingsError, first_few
from skystill.predict.layers import is_raster_name, written_rasters
from skystill.predict.predictor import Predictor
from skystill.raster.buckets import Found, bucket_address, find_in_bucket, is_bucket
from skystill.raster.listing import IMAGE_SUFFIXES, Listing, list_images, match_images
from skystill.raster.opening import open_raster, suffix_of
from skystill.raster.overwriting import check_outputs, check_replaced, source_files
from skystill.raster.source import gdal_environment, is_georeferenced
from skystill.raster.vector_names import check_vector_name
from skystill.settings import PredictSettings

_STAC = (".json", ".geojson")
LISTS = (".csv", ".parquet", ".geoparquet", *_STAC)
"""Extensions of files that list images: tables and STAC (`skystill.data.image_lists`)."""


@dataclass(frozen=True)
class FoundInputs:
    """The inputs of a command.

    Args:
        sources: each input once, with the folder below --out that its result goes to.
        notes: what was passed over: masks, and sub-folders without --recursive.
        dates: when an input was taken, if a list says it.
    """

    sources: dict[str, Path]
    notes: tuple[str, ...]
    dates: dict[str, datetime] = field(default_factory=dict)


def find_inputs(settings: PredictSettings) -> FoundInputs:
    """Replace folders, patterns and lists by the images in them, also in buckets. Other names of GDAL stay as they are.

    Args:
        settings: settings of the command.

    Raises:
        DataError: a folder, a pattern or a list has no images, or cannot be read.
        SettingsError: results would be written into a folder whose images are predicted; or no input is what
            --recursive or --asset is for.
    """
    finder = _Finder(settings)
    for name in settings.inputs:
        if Path(name).is_dir():
            finder.add_folder(Path(name))
        elif is_bucket(name) and (found := find_in_bucket(name, settings.recursive)):
            finder.add_bucket(name, found)
        elif suffix_of(name) in LISTS:
            finder.add_list(name)
        elif glob.has_magic(name) and not Path(name).exists() and "://" not in name:
            finder.add_pattern(name)
        else:
            finder.add(name, Path())
    if settings.recursive and not finder.searched:
        raise SettingsError("--recursive is for folders, patterns and lists, and no input is one; leave it out.")
    if settings.asset is not None and not any(suffix_of(name) in _STAC for name in settings.inputs):
        raise SettingsError("--asset is for lists in STAC, and no input is one; leave it out.")
    return FoundInputs(finder.sources, tuple(finder.notes), finder.dates)


class _Finder:
    """Collects inputs, each of them once."""

    def __init__(self, settings: PredictSettings) -> None:
        self._out, self._recursive, self._asset = settings.out, settings.recursive, settings.asset
        self._known: dict[str, str] = {}
        self.sources: dict[str, Path] = {}
        self.notes: list[str] = []
        self.dates: dict[str, datetime] = {}
        self.searched = False

    def add(self, source: str, below: Path) -> str:
        """Add an input, unless it is known. Returns the name under which it is."""
        folder, name = os.path.split(source)
        exists = os.path.lexists(source)  # otherwise it is a URL or another name of GDAL
        same = str(Path(os.path.realpath(folder), name)) if exists else source
        if same not in self._known:
            self._known[same] = source
            self.sources[source] = below
        return self._known[same]

    def add_folder(self, folder: Path) -> None:
        self._take(str(folder), [self._list(folder, folder)], folder)

    def add_pattern(self, pattern: str) -> None:
        matched, root = match_images(pattern)
        self._take(pattern, [matched, *(self._list(folder, root) for folder in matched.folders)], root)

    def add_bucket(self, name: str, found: Found) -> None:
        self._take(name, [found.listing], Path(), found.address)

    def add_list(self, name: str) -> None:
        from skystill.data.image_lists import read_image_list  # it loads what training needs

        self.searched = True
        for image in read_image_list(name, self._asset):
            source = self.add(image.source, image.below if self._recursive else Path())
            if image.date is not None and self.dates.setdefault(source, image.date) != image.date:
                dates = " and ".join(date.isoformat() for date in (self.dates[source], image.date))
                raise DataError(f"{name}: the image {source} has two dates, {dates}; keep one of them.")

    def _list(self, folder: Path, base: Path) -> Listing:
        listing = list_images(folder, self._recursive, base)
        for searched in dict.fromkeys([folder, *(path.parent for path in listing.images)]):
            self._check_outside(searched)
        return listing

    def _take(self, name: str, listings: list[Listing], base: Path, address: Callable[[Path], str] = str) -> None:
        self.searched = True
        images = [path for listing in listings for path in listing.images]
        passed_over = self._passed_over(listings)
        if not images:
            raise DataError(f"{name}: no images there ({', '.join(sorted(IMAGE_SUFFIXES))}).", passed_over)
        for path in images:
            self.add(address(path), path.parent.relative_to(base) if self._recursive else Path())
        self.notes.extend(f"{name}: {line}" for line in passed_over)

    def _passed_over(self, listings: list[Listing]) -> list[str]:
        masks = sum(len(listing.masks) for listing in listings)
        matched = {folder for listing in listings[1:] for folder in listings[0].folders}
        out = os.path.realpath(self._out)
        left = [f for listing in listings for f in listing.folders if f not in matched and os.path.realpath(f) != out]
        found = []
        if masks:
            found.append(f"{_count(masks, 'mask')} not predicted, by the words for masks in folders and file names.")
        if left:
            found.append(f"{_count(len(left), 'sub-folder')} not predicted; --recursive predicts the images there.")
        return found

    def _check_outside(self, folder: Path) -> None:
        """Refuse results in a folder that is searched: the next time, or with --resume, they would be inputs."""
        if is_raster_name(self._out):
            return
        out, searched = Path(os.path.realpath(self._out)), Path(os.path.realpath(folder))
        if out == searched or (self._recursive and out.is_relative_to(searched)):
            where = "is" if out == searched else "lies in"
            pattern = "" if self._recursive else f", or name the images by a pattern such as '{folder}/*.jpg'"
            raise SettingsError(
                f"--out {self._out} {where} the folder {folder}, whose images are predicted: results would be taken "
                f"for images the next time. Nothing was written; choose another --out{pattern}."
            )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} was" if number == 1 else f"{number:,} {noun}s were"


def name_targets(sources: dict[str, Path], settings: PredictSettings) -> list[tuple[str, Path]]:
    """Choose the path of each result.

    If --out names a file, it is the path of the result of the only input. Otherwise --out is a folder, and each result
    gets the name of its input there, in the sub-folder of `sources`.

    Args:
        sources: as in `FoundInputs`.
        settings: settings of the command.

    Returns:
        each input with the path of its result.

    Raises:
        SettingsError: --out is one file for several inputs, has an unknown extension, or two inputs would get the same
            path.
    """
    out = settings.out
    if is_one_file(settings):
        if len(sources) > 1:
            raise SettingsError(f"--out {out} is one file, and there are {len(sources)} inputs; give a folder.")
        return [(source, out) for source in sources]
    if len(sources) == 1 and out.suffix and not out.is_dir():
        raise SettingsError(f"--out {out}: name it .tif (GeoTIFF) or .png, or give a folder.")
    if settings.mosaic is not None:  # results of their own for a time: names that no two inputs share
        return [(s, out / f"{Path(s).stem}-{hashlib.sha256(os.fsencode(s)).hexdigest()[:16]}.tif") for s in sources]
    targets = [(s, out / below / (Path(s).stem + _suffix(s, settings))) for s, below in sources.items()]
    times = Counter(target for _, target in targets)
    twice = sorted(str(target.relative_to(out)) for target, count in times.items() if count > 1)
    if twice:
        raise SettingsError(
            f"several inputs would be written to {', '.join(first_few(twice))}; predict them into two folders."
        )
    return targets


def is_one_file(settings: PredictSettings) -> bool:
    """Return whether --out names a file, and not a folder."""
    return is_raster_name(settings.out)


def _suffix(source: str, settings: PredictSettings) -> str:
    """Return .png for an image without a position, and .tif for a georeferenced raster.

    A TIFF that cannot be opened now, and perhaps on a worker, gets .tif, which can hold a position.
    """
    if settings.cog:
        return ".tif"
    try:
        with gdal_environment(), open_raster(source) as file:
            return ".tif" if is_georeferenced(file) else ".png"
    except Exception:  # noqa: BLE001 - whatever one input raises, the others are predicted
        return ".tif" if suffix_of(source) in (".tif", ".tiff") else ".png"  # the prediction reports it in full


def side_files(target: Path, settings: PredictSettings) -> dict[str, Path]:
    """Return the files that are made from a class raster: areas, overlay and polygons, as far as they are wanted."""
    found = {}
    if settings.areas:
        found["areas"] = target.with_name(f"{target.stem}-areas.csv")
    if settings.overlay:
        found["overlay"] = target.with_name(f"{target.stem}-overlay.png")
    if settings.vector:
        found["polygons"] = target.with_suffix(f".{settings.vector}")
    return found


def possible_files(target: Path) -> tuple[Path, ...]:
    """Return every file that some settings write beside a class raster, in its folder."""
    ends = ("-confidence.tif", "-probabilities.tif", "-areas.csv", "-overlay.png", ".gpkg", ".geojson", ".stac.json")
    return tuple(target.with_name(target.stem + end) for end in ends)


def check_targets(
    targets: list[tuple[str, Path]],
    settings: PredictSettings,
    predictor: Predictor,
    further: Sequence[tuple[str, Path]] = (),
    read: Sequence[Path] = (),
) -> None:
    """Check all files that will be written, also those beside the class rasters, against all files that are read.

    Class rasters are also compared with the images that are there.

    Args:
        targets: result of `name_targets`.
        settings: settings of the command.
        predictor: the model.
        further: what else will be written, such as "STAC collection", and its path.
        read: what else is read.

    Raises:
        SettingsError: a file to write is an input, would be written twice or replace an image of the user, or has a
            name that cannot be written.
    """
    if bucket_address(settings.out) is not None:
        raise SettingsError(
            f"--out {settings.out} is in a bucket, where results are copied by skystill.api.predict_each."
        )
    outputs = list(further)
    inputs = [predictor.path, *read, *([Path(settings.classes)] if settings.classes else [])]
    inputs += [Path(name) for name in settings.inputs if suffix_of(name) in LISTS]
    for source, target in targets:
        inputs.extend(source_files(source))
        outputs.extend(written_rasters(source, target, settings, predictor.classes))
        outputs.extend((f"{what} of {source}", path) for what, path in side_files(target, settings).items())
    for _, path in outputs:
        if path.suffix == ".gpkg":
            check_vector_name(path)
    check_outputs(outputs, inputs)
    check_replaced(targets)

"""Catalogues: files that list images with their labels, in place of a folder. Tables here, STAC beside it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from skystill.data.parquet import read_parquet
from skystill.data.vector_files import DRIVERS
from skystill.errors import DataError, shortened
from skystill.parsing import read_csv
from skystill.raster.files import special_kind
from skystill.raster.listing import IMAGE_SUFFIXES, is_image_file
from skystill.raster.opening import is_plain

TABLES = (".csv", ".parquet", ".geoparquet")
STAC = (".json", ".geojson")
LABEL_COLUMNS = ("labels", "label")
PARTS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validate": "validation",
    "validation": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""The part that is meant by a text in a column `split`."""


@dataclass(frozen=True)
class Address:
    """Where a file is, as a catalogue says it.

    Args:
        text: a path, or an address.
        folder: folder to which a path is relative.
        is_escaped: whether a blank may be written as %20.
    """

    text: str
    folder: Path
    is_escaped: bool = False


@dataclass(frozen=True)
class Entry:
    """What a catalogue says about one image, before any file is looked at.

    Args:
        where: where it stands, for messages, such as "row 3".
        image, labels: where the files are.
        split: text of the column `split`; None if there is no such column.
    """

    where: str
    image: Address
    labels: Address
    split: str | None = None


@dataclass(frozen=True)
class Listed:
    """One image with its labels, which both exist.

    Args:
        image: the image.
        labels: a mask, or a vector file.
        subset: "train", "validation" or "test", or "" if the catalogue does not say it.
    """

    image: Path
    labels: Path
    subset: str

    @property
    def is_map(self) -> bool:
        """Whether the labels are features."""
        return self.labels.suffix.lower() in DRIVERS


def is_catalogue(path: Path) -> bool:
    """Return whether a path is that of a file with the extension of a catalogue."""
    return path.suffix.lower() in (*TABLES, *STAC) and not path.is_dir()


def folder_of(data: Path) -> Path:
    """Return the folder of a data set, in which its classes file is: that of its catalogue if it has one."""
    return data.parent if is_catalogue(data) else data


def read_catalogue(path: Path) -> tuple[list[Listed], list[str]]:
    """Read the images and labels that a catalogue lists.

    - A table, CSV or GeoParquet, has the columns `image` and `labels` (or `label`), and may have `split`.
    - STAC is an item, an item collection, such as a saved search, or a collection or catalogue with links to items.

    Args:
        path: the catalogue. Paths in it are relative to the file that they stand in.

    Returns:
        the images whose files exist, each once and in their order, and one line for each problem.

    Raises:
        DataError: the file cannot be read, lacks a column, or is no STAC.
        SettingsError: a Parquet file needs a package that is not installed.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file.", mend="Give a folder, or a catalogue (CSV, GeoParquet or STAC), with --data."
        )
    if path.suffix.lower() in STAC:
        from skystill.data.stac_items import read_stac

        entries, problems = read_stac(path)
    else:
        entries, problems = _read_table(path), []
    listed: list[Listed] = []
    known: dict[tuple[Address, Address, str | None], Listed] = {}  # the same row may be there a million times
    for entry in entries:
        row = (entry.image, entry.labels, entry.split)
        try:
            if row not in known:
                known[row] = _listed(entry)
        except DataError as error:
            problems.append(f"{path}, {entry.where}: {error}")
        else:
            listed.append(known[row])
    places = list(map(cache(Path.resolve), (one.image for one in listed)))
    problems += [f"{path}: {problem}" for problem in (*_twice(places), *_incomplete_split(entries, listed))]
    return list({place: one for place, one in zip(places[::-1], listed[::-1], strict=True)}.values())[::-1], problems


def _read_table(path: Path) -> list[Entry]:
    names, rows = read_table(path, ("image", *LABEL_COLUMNS, "split"), "image and labels")
    spelt = [name for name in LABEL_COLUMNS if name in names]
    if len(spelt) > 1:
        raise DataError(f"{path} has the columns {' and '.join(spelt)} twice over; keep one of each.")
    if "image" not in names or not spelt:
        raise DataError(
            f"{path} has the columns {shortened(', '.join(names))}; it needs image and labels (or label), "
            "in CSV separated by commas, and may have split."
        )
    image, labels = names.index("image"), names.index(spelt[0])
    split = names.index("split") if "split" in names else None
    entries, folder = [], path.parent
    for where, row in rows:
        part = None if split is None else row[split]
        files = [Address(row[at], folder) for at in (image, labels)]
        entries.append(Entry(where, files[0], files[1], part))
    return entries


def read_table(path: Path, columns: Sequence[str], needs: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Read a table in CSV or GeoParquet.

    Args:
        path: the table.
        columns: names of the columns that are looked for, in lower case.
        needs: the columns that it needs, for messages.

    Returns:
        the names of its columns in lower case, and each row that is not empty: where it stands, for messages, such as
        "row 3", and its cells without blanks around them.

    Raises:
        DataError: it cannot be read, is empty, has a column twice, or a row of another length.
        SettingsError: a Parquet file needs a package that is not installed.
    """

    def refuse(reason: str) -> DataError:
        return DataError(f"{path}: {reason}.")

    csv = path.suffix.lower() == ".csv"
    content = read_csv(path, refuse) if csv else read_parquet(path, set(columns), refuse)
    if not content:
        raise DataError(f"{path} is empty; it needs the columns {needs}.")
    names = [name.strip().lower() for name in content[0]]
    twice = [name for name in columns if names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has the columns {' and '.join(twice)} twice over; keep one of each.")
    rows = []
    for number, row in enumerate(content[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(names):
            raise DataError(f"{path}, row {number} has {len(row)} cells; its first row names {len(names)} columns.")
        rows.append((f"row {number}", [cell.strip() for cell in row]))
    return names, rows


def _listed(entry: Entry) -> Listed:
    """Find the files of an entry.

    Raises:
        DataError: one is not named, is not on this computer, does not exist, or is of another kind.
    """
    image, labels = local_file(entry.image, "image"), local_file(entry.labels, "labels")
    if not is_image_file(image):
        raise DataError(f"{image} is no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    if not is_image_file(labels) and labels.suffix.lower() not in DRIVERS:
        raise DataError(f"{labels} are no labels: a mask (as an image), or features ({', '.join(DRIVERS)}).")
    if image.resolve() == labels.resolve():
        raise DataError(f"{image} is both the image and its labels.")
    part = PARTS.get((entry.split or "").lower())
    if entry.split and part is None:
        raise DataError(f"its split is {shortened(entry.split, 60)}; write train, validation or test.")
    return Listed(image, labels, part or "")


def local_file(address: Address, what: str) -> Path:
    """Return the file on this computer that an address means.

    Args:
        address: where it is: a path, or an address that begins with file://.
        what: what it is, for messages.

    Raises:
        DataError: there is no such file, or it is on a server: a file cannot name an address (docs/opening.md).
    """
    path = local_path(address, what)
    if not path.is_file():
        kind = special_kind(str(path)) or ("a folder" if path.is_dir() else None)
        raise DataError(f"its {what} {path} is {kind}, not a file." if kind else f"its {what} {path} does not exist.")
    return path


def local_path(address: Address, what: str) -> Path:
    """Return the path on this computer that an address means. There may be no such file.

    Args:
        address: as in `local_file`.
        what: what it is, for messages.

    Raises:
        DataError: it is no path, or it is on a server.
    """
    text = address.text
    if not text:
        raise DataError(f"it names no {what}.")
    if text.lower().startswith("file://"):
        text = url2pathname(urlsplit(text).path)
    elif not is_plain(text):
        raise DataError(
            f"its {what} {shortened(text)} is on a server or in an archive; a catalogue can name files "
            "of this computer only. Download it."
        )
    found = [address.folder / name for name in ((text, unquote(text)) if address.is_escaped else (text,))]
    try:
        return next((path for path in found if path.exists()), found[0])
    except (OSError, ValueError) as error:  # too long, or with characters that no name has
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"its {what} {shortened(text)} cannot be the name of a file ({why}).") from error


def _twice(places: Sequence[Path]) -> list[str]:
    images = Counter(places)
    return [f"the image {image} is listed {count} times; keep one." for image, count in images.items() if count > 1]


def _incomplete_split(entries: Sequence[Entry], listed: Sequence[Listed]) -> list[str]:
    """Return what is wrong with a column `split`: it says the part of each image, or it is not there."""
    if all(entry.split is None for entry in entries) or not listed:
        return []
    without = [entry.where for entry in entries if not entry.split]
    missing = [part for part in ("train", "test") if all(one.subset != part for one in listed)]
    mend = "Name the part of every image (train, validation, test), or of none"
    lines = (
        [f"{len(without)} image(s) have no split ({shortened(', '.join(without), 120)}). {mend}."] if without else []
    )
    return lines + ([f"no image has the split {' or '.join(missing)}. {mend}."] if missing and not without else [])

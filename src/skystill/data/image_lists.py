"""Lists of images without labels, for prediction: the same tables and STAC files as in `catalogues`."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from skystill.data.catalogues import TABLES, Address, local_path, read_table
from skystill.data.server_links import ServerLinks, server_address, server_folder
from skystill.data.stac_items import Item, only_asset, read_items
from skystill.errors import DataError, shortened
from skystill.raster.buckets import copy_file
from skystill.raster.opening import is_plain, is_remote, suffix_of
from skystill.raster.scratch import scratch_folder


@dataclass(frozen=True)
class ListedImage:
    """One image of a list.

    Args:
        source: its path or address. There may be no such file.
        below: its folder, relative to that of the list; the folder of the list itself if it does not lie below it.
        date: when it was taken, if the list says it.
    """

    source: str
    below: Path
    date: datetime | None


@dataclass(frozen=True)
class _Row:
    """What a list says about an image: where it stands there, the address, the date, and the file that says it."""

    where: str
    href: str
    date: str | None
    file: str
    is_escaped: bool = False


def read_image_list(name: str, asset: str | None = None) -> list[ListedImage]:
    """Read the images that a list names.

    - A table, CSV or GeoParquet, has the column `image`, and may have `datetime`.
    - STAC is an item, an item collection, such as a saved search, or a collection or catalogue with links to items. The
      image of an item has the key `asset`. Without that, it is found as in training: by the role data, then by the
      usual keys, then as the only image.

    A list on this computer names files of this computer. A list on a server names files on servers.

    Args:
        name: the list: a path, or an address.
        asset: key of the image in the items of STAC.

    Raises:
        DataError: the list cannot be read, lacks the column, is no STAC, or names what it may not. All such rows and
            items are listed.
        SettingsError: a Parquet file needs a package that is not installed.
    """
    problems: list[str] = []
    if suffix_of(name) in TABLES:
        with _on_this_computer(name) as path:
            rows = _rows_of_table(path, name)
    else:
        items, problems = _read_items(name)
        rows = list(_rows_of_items(items, asset, problems))
    images: list[ListedImage] = []
    once = {(row.href, row.date, row.file): row for row in reversed(rows)}  # the same row may be there a million times
    for row in reversed(once.values()):
        try:
            images.append((_remote if is_remote(name) else _local)(row, name))
        except DataError as error:
            problems.append(f"{row.where}: {error}")
    if problems:
        raise DataError(f"{name}: {len(problems)} of its images cannot be predicted. Nothing was written.", problems)
    if not images:
        raise DataError(f"{name} lists no images.")
    return images


@contextmanager
def _on_this_computer(name: str) -> Iterator[Path]:
    """Yield the path of a list; of one on a server, that of a copy."""
    if is_plain(name):
        if not Path(name).is_file():
            raise DataError(f"{name}: no such file.")
        yield Path(name)
        return
    with scratch_folder() as folder:
        path = folder / f"list{suffix_of(name)}"
        copy_file(name, path)
        yield path


def _read_items(name: str) -> tuple[list[Item], list[str]]:
    """Return the items of STAC, on this computer or on a server, and what is wrong with its links."""
    if is_plain(name):
        if not Path(name).is_file():
            raise DataError(f"{name}: no such file.")
        return read_items(name)
    with scratch_folder() as folder:
        return read_items(name, links=ServerLinks(folder))


def _rows_of_table(path: Path, name: str) -> list[_Row]:
    names, rows = read_table(path, ("image", "datetime"), "image")
    if "image" not in names:
        raise DataError(
            f"{name} has the columns {shortened(', '.join(names))}; it needs image, in CSV separated by commas, and "
            "may have datetime."
        )
    image, date = names.index("image"), names.index("datetime") if "datetime" in names else None
    return [_Row(where, row[image], None if date is None else row[date], name) for where, row in rows]


def _rows_of_items(items: Iterable[Item], key: str | None, problems: list[str]) -> Iterator[_Row]:
    """Yield the image of each item. Label items have none: their images are items of their own."""
    for item in items:
        found = item.image_assets(()) if key is None else [asset for asset in item.assets if asset.key == key]
        if not found and item.is_labelled:
            continue
        try:
            if not found and key is not None:
                keys = shortened(", ".join(asset.key for asset in item.assets), 120) or "none"
                raise DataError(f"it has no asset {shortened(key)} (--asset); its assets are {keys}.")
            such = found[0].key if found else "visual"
            image = only_asset(found, "image", f"choose one by its key, such as --asset {shortened(such)}")
        except DataError as error:
            problems.append(f"item {item.name}: {error}")
            continue
        dates = (item.properties.get(key) for key in ("datetime", "end_datetime", "start_datetime"))
        date = next((str(one) for one in dates if one), None)
        yield _Row(f"item {item.name}", image.href, date, item.file, is_escaped=True)


def _local(row: _Row, name: str) -> ListedImage:
    path = local_path(Address(row.href, Path(row.file).parent, row.is_escaped), "image")
    above = Path(os.path.relpath(path.parent, Path(name).parent))
    inside = ".." not in above.parts and not above.is_absolute()
    return ListedImage(str(path), above if inside else Path(), _date(row.date))


def _remote(row: _Row, name: str) -> ListedImage:
    """Return an image of a list on a server. Relative addresses are relative to the file that says them."""
    source, folder = server_address(row.href, row.file, "image", row.is_escaped), server_folder(name)
    below = Path(source[len(folder) :]).parent if source.startswith(folder) else Path()
    return ListedImage(source, below, _date(row.date))


def _date(text: str | None) -> datetime | None:
    """Return a point in time, in UTC if the text does not say where; None if there is no text.

    Raises:
        DataError: it is no date.
    """
    if not (text or "").strip():
        return None
    try:
        found = datetime.fromisoformat(str(text).strip())
    except ValueError as error:
        raise DataError(
            f"its datetime {shortened(str(text))} is no date such as 2026-03-01 or 2026-03-01T10:00:00Z; leave it "
            "empty if it is not known."
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)

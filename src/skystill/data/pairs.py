"""Find images and their masks in the usual folder layouts, and maps: windows of a raster that features label."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skystill.data.catalogues import PARTS as PART_WORDS
from skystill.data.catalogues import is_catalogue, read_catalogue
from skystill.data.map_labels import open_map
from skystill.data.maps import (
    check_names,
    cut_key,
    find_labels,
    find_rasters,
    map_windows,
    raster_names,
    share_a_pixel,
    window_key,
    window_of,
)
from skystill.data.sheets import Sheets
from skystill.data.vector_files import DRIVERS, other_vectors
from skystill.errors import DataError, UserError
from skystill.raster.listing import Listing, key_and_role, list_images
from skystill.raster.picture import Bounds

_UNLABELED_FOLDERS = frozenset({"unlabeled", "unlabelled"})
SUBSETS = PART_WORDS
"""The part that is meant by a name of a folder."""


@dataclass(frozen=True, order=True)
class Pair:
    """One image with its mask, or a window of a map with its labels.

    Args:
        key: name of the pair in splits and reports, such as "Tile 1/image_part_001". It is the path below the data
            folder without the folder `images` or `masks`, without a suffix such as `_mask`, and without the extension.
            A window has rows and columns behind it (`skystill.data.maps.window_key`).
        image, mask: the two files. The mask of a map is the vector file with its labels.
        subset: "train", "validation" or "test" if a folder of the image has such a name, otherwise "".
        fit_mask: whether a mask of another size but the same shape is fitted to the image when it is read.
        bounds: the window of a map; None for a whole image with a mask.
    """

    key: str
    image: Path
    mask: Path
    subset: str = ""
    fit_mask: bool = False
    bounds: Bounds | None = None

    @property
    def is_window(self) -> bool:
        """Whether this is a window of a map."""
        return self.bounds is not None

    def cut(self, bounds: Bounds, name: str | None = None) -> "Pair":
        """Return another window of the same map.

        Args:
            bounds: the window.
            name: what stands before the brackets of its key; None keeps it.
        """
        return replace(self, key=cut_key(self.key, bounds, name), bounds=bounds)


@dataclass(frozen=True)
class PairSearch:
    """The pairs of a folder, and the files that could not be paired.

    Args:
        pairs: all pairs, sorted by key.
        problems: one line for each image or mask that has no partner, or more than one.
        unlabeled: number of images in each folder that is called unlabeled or unlabelled. They need no masks.
        notes: what the user should know.
    """

    pairs: tuple[Pair, ...]
    problems: tuple[str, ...]
    unlabeled: Mapping[Path, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_pairs(root: Path, fit_masks: bool = False) -> PairSearch:
    """Find every image/mask pair below `root`.

    A file is a mask if one of its folders is called mask, label, annotations, gt or similar, or if its name ends in
    _mask, _label or _gt. An image and a mask belong together if their paths are equal apart from the words for images
    and masks, the extension, and upper or lower case. Hidden files are passed over and linked folders are followed; see
    `skystill.raster.listing`. Images below a folder called unlabeled or unlabelled need no mask: they are the pool of
    images without labels, for `--unlabeled`.

    A folder without masks that holds rasters and a vector file called labels is a map: its pairs are windows.

    A catalogue, a file that lists images with their labels, gives pairs, too: see `skystill.data.catalogues`.

    Args:
        root: the data folder, or a catalogue.
        fit_masks: whether masks of another size but the same shape are fitted to their image when they are read.

    Raises:
        DataError: `root` is not a folder, it cannot be listed, it holds no pair, or a map cannot be used.
        SettingsError: a map or a Parquet file needs a package that is not installed.
    """
    if is_catalogue(root):
        return _find_listed(root, fit_masks)
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder.",
            mend="Give the folder that holds images and masks with --data, or a catalogue (CSV, GeoParquet or STAC).",
        )
    images: dict[str, list[Path]] = defaultdict(list)
    masks: dict[str, list[Path]] = defaultdict(list)
    listing = list_images(root)
    vectors = find_labels(root)
    if vectors and not listing.masks:
        return _find_map(root, listing, vectors)
    for files, by_key in ((listing.images, images), (listing.masks, masks)):
        for path in files:
            by_key[key_and_role(path.relative_to(root))[0].lower()].append(path)
    unlabeled: Counter[Path] = Counter()
    for name in images.keys() - masks.keys():
        if pools := [pool for path in images[name] if (pool := _pool(root, path))]:
            unlabeled.update(pools)
            del images[name]
    pairs, problems = _join(root, images, masks)
    if not pairs:
        raise DataError(
            f"{root} holds no image with a mask ({len(images)} images, {len(masks)} masks).",
            problems[:20],
            "Layouts: images/NAME + masks/NAME, FOLDER/images + FOLDER/masks, train|val|test/ with either, "
            "or NAME beside NAME_mask." + _map_hint(root),
        )
    pairs = [replace(pair, fit_mask=fit_masks) for pair in pairs]
    notes = tuple(f"{path} is not used: there are masks, and they win." for path in vectors)
    return PairSearch(tuple(sorted(pairs)), tuple(problems), dict(unlabeled), notes)


def _map_hint(root: Path) -> str:
    found = other_vectors(root)
    if not found:
        return ""
    return (
        f"\nIf {found[0].name} holds features that label a raster, call it labels{found[0].suffix.lower()}."
        if found[0].suffix.lower() in DRIVERS
        else f"\nIf {found[0].name} holds features that label a raster: ogr2ogr labels.gpkg {found[0].name}"
    )


def files_of_data(root: Path) -> list[Path]:
    """Return the files of a data set that no result may replace: images, masks, and its catalogue if it has one.

    Args:
        root: the data folder, or a catalogue. Of one that is gone or cannot be read, no more is known than its name.

    Raises:
        DataError: a folder cannot be listed.
    """
    if root.is_dir():
        listing = list_images(root)
        return [*listing.images, *listing.masks]
    try:
        listed, _ = read_catalogue(root) if is_catalogue(root) else ([], [])
    except UserError:
        listed = []
    return [root, *(path for one in listed for path in (one.image, one.labels))]


def _find_map(root: Path, listing: Listing, vectors: Sequence[Path]) -> PairSearch:
    pools = {path: _pool(root, path) for path in listing.images}
    rasters = find_rasters(root, [path for path in listing.images if pools[path] is None], vectors)
    windows = _windows_of(rasters, vectors[0])
    return PairSearch(windows, (), dict(Counter(pool for pool in pools.values() if pool is not None)))


def _windows_of(rasters: Sequence[Path], labels: Path) -> tuple[Pair, ...]:
    """Return the windows of the rasters of a map.

    Raises:
        DataError: a raster cannot be used, which is said of all.
    """
    check_names(rasters)
    sizes, problems = [], []
    for raster in rasters:
        try:
            opened = open_map(raster, labels)
            sizes.append((opened.height, opened.width))
        except DataError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = [str(problem).partition("\n")[0] for problem in problems]
        raise DataError(
            f"{len(problems)} of {len(rasters)} rasters cannot be used:", lines, "Mend them, or take them out."
        )
    return tuple(
        sorted(
            Pair(window_key(raster.stem, part, size), raster, labels, bounds=part)
            for raster, size, parts in zip(rasters, sizes, map_windows(*sizes), strict=True)
            for part in parts
        )
    )


def _find_listed(path: Path, fit_masks: bool) -> PairSearch:
    """Return the pairs of a catalogue. Their keys are those that they would have in the folder of the catalogue.

    Raises:
        DataError: as `read_catalogue`, or it lists no image with labels, or a map and anything else.
    """
    listed, problems = read_catalogue(path)
    if not listed:
        raise DataError(f"{path} lists no image with labels.", problems, "Each needs an image and a mask, or features.")
    maps = [one for one in listed if one.is_map]
    if maps and (len(listed) > len(maps) or len({one.labels.resolve() for one in maps}) > 1 or maps[0].subset):
        raise DataError(
            f"{path} lists {len(listed)} image(s), {len(maps)} of them with features as labels.",
            mend="A map has rasters with one vector file, no other images, and is split by blocks: put all features "
            "into one file, or burn them into masks.",
        )
    if maps:
        return PairSearch(_windows_of(list(dict.fromkeys(one.image for one in maps)), maps[0].labels), tuple(problems))
    pairs = [Pair(_listed_key(path, one.image), one.image, one.labels, one.subset, fit_masks) for one in listed]
    return PairSearch(tuple(sorted(pairs)), (*problems, *_same_keys(pairs)))


def _listed_key(catalogue: Path, image: Path) -> str:
    folder, whole = catalogue.parent.resolve(), Path(os.path.abspath(image))  # noqa: PTH100 - links keep their name
    return key_and_role(whole.relative_to(folder if whole.is_relative_to(folder) else whole.anchor))[0]


def _same_keys(pairs: Sequence[Pair]) -> list[str]:
    by_key: dict[str, set[Path]] = defaultdict(set)
    for pair in pairs:
        by_key[pair.key.lower()].add(pair.image.resolve())
    return [
        f"{', '.join(sorted(map(str, images)))}: the same name but for the extension; rename one."
        for images in by_key.values()
        if len(images) > 1
    ]


def find_named(pairs: Sequence[Pair], keys: Iterable[str]) -> dict[str, Pair]:
    """Return the pairs of some keys. Those that do not exist are left out.

    Args:
        pairs: all pairs of the data.
        keys: the keys. One of a map may be that of any window inside its raster, as splits cut windows.
    """
    by_key = {pair.key: pair for pair in pairs}
    by_raster = {pair.image.stem: pair for pair in pairs if pair.is_window}
    found: dict[str, Pair] = {}
    for key in keys:
        pair = by_key.get(key) or _window_named(by_raster, key)
        found |= {key: pair} if pair else {}
    return found


def _window_named(by_raster: Mapping[str, Pair], key: str) -> Pair | None:
    named = window_of(key)
    known = next((by_raster[name] for name in raster_names(named[0]) if name in by_raster), None) if named else None
    if named is None or known is None:
        return None
    whole = open_map(known.image, known.mask)
    top, bottom, left, right = named[1]
    if not (0 <= top < bottom <= whole.height and 0 <= left < right <= whole.width):
        return None
    pair = known.cut(named[1], named[0])
    return pair if pair.key == key else None


def count_known(pairs: Sequence[Pair], keys: Iterable[str], every: Sequence[Pair] = ()) -> int:
    """Return how many pairs are among those of some keys, or show the same ground as one of them if they are windows.

    Args:
        pairs: the pairs.
        keys: the keys.
        every: all pairs of the data, for maps of several rasters.
    """
    known = set(keys)
    sheets = sheets_of(every or pairs)
    if len(sheets.images) < 2:
        bounds = [named[1] for key in known if (named := window_of(key))]
        return sum(pair.key in known or _share_one(pair, bounds) for pair in pairs)
    windows = windows_by_image(find_named(every or pairs, known).values())
    over = {image: sheets.others_over(image, windows) for image in {pair.image for pair in pairs}}
    return sum(
        pair.key in known or _share_one(pair, windows.get(pair.image, ())) or _is_over(pair, over[pair.image])
        for pair in pairs
    )


def _share_one(pair: Pair, windows: Sequence[Bounds]) -> bool:
    return pair.bounds is not None and any(share_a_pixel(pair.bounds, other) for other in windows)


def _is_over(pair: Pair, others: npt.NDArray[np.object_]) -> bool:
    """Return whether a window shows more than a pixel of what others show."""
    import shapely

    top, bottom, left, right = pair.bounds or (0, 0, 0, 0)
    return bool((shapely.area(shapely.intersection(others, shapely.box(left, top, right, bottom))) > 1).any())


def sheets_of(pairs: Iterable[Pair]) -> Sheets:
    """Return the rasters of the windows of a map."""
    return Sheets({pair.image: pair.mask for pair in pairs if pair.is_window})


def windows_by_image(pairs: Iterable[Pair]) -> dict[Path, list[Bounds]]:
    """Return the windows of each raster of a map."""
    found: dict[Path, list[Bounds]] = defaultdict(list)
    for pair in pairs:
        if pair.bounds:
            found[pair.image].append(pair.bounds)
    return dict(found)


def _pool(root: Path, path: Path) -> Path | None:
    """Return the folder of images without labels in which an image is, or None."""
    return next((folder for folder in path.parents if folder != root and folder.is_relative_to(root)
                 and folder.name.lower() in _UNLABELED_FOLDERS), None)  # fmt: skip


def _join(root: Path, images: dict[str, list[Path]], masks: dict[str, list[Path]]) -> tuple[list[Pair], list[str]]:
    pairs: list[Pair] = []
    problems: list[str] = []
    for name, found in sorted(images.items()):
        partners = masks.get(name, [])
        if len(found) > 1 or len(partners) > 1:
            problems.append(
                f"{', '.join(str(p) for p in found + partners)}: more than one file for {name!r}; keep one."
            )
        elif not partners:
            problems.append(f"{found[0]}: no mask; add one with the same name, or take the image out.")
        else:
            relative = found[0].relative_to(root)
            subset = next((SUBSETS[p.lower()] for p in relative.parts[:-1] if p.lower() in SUBSETS), "")
            pairs.append(Pair(key_and_role(relative)[0], found[0], partners[0], subset))
    for name in sorted(masks.keys() - images.keys()):
        problems.append(f"{masks[name][0]}: no image for this mask; add it, or take the mask out.")
    return pairs, problems

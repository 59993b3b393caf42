"""Find images and their masks in the usual folder layouts."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from skystill.errors import DataError
from skystill.raster.listing import key_and_role, list_images

_UNLABELED_FOLDERS = frozenset({"unlabeled", "unlabelled"})
_SUBSETS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True, order=True)
class Pair:
    """One image with its mask.

    Args:
        key: name of the pair in splits and reports, such as "Tile 1/image_part_001". It is the path below the data
            folder without the folder `images` or `masks`, without a suffix such as `_mask`, and without the extension.
        image, mask: the two files.
        subset: "train", "validation" or "test" if a folder of the image has such a name, otherwise "".
        fit_mask: whether a mask of another size but the same shape is fitted to the image when it is read.
    """

    key: str
    image: Path
    mask: Path
    subset: str = ""
    fit_mask: bool = False


@dataclass(frozen=True)
class PairSearch:
    """The pairs of a folder, and the files that could not be paired.

    Args:
        pairs: all pairs, sorted by key.
        problems: one line for each image or mask that has no partner, or more than one.
        unlabeled: number of images in each folder that is called unlabeled or unlabelled. They need no masks.
    """

    pairs: tuple[Pair, ...]
    problems: tuple[str, ...]
    unlabeled: Mapping[Path, int] = field(default_factory=dict)


def find_pairs(root: Path, fit_masks: bool = False) -> PairSearch:
    """Find every image/mask pair below `root`.

    A file is a mask if one of its folders is called mask, label, annotations, gt or similar, or if its name ends in
    _mask, _label or _gt. An image and a mask belong together if their paths are equal apart from the words for images
    and masks, the extension, and upper or lower case. Hidden files are passed over and linked folders are followed; see
    `skystill.raster.listing`. Images below a folder called unlabeled or unlabelled need no mask: they are the pool of
    images without labels, for `--unlabeled`.

    Args:
        root: the data folder.
        fit_masks: whether masks of another size but the same shape are fitted to their image when they are read.

    Raises:
        DataError: `root` is not a folder, it cannot be listed, or it holds no pair.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder.", mend="Give the folder that holds images and masks with --data.")
    images: dict[str, list[Path]] = defaultdict(list)
    masks: dict[str, list[Path]] = defaultdict(list)
    listing = list_images(root)
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
            "or NAME beside NAME_mask.",
        )
    pairs = [replace(pair, fit_mask=fit_masks) for pair in pairs]
    return PairSearch(tuple(sorted(pairs)), tuple(problems), dict(unlabeled))


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
            subset = next((_SUBSETS[p.lower()] for p in relative.parts[:-1] if p.lower() in _SUBSETS), "")
            pairs.append(Pair(key_and_role(relative)[0], found[0], partners[0], subset))
    for name in sorted(masks.keys() - images.keys()):
        problems.append(f"{masks[name][0]}: no image for this mask; add it, or take the mask out.")
    return pairs, problems

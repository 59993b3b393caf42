"""Images and their labels from STAC: items, item collections (saved searches), collections and catalogues.

STAC is JSON, and passes the same gate as all other JSON (`skystill.parsing`). Links of a file of this computer are
followed to files of this computer only, those of a file on a server to servers only (`skystill.data.server_links`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from skystill.data.catalogues import Address, Entry, local_file
from skystill.data.vector_files import DRIVERS
from skystill.errors import DataError, shortened
from skystill.parsing import built_from, read_json
from skystill.raster.listing import IMAGE_SUFFIXES
from skystill.raster.opening import is_plain, suffix_of

LABEL_ROLES = frozenset({"labels", "label", "labels-raster", "labels-vector", "mask"})
IMAGE_ROLE, IMAGE_KEYS = "data", frozenset({"image", "data", "visual"})
SPLIT_PROPERTIES = ("ml-aoi:split", "split")
"""Properties that say the part of an item: that of the extension ML AOI, and the plain word."""
_MOST_LEVELS = 30  # of catalogues in catalogues


@dataclass(frozen=True)
class Asset:
    """An asset of an item.

    Args:
        key: its key.
        href: where it is.
        roles: its roles, in lower case.
    """

    key: str
    href: str
    roles: frozenset[str]

    @property
    def is_image(self) -> bool:
        """Whether its name is that of an image, which a mask is, too."""
        return suffix_of(self.href) in IMAGE_SUFFIXES

    @property
    def is_vector(self) -> bool:
        """Whether its name is that of a file of features."""
        return suffix_of(self.href) in DRIVERS


@dataclass(frozen=True)
class Item:
    """A STAC item.

    Args:
        name: its id.
        file: path or address of the file that holds it, to which its addresses are relative.
        addresses: what a link to it may say: its file, and its own address.
        properties: its properties.
        assets: its assets.
        sources: its links to source items, each with the keys of the assets that it is about.
    """

    name: str
    file: str
    addresses: frozenset[str]
    properties: Mapping[str, Any]
    assets: tuple[Asset, ...]
    sources: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def folder(self) -> Path:
        """The folder of its file on this computer."""
        return Path(self.file).parent

    @property
    def is_labelled(self) -> bool:
        """Whether it has labels, or should have them because it is a label item."""
        return bool(self.label_assets) or "label:type" in self.properties

    @property
    def split(self) -> str | None:
        """The part that its properties name, or None."""
        found = next((self.properties[name] for name in SPLIT_PROPERTIES if self.properties.get(name)), None)
        return None if found is None else str(found)

    @property
    def label_assets(self) -> list[Asset]:
        """Its labels: of features those whose key or role says so, of rasters also the only raster of a label item."""
        named = [asset for asset in self.assets if asset.key.lower() in LABEL_ROLES or asset.roles & LABEL_ROLES]
        kind = self.properties.get("label:type")
        if kind != "raster":
            return named
        rasters = [asset for asset in named if asset.is_image]  # the others are its extent, as features
        return rasters or [asset for asset in self.assets if asset.is_image and IMAGE_ROLE not in asset.roles]

    def image_assets(self, keys: Sequence[str]) -> list[Asset]:
        """Return its image: the asset of these keys, that of the role data, that of a usual key, or the only image."""
        others = [asset for asset in self.assets if asset not in self.label_assets]
        if keys:
            return [asset for asset in others if asset.key in keys]
        images = [asset for asset in others if asset.is_image]
        by_role = [asset for asset in others if IMAGE_ROLE in asset.roles]
        by_key = [asset for asset in others if asset.key.lower() in IMAGE_KEYS]
        plain = [asset for asset in images if not asset.roles & {"thumbnail", "overview"}]
        return next((found for found in (by_role, by_key, plain) if found), [])


class Links(Protocol):
    """Follows the links of STAC."""

    def named(self, href: str, by: str) -> str:
        """Return the file, as a path or an address, that a link in the file `by` means. DataError if it may not."""

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """Yield the path of a file, or of a copy, as long as it is read."""


class LocalLinks:
    """Follows links to files of this computer."""

    def named(self, href: str, by: str) -> str:
        """Return the path of an existing file. DataError: there is none, or the link is one to a server."""
        return str(local_file(Address(href, Path(by).parent, is_escaped=True), "link"))

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """Yield the path itself."""
        return nullcontext(Path(name))


def read_stac(path: Path) -> tuple[list[Entry], list[str]]:
    """Read the images with their labels from STAC.

    An item has an image and its labels, or it is a label item (label extension) that links to its source.

    Args:
        path: an item, an item collection, a collection or a catalogue.

    Returns:
        what is listed, and one line for each problem.

    Raises:
        DataError: a file cannot be read or is no STAC, or links lead in a circle.
    """
    items, problems = read_items(path)
    twice = [name for name, count in Counter(item.name for item in items).items() if count > 1]
    problems += [f"{path}: the item {name} is there more than once; keep one." for name in twice]
    entries: list[Entry] = []
    used: set[str] = set()
    for item in (item for item in items if item.is_labelled):
        try:
            entry, source = _entry(item, items)
        except DataError as error:
            problems.append(f"{path}, item {item.name}: {error}")
            continue
        entries.append(entry)
        used |= {item.name, source.name}
    problems += [
        f"{path}, item {item.name}: it has no labels: an asset of the role labels, or a label item whose source it is."
        for item in items
        if not item.is_labelled and item.name not in used
    ]
    if any(entry.split for entry in entries):  # then every item should say it
        entries = [replace(entry, split=entry.split or "") for entry in entries]
    return entries, problems


def read_items(
    file: str | Path,
    above: tuple[str, ...] = (),
    links: Links = LocalLinks(),  # noqa: B008 - it holds nothing
) -> tuple[list[Item], list[str]]:
    """Return the items of a file and of the files that it links to, and what is wrong with links.

    Args:
        file: the file, as a path or an address.
        above: the files that lead to it.
        links: opens files, and follows links.

    Raises:
        DataError: a file cannot be read or is no STAC, or links lead in a circle.
    """
    name = str(file)
    place = str(Path(name).resolve()) if is_plain(name) else name
    if place in above or len(above) > _MOST_LEVELS:
        raise DataError(f"{above[-1]} links to {Path(name).name}, which leads back to it, or is nested too deep.")

    def refuse(reason: str) -> DataError:
        return DataError(f"{name}: {reason}.")

    with links.opened(name) as path:
        content = read_json(path, refuse)
    kind = content.get("type") if isinstance(content, dict) else None
    features = {"Feature": [content], "FeatureCollection": content.get("features")}.get(str(kind)) if kind else None
    if isinstance(features, list):
        if not all(isinstance(one, dict) and "stac_version" in one for one in features):
            raise refuse("it holds features of GeoJSON that are no STAC items (stac_version)")
        if kind == "FeatureCollection" and built_from(content, _is_page, refuse):
            raise refuse(
                "it is one page of a search and links to the next (rel next), so that images would be missing. Save "
                "all pages as one item collection, as pystac-client does: search.item_collection().save_object(FILE)"
            )
        return [built_from(one, partial(_build_item, file=name), refuse) for one in features], []
    if kind not in ("Collection", "Catalog") or "stac_version" not in content:
        raise refuse("it is no STAC: an item, an item collection (a saved search), a collection or a catalogue")
    found = built_from(content, lambda found: _links(found, "item", "child"), refuse)
    items: list[Item] = []
    problems: list[str] = []
    for link in found:
        try:
            linked = links.named(link["href"], name)
        except DataError as error:
            problems.append(f"{name}: {error}")
            continue
        more = read_items(linked, (*above, place), links)
        items += more[0]
        problems += more[1]
    return items, problems


def _links(content: Mapping[str, Any], *kinds: str) -> list[dict[str, Any]]:
    found = content.get("links") or []
    if not isinstance(found, list) or not all(isinstance(link, dict) for link in found):
        raise ValueError(f"its links are {shortened(repr(found), 60)}, and no list of links")
    return [link | {"href": str(link["href"])} for link in found if link["rel"] in kinds]


def _is_page(content: Mapping[str, Any]) -> bool:
    """Whether a saved answer of a search is not the whole answer. Some servers link to a next page that is empty."""
    matched = content.get("numberMatched", (content.get("context") or {}).get("matched"))
    return bool(_links(content, "next")) and matched != len(content["features"])


def _build_item(content: Mapping[str, Any], file: str) -> Item:
    """Return an item; raises anything in `PARSE_ERRORS` if the content is not that of one."""
    named = content.get("assets") or {}
    if not isinstance(named, dict) or not all(isinstance(asset, dict) for asset in named.values()):
        raise ValueError(f"its assets are {shortened(repr(named), 60)}, and no mapping of assets")
    assets = tuple(
        Asset(key, str(asset["href"]), frozenset(str(role).lower() for role in asset.get("roles") or []))
        for key, asset in named.items()
    )
    own = {link["href"] for link in _links(content, "self")}
    collection, path = content.get("collection"), Path(file)
    return Item(
        f"{collection}/{content['id']}" if collection else str(content["id"]),
        file,
        frozenset({*own, *(_place(path.parent, one) for one in own), str(path.resolve())}),
        dict(content.get("properties") or {}),
        assets,
        tuple((link["href"], tuple(map(str, link.get("label:assets") or []))) for link in _links(content, "source")),
    )


def _place(folder: Path, href: str) -> str:
    try:
        return str((folder / unquote(href)).resolve())
    except (OSError, ValueError):  # no name of a file
        return href


def _entry(item: Item, items: Sequence[Item]) -> tuple[Entry, Item]:
    """Return what a labelled item lists, and the item with its image.

    Raises:
        DataError: it does not have one image and one file of labels.
    """
    labels = only_asset(item.label_assets, "labels", "give one of them the role labels")
    source, keys = item, tuple[str, ...]()
    if item.sources:
        if len(item.sources) > 1:
            raise DataError(
                f"it has {len(item.sources)} sources; an image has labels of its own. Make one raster of them: "
                "gdalbuildvrt image.vrt *.tif"
            )
        href, keys = item.sources[0]
        source = _source(item, href, items)
    elif "label:type" in item.properties and not item.image_assets(()):
        raise DataError("it is a label item without a link to its source (rel source), and without an image.")
    image = only_asset(
        source.image_assets(keys), "image", "give one of them the role data, or make one raster of its bands"
    )
    files = [Address(asset.href, one.folder, is_escaped=True) for asset, one in ((image, source), (labels, item))]
    return Entry(f"item {item.name}", files[0], files[1], item.split or source.split), source


def _source(item: Item, href: str, items: Sequence[Item]) -> Item:
    """Return the item that a link to a source means: one of those that were read, or one of a file beside them."""
    wanted = {href, _place(item.folder, href)}
    found = next((other for other in items if wanted & other.addresses), None)
    if found is not None:
        return found
    try:
        file = local_file(Address(href, item.folder, is_escaped=True), "source")
    except DataError as error:
        raise DataError(f"{error} No item in the catalogue has this address, either.") from error
    others, _ = read_items(file)
    if len(others) != 1:
        raise DataError(f"its source {file} holds {len(others)} items, and not one.")
    return others[0]


def only_asset(assets: Sequence[Asset], what: str, mend: str) -> Asset:
    """Return the only asset of a list.

    Raises:
        DataError: there is none, or several.
    """
    if len(assets) != 1:
        found = shortened(", ".join(asset.key for asset in assets), 120) or "none"
        raise DataError(f"it has {len(assets)} assets that may be its {what} ({found}); {mend}.")
    return assets[0]

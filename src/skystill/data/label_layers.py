"""The layers of the vector file that labels a map: which of them a class is drawn from, and what they say of places."""

import functools
from collections.abc import Sequence
from pathlib import Path

from skystill.classes import ClassMap
from skystill.data.vector_files import files_called
from skystill.data.vectors import Layer, changes_of, list_layers
from skystill.errors import ClassesError, DataError
from skystill.features import FeatureSource

AREA, SPLIT = "area", "split"
"""Names of the layers, or of files beside the labels, that say where labels are complete and what part a place has."""


class LabelLayers:
    """The layers of a vector file with labels. `open_layers` makes it.

    Args:
        path: the vector file.

    Raises:
        DataError: a vector file cannot be used.
        SettingsError: pyogrio or shapely is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        own = list_layers(path)
        self.by_name = {layer.name: layer for layer in own if len(own) == 1 or layer.name.lower() not in (AREA, SPLIT)}
        self.area, self.split = (self._special(name, own) for name in (AREA, SPLIT))

    def _special(self, name: str, own: Sequence[Layer]) -> Layer | None:
        """Return the layer of this name, or that of the file of this name beside the labels."""
        found = [layer for layer in own if layer.name.lower() == name and len(own) > 1]
        found += [layer for path in files_called(self.path.parent, name) for layer in list_layers(path)]
        if len(found) > 1:
            raise DataError(
                f"{self.path.parent}: there are {len(found)} layers for {name}: {', '.join(map(str, found))}.",
                mend=f"Keep one, in {self.path.name} or in a file beside it.",
            )
        return found[0] if found else None

    @property
    def all(self) -> tuple[Layer, ...]:
        """All layers, with those for the area and the split."""
        return (*self.by_name.values(), *(layer for layer in (self.area, self.split) if layer is not None))

    def describe(self) -> list[str]:
        """Return one line for each layer: its name, the number of its features, and its attributes."""
        return [
            f"layer {layer.name}: {layer.count:,} features; attributes {', '.join(layer.fields) or '(none)'}"
            for layer in self.by_name.values()
        ]

    def layer_of(self, source: FeatureSource, name: str) -> Layer:
        """Return the layer that a class is drawn from.

        Args:
            source: where its features are.
            name: name of the class, for messages.

        Raises:
            ClassesError: there is no such layer or attribute.
        """
        if source.layer is None and len(self.by_name) == 1:
            found = next(iter(self.by_name.values()))
        elif source.layer in self.by_name:
            found = self.by_name[str(source.layer)]
        else:
            asked = "its from names no layer" if source.layer is None else f"there is no layer {source.layer}"
            raise ClassesError("\n  - ".join([f"class {name}: {asked}. {self.path} has:", *self.describe()]))
        if source.field is not None and source.field not in found.fields:
            raise ClassesError(
                f"class {name}: {found} has no attribute {source.field}; there are {', '.join(found.fields) or 'none'}."
            )
        return found

    def check_classes(self, classes: ClassMap) -> None:
        """Check that every class has its features here.

        Raises:
            ClassesError: a class has none, a layer or attribute does not exist, or several classes are the rest.
        """
        if not classes.sources:
            lines = [f"{classes.source}: the labels of the map are the features of {self.path.name}, and the "
                     "classes do not say which: give each class a from. There are:", *self.describe()]  # fmt: skip
            raise ClassesError("\n  - ".join(lines) + "\nSuch as: {name: Road, from: {layer: roads, buffer: 3}}.")
        rest = [name for name, sources in zip(classes.names, classes.sources, strict=True) if sources[0].rest]
        if len(rest) > 1:
            raise ClassesError(f"{classes.source}: {', '.join(rest)} are all from: rest; one class can be.")
        for name, _, source in drawn_sources(classes):
            self.layer_of(source, name)


def drawn_sources(classes: ClassMap) -> list[tuple[str, int, FeatureSource]]:
    """Return name, label and source of everything that is burnt, in the order in which it is."""
    found = [
        (name, label, source)
        for label, (name, sources) in enumerate(zip(classes.names, classes.sources, strict=True))
        for source in sources
        if not source.rest
    ]
    return sorted(found, key=lambda one: (one[2].order, one[1]))


def label_changes(path: Path) -> tuple[tuple[int, ...], ...]:
    """Return when a vector file, and those of the area and the split beside it, were changed last, in nanoseconds."""
    beside = [one for name in (AREA, SPLIT) for one in files_called(path.parent, name)]
    return tuple(changes_of(one) for one in (path, *beside))


@functools.lru_cache(maxsize=4)
def open_layers(path: Path, changed: tuple[tuple[int, ...], ...]) -> LabelLayers:
    """Return the layers of a vector file. They are kept for the next raster.

    Args:
        path: the vector file.
        changed: its `label_changes`.

    Raises:
        DataError, SettingsError: as `LabelLayers`.
    """
    return LabelLayers(path)

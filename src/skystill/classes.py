"""`ClassMap`: names, colours and mask values of the classes, what is void, and the files in which this is written."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.default_colors import Color, default_color
from skystill.errors import ClassesError, shortened
from skystill.features import FeatureSource, feature_sources
from skystill.parsing import built_from, read_yaml

VOID = 255
"""Label of a pixel whose class is unknown. Such pixels are neither trained on nor scored."""

_STRIPE = 6  # width of the stripes on void pixels
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClassMap:
    """The classes of a data set, in the order of their labels.

    Args:
        names: names of the labels 0, 1, ...
        colors: RGB colour of each class, 0 to 255.
        source: where the classes came from, for messages.
        void_colors: mask colours of void pixels, whose class is unknown.
        unscored: names of classes that are left out of mean scores, such as "Unlabeled" in the Dubai data. The network
            still learns them, and confusing them with another class counts as an error of that class.
        indexed: True if the masks hold label numbers, because the classes file gave no colours or says so.
        values: the number that stands in an index mask for each class. Without any, it is the label itself. The labels
            of the network, of results and of class rasters are 0, 1, ... in any case.
        void_values: numbers in index masks of void pixels. 255 is void as well, unless it is the value of a class.
        band_names: names of the bands of the images, for images that do not name them.
        sources: the features of a vector file that each class is drawn from, for labels that are no masks; otherwise
            empty.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    source: str = "code"
    void_colors: tuple[Color, ...] = ()
    unscored: tuple[str, ...] = ()
    indexed: bool = field(default=False)
    values: tuple[int, ...] = ()
    void_values: tuple[int, ...] = ()
    band_names: tuple[str, ...] = field(default=(), compare=False)
    sources: tuple[tuple[FeatureSource, ...], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """(C,) bool, True for the classes that count in mean scores."""
        return np.array([name not in self.unscored for name in self.names])

    @property
    def grey(self) -> bool:
        """Whether the colour of every class is a grey, so that a mask of one band can hold colours."""
        return all(len(set(color)) == 1 for color in self.colors)

    @property
    def label_of_value(self) -> dict[int, int]:
        """The label of each number that may stand in an index mask; `VOID` for void numbers."""
        values = self.values or range(len(self))
        void = dict.fromkeys((VOID, *self.void_values), VOID)
        return void | {value: label for label, value in enumerate(values)}

    def palette(self) -> npt.NDArray[np.uint8]:
        """Return the colour of every label as (256, 3) uint8 RGB. Void and unknown labels are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colors
        return table

    def paint(self, labels: Labels) -> npt.NDArray[np.uint8]:
        """Convert labels (H, W) uint8 to a picture (H, W, 3) uint8 RGB in the colours of the classes; void is black."""
        return self.palette()[labels]

    def paint_striped(self, labels: Labels) -> npt.NDArray[np.uint8]:
        """Do as `paint`, with black and white stripes on void pixels, which no class looks like."""
        picture = self.paint(labels)
        rows, columns = np.ogrid[: labels.shape[0], : labels.shape[1]]
        picture[((rows + columns) // _STRIPE % 2).astype(bool) & (labels == VOID)] = 255
        return picture

    def to_dict(self) -> dict[str, object]:
        """Return the content of a classes file. `classes_from` reads it."""
        entries: list[dict[str, object]] = []
        for label, (name, color) in enumerate(zip(self.names, self.colors, strict=True)):
            entry: dict[str, object] = {"name": name, "color": hex_color(color)}
            entry |= {"value": self.values[label]} if self.values else {}
            entries.append(entry | ({"scored": False} if name in self.unscored else {}))
        content: dict[str, object] = {"classes": entries, "void": [hex_color(color) for color in self.void_colors]}
        content |= {"ignore_index": list(self.void_values)} if self.void_values else {}
        return content | {"indexed": self.indexed}


def _check(classes: ClassMap) -> None:
    if not 1 <= len(classes.names) <= VOID:
        raise ClassesError(f"{classes.source} has {len(classes.names)} classes; 1 to {VOID} are possible.")
    if classes.values and len(classes.values) != len(classes.names):
        raise ClassesError(f"{classes.source} has {len(classes.names)} classes, but {len(classes.values)} values.")
    own_values = classes.values or tuple(range(len(classes.names)))
    both = [value for value in own_values if value in classes.void_values]
    if both and not classes.values:
        raise ClassesError(
            f"{classes.source} lists the label {both[0]} under void, but without values {both[0]} is the label of "
            f"{classes.names[both[0]]}. Give every class the number that it has in the masks, such as "
            f"{{name: {classes.names[both[0]]}, value: {both[0] + 1}}}."
        )
    for what, values in (
        ("name", classes.names),
        ("colour", (*classes.colors, *classes.void_colors)),
        ("value", (*own_values, *classes.void_values)),
    ):
        twice = sorted({str(v) for v, count in Counter(values).items() if count > 1})
        if twice:
            raise ClassesError(
                f"{classes.source} gives the {what} {shortened(', '.join(twice))} twice; each must be its own."
            )


def match_names(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Find classes by name among others: the same name, or one that differs only in upper and lower case.

    Args:
        names: of the classes.
        known: names to find them among.

    Returns:
        For each name its index in `known`, or None if it is not there. Where names differ from each other by their case
        alone, only the same name is found.
    """
    wanted, lower = Counter(name.lower() for name in names), [name.lower() for name in known]
    found: list[int | None] = []
    for name in names:
        low = name.lower()
        if name in known:
            found.append(known.index(name))
        elif wanted[low] == lower.count(low) == 1:
            found.append(lower.index(low))
        else:
            found.append(None)
    return found


def hex_color(color: Sequence[int]) -> str:
    """Convert (60, 16, 152) to "#3C1098"."""
    return "#" + "".join(f"{int(value):02X}" for value in color)


def parse_color(value: object, source: str) -> Color:
    """Convert "#3C1098" or [60, 16, 152] to (60, 16, 152).

    Args:
        value: the colour as it stands in a classes file.
        source: the file, for the error message.

    Raises:
        ClassesError: the value is not a colour.
    """
    if isinstance(value, str) and len(digits := value.lstrip("#")) == 6:
        try:
            return (int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16))
        except ValueError:
            pass
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        red, green, blue = value
        if all(isinstance(v, int) and 0 <= v <= 255 for v in value):
            return (red, green, blue)
    raise ClassesError(
        f'{source}: {shortened(repr(value))} is not a colour; write "#3C1098" (in quotes) or [60, 16, 152].'
    )


DUBAI = ClassMap(
    names=("Building", "Land", "Road", "Vegetation", "Water", "Unlabeled"),
    colors=((60, 16, 152), (132, 41, 246), (110, 193, 228), (254, 221, 58), (226, 169, 41), (155, 155, 155)),
    source="dubai (built in)",
    void_colors=((0, 0, 0),),
    unscored=("Unlabeled",),
)
"""The data set "Semantic segmentation of aerial imagery" (Humans in the Loop and MBRSC, CC0). The colours are those of
its masks.
"""

BUILT_IN: Mapping[str, ClassMap] = {"dubai": DUBAI}


def read_classes(name_or_file: str | Path) -> ClassMap:
    """Return the classes of a built-in name, or of a YAML or JSON file.

    The file is a list of classes, or a mapping with this list under `classes`. A class has a `name`, a `color`, a
    `value` (its number in index masks) and `scored`. Void colours and void numbers stand under `void`. Other spellings
    of public data sets are understood: `title`; `colour`; `index` and `id`; `ignore_index` for the number that is void,
    where a class with this number is left out; `encoding: index` for masks that hold numbers although there are
    colours. Without colours, the masks hold numbers. Without values, they are 0, 1, ... in the order of the list.

    Raises:
        ClassesError: there is no such name or file, or the file does not hold classes, or it holds a key that is not
            understood.
    """
    if str(name_or_file) in BUILT_IN:
        return BUILT_IN[str(name_or_file)]
    path = Path(name_or_file)
    if not path.is_file():
        raise ClassesError(
            f"{path} is neither a classes file nor a built-in name ({', '.join(BUILT_IN)}). "
            "Write a YAML file with a list of name and color."
        )

    def refuse(reason: str) -> ClassesError:
        return ClassesError(f"{path}: {reason}. Write a list of name and color, as in docs/data.md.")

    return built_from(read_yaml(path, refuse), lambda content: classes_from(content, str(path)), refuse)


# Keys of the file and of one class. The last line of each holds keys that say nothing of masks and labels: they
# describe the images, or how a labelling tool shows the class.
_FILE_KEYS = (
    *("classes", "void", "ignore_index", "encoding", "indexed"),
    *("bands", "tags", "projectType", "description", "source", "license"),
)
_CLASS_KEYS = (
    *("name", "title", "color", "colour", "value", "index", "id", "scored", "from"),
    *("shape", "geometry_config", "hotkey", "description"),
)


def classes_from(content: object, source: str) -> ClassMap:
    """Return the classes described by the parsed content of a classes file.

    Args:
        content: what the YAML or JSON parser returned; see `read_classes`.
        source: the file, for messages.

    Raises:
        ClassesError: the content does not describe classes.
    """
    mapping: dict[str, Any] = content if isinstance(content, dict) else {"classes": content}
    entries = mapping.get("classes")
    if not isinstance(entries, list) or not entries:
        raise ClassesError(f"{source} holds no list of classes. Write a list of name and color, as in docs/data.md.")
    _refuse_keys(mapping, _FILE_KEYS, source)
    rows = [_row(index, entry, source) for index, entry in enumerate(entries)]
    has_colors, has_values, is_drawn = (_all_or_none(rows, key, source) for key in ("color", "value", "from"))
    for index, row in enumerate(rows):
        row.setdefault("color", default_color(index))
        row.setdefault("value", index)
    void_colors, void_values = _void(mapping.get("void"), source)
    ignored = _numbers(mapping.get("ignore_index"), source)
    no_class = {*ignored, *(void_values if has_values else ())}
    dropped = [row for row in rows if row["value"] in no_class]
    rows = [row for row in rows if row not in dropped]
    if not rows:
        raise ClassesError(f"{source}: every class is void. Take the numbers of the classes out of void.")
    void_colors += [row["color"] for row in dropped if has_colors and row["color"] not in void_colors]
    void_values += [value for value in ignored if value not in void_values]
    encoding = str(mapping.get("encoding", "color")).lower()
    if not re.match(r"index|colou?r|rgb", encoding):
        raise ClassesError(f"{source}: encoding {shortened(encoding)!r} is not understood; write index or color.")
    if not isinstance(indexed := mapping.get("indexed", not has_colors or encoding.startswith("index")), bool):
        raise ClassesError(f"{source}: indexed is {shortened(indexed)!r}; write true or false, without quotes.")
    return ClassMap(
        tuple(row["name"] for row in rows),
        tuple(row["color"] for row in rows),
        source,
        tuple(void_colors),
        tuple(row["name"] for row in rows if not row["scored"]),
        indexed,
        tuple(row["value"] for row in rows) if has_values or dropped else (),
        tuple(void_values),
        _band_names(mapping.get("bands")),
        tuple(row["from"] for row in rows) if is_drawn else (),
    )


def _band_names(given: object) -> tuple[str, ...]:
    """Return the names of bands. Other programs write other things under `bands`, such as a number."""
    named = isinstance(given, list) and all(isinstance(name, str) and name for name in given)
    return tuple(given) if named and isinstance(given, list) else ()


def _row(index: int, entry: object, source: str) -> dict[str, Any]:
    """Return name, scored, color and value of an entry, the last two only if the entry gives them."""
    fields = entry if isinstance(entry, dict) else {"name": entry}
    name = fields.get("name", fields.get("title"))
    name = name.strip() if isinstance(name, str) else ""  # a block of YAML ends with a line break
    if not name:
        raise ClassesError(f"{source}: class {index} has no name: {shortened(repr(entry))}.")
    strange = sorted({character for character in name if unicodedata.category(character) in ("Cc", "Cs")})
    if strange:
        raise ClassesError(
            f"{source}: the name of class {index} holds {shortened(', '.join(map(ascii, strange)))}, which is no text "
            f"(a line break or another control character): {shortened(ascii(name))}. Take it out."
        )
    _refuse_keys(fields, _CLASS_KEYS, f"{source}: class {shortened(name)}")
    scored = fields.get("scored", True)
    if not isinstance(scored, bool):
        raise ClassesError(
            f"{source}: class {shortened(name)}: scored is {shortened(repr(scored))}; write true or false."
        )
    row: dict[str, Any] = {"name": name, "scored": scored}
    if "from" in fields:
        row["from"] = feature_sources(fields["from"], f"{source}: class {shortened(name)}")
    for key, spellings in (("color", ("color", "colour")), ("value", ("value", "index", "id"))):
        given = {spelling: fields[spelling] for spelling in spellings if spelling in fields}
        read = [
            parse_color(v, source) if key == "color" else _number(v, f"{source}: {shortened(name)}")
            for v in given.values()
        ]
        if len(set(read)) > 1:
            raise ClassesError(
                f"{source}: class {shortened(name)} has {shortened(given)}, which differ. Keep one, as {key}."
            )
        row |= {key: read[0]} if read else {}
    return row


def _refuse_keys(fields: Mapping[Any, object], known: Sequence[str], where: str) -> None:
    strange = [str(key) for key in fields if key not in known]
    if strange:
        raise ClassesError(
            f"{where}: {shortened(', '.join(strange))} is not understood. Take it out, or use a key of these: "
            f"{', '.join(known)}."
        )


def _all_or_none(rows: Sequence[Mapping[str, Any]], key: str, source: str) -> bool:
    """Return whether all classes have the key. Raise if some have it and others have not."""
    without = [row["name"] for row in rows if key not in row]
    if without and len(without) < len(rows):
        raise ClassesError(
            f"{source}: class {shortened(', '.join(without))} has no {key}, others have. Give every class one, or none."
        )
    return not without


def _number(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ClassesError(
            f"{where}: {shortened(repr(value))} is not a number of an index mask; write a whole number, such as 3."
        )
    return value


def _numbers(given: object, source: str) -> list[int]:
    """Return the numbers of `ignore_index`: none, one, or a list."""
    listed = given if isinstance(given, list) else [] if given is None else [given]
    return [_number(value, f"{source}: ignore_index") for value in listed]


def _void(given: object, source: str) -> tuple[list[Color], list[int]]:
    """Return the colours and the numbers that stand under `void`."""
    listed = given if isinstance(given, list) else [] if given is None else [given]
    numbers = [value for value in listed if isinstance(value, int) and not isinstance(value, bool)]
    if len(listed) == len(numbers) == 3 and all(0 <= number <= 255 for number in numbers):
        raise ClassesError(
            f'{source}: void: {listed} can be one colour or three numbers. Write a colour as "{hex_color(numbers)}", '
            f"and three numbers as ignore_index: {listed}."
        )
    others = [value for value in listed if not isinstance(value, int) or isinstance(value, bool)]
    return [parse_color(value, source) for value in others], numbers

"""`ClassMap`: names and colours of the classes, void colours, and conversion between colour masks and labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from skystill.errors import ClassesError

VOID = 255
"""Label of a pixel whose class is unknown. Such pixels are neither trained on nor scored."""

Color = tuple[int, int, int]
Labels = npt.NDArray[np.uint8]

# For classes files without colours. Colour-blind people can tell them apart (Okabe, Ito 2008). With more classes than
# colours, the list is repeated in darker shades.
_PALETTE: tuple[Color, ...] = (
    (213, 94, 0), (240, 228, 66), (0, 114, 178), (0, 158, 115), (86, 180, 233), (230, 159, 0), (204, 121, 167),
)  # fmt: skip


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
        indexed: True if the masks hold label numbers, because the classes file gave no colours.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    source: str = "code"
    void_colors: tuple[Color, ...] = ()
    unscored: tuple[str, ...] = ()
    indexed: bool = field(default=False)

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """(C,) bool, True for the classes that count in mean scores."""
        return np.array([name not in self.unscored for name in self.names])

    def palette(self) -> npt.NDArray[np.uint8]:
        """Return the colour of every label as (256, 3) uint8 RGB. Void and unknown labels are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colors
        return table

    def paint(self, labels: Labels) -> npt.NDArray[np.uint8]:
        """Convert labels (H, W) uint8 to a picture (H, W, 3) uint8 RGB in the colours of the classes; void is black."""
        return self.palette()[labels]

    def to_dict(self) -> dict[str, object]:
        """Return the content of a classes file. `classes_from` reads it."""
        entries = [
            {"name": name, "color": hex_color(color), **({"scored": False} if name in self.unscored else {})}
            for name, color in zip(self.names, self.colors, strict=True)
        ]
        return {"classes": entries, "void": [hex_color(c) for c in self.void_colors], "indexed": self.indexed}


def _check(classes: ClassMap) -> None:
    if not 1 <= len(classes.names) <= VOID:
        raise ClassesError(f"{classes.source} has {len(classes.names)} classes; 1 to {VOID} are possible.")
    for what, values in (("name", classes.names), ("colour", (*classes.colors, *classes.void_colors))):
        twice = sorted({str(v) for v in values if list(values).count(v) > 1})
        if twice:
            raise ClassesError(f"{classes.source} gives the {what} {', '.join(twice)} twice; each must be its own.")


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
    raise ClassesError(f'{source}: {value!r} is not a colour; write "#3C1098" (in quotes) or [60, 16, 152].')


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

    The file is a list of `{name, color, scored}`, or a mapping with this list under `classes` and the void colours
    under `void`. The key `title` is accepted instead of `name`, because files of Humans in the Loop use it. Without
    colours, the masks hold label numbers.

    Raises:
        ClassesError: there is no such name or file, or the file does not hold classes.
    """
    if str(name_or_file) in BUILT_IN:
        return BUILT_IN[str(name_or_file)]
    path = Path(name_or_file)
    if not path.is_file():
        raise ClassesError(
            f"{path} is neither a classes file nor a built-in name ({', '.join(BUILT_IN)}). "
            "Write a YAML file with a list of name and color."
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # reads JSON too, which is a subset of YAML
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ClassesError(f"{path} is not YAML or JSON: {error}") from error
    return classes_from(content, str(path))


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
    names: list[str] = []
    colors: list[Color] = []
    unscored: list[str] = []
    with_color = [isinstance(entry, dict) and "color" in entry for entry in entries]
    for index, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {"name": entry}
        name = fields.get("name", fields.get("title"))
        if not isinstance(name, str) or not name:
            raise ClassesError(f"{source}: class {index} has no name: {entry!r}.")
        if any(with_color) and not with_color[index]:
            raise ClassesError(f"{source}: class {name} has no color, others have. Give every class one, or none.")
        names.append(name)
        colors.append(parse_color(fields["color"], source) if with_color[index] else default_color(index))
        if fields.get("scored") is False:
            unscored.append(name)
    void = tuple(parse_color(color, source) for color in mapping.get("void") or ())
    indexed = bool(mapping.get("indexed", not any(with_color)))
    return ClassMap(tuple(names), tuple(colors), source, void, tuple(unscored), indexed)


def default_color(index: int) -> Color:
    """Return the colour of class `index` in a classes file without colours."""
    red, green, blue = _PALETTE[index % len(_PALETTE)]
    shade = 0.7 ** (index // len(_PALETTE))
    return (int(red * shade), int(green * shade), int(blue * shade))


def pack_colors(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Convert (H, W, 3) uint8 RGB to (H, W) uint32, one number per colour: red * 2^16 + green * 2^8 + blue."""
    wide = picture.astype(np.uint32)
    return np.asarray((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2])


def labels_from_colors(picture: npt.NDArray[np.uint8], classes: ClassMap) -> tuple[Labels, dict[Color, int]]:
    """Convert a colour mask to labels.

    Args:
        picture: (H, W, 3) uint8 RGB, the mask.
        classes: the classes with their colours.

    Returns:
        The labels (H, W) uint8, 255 where the colour is void or unknown; and the unknown colours with their pixel
        counts.
    """
    packed = pack_colors(picture)
    labels = np.full(packed.shape, VOID, np.uint8)
    known = np.zeros(packed.shape, bool)
    for label, color in enumerate(classes.colors):
        here = packed == _pack(color)
        labels[here] = label
        known |= here
    for color in classes.void_colors:
        known |= packed == _pack(color)
    if known.all():
        return labels, {}
    values, counts = np.unique(packed[~known], return_counts=True)
    return labels, {_unpack(int(v)): int(n) for v, n in zip(values, counts, strict=True)}


def nearest_class(color: Color, classes: ClassMap) -> tuple[str, Color]:
    """Return name and colour of the class whose colour has the smallest distance to `color` in RGB."""
    distances = ((np.array(classes.colors) - np.array(color)) ** 2).sum(axis=1)
    index = int(distances.argmin())
    return classes.names[index], classes.colors[index]


def _pack(color: Color) -> int:
    return (color[0] << 16) | (color[1] << 8) | color[2]


def _unpack(value: int) -> Color:
    return (value >> 16, (value >> 8) & 255, value & 255)

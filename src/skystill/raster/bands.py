"""Which bands of a raster are red, green and blue, and how their values become bytes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp

from skystill.errors import DataError, SettingsError
from skystill.raster.band_names import alpha_of

Bytes = npt.NDArray[np.uint8]
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_CMYK = (ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow, ColorInterp.black)
_OTHER_COLORS = frozenset(
    {ColorInterp.hue, ColorInterp.saturation, ColorInterp.lightness, ColorInterp.Y, ColorInterp.Cb, ColorInterp.Cr}
)
_OTHER_BANDS = re.compile(r"edge|coastal|deep|far|infra|near|nir")  # "red edge" is not red, "coastal blue" is not blue


@dataclass(frozen=True)
class BandChoice:
    """The bands that are read, and how they become colours.

    Args:
        numbers: numbers of the bands to read; the first band is 1. One for grey or a palette, three for red, green and
            blue, four for cyan, magenta, yellow and black.
        alpha: number of the band of transparency, or None.
        palette: (N, 4) uint8, red, green, blue and alpha of each index; None if the values are no indices.
        notes: what the user should know, without the path.
    """

    numbers: tuple[int, ...]
    alpha: int | None = None
    palette: Bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether these are the first band or the first three, read as they are."""
        return self.palette is None and self.numbers in ((1,), (1, 2, 3))


def choose_bands(file: rasterio.DatasetReader, path: str, wanted: Sequence[int] | None) -> BandChoice:
    """Choose the bands by their descriptions, by their colour interpretation, or by their place.

    Descriptions come first: GDAL marks the first three bands of many files as red, green and blue without being told,
    but nobody writes the description "blue" by accident.

    Args:
        file: the raster.
        path: its name for messages.
        wanted: numbers of three bands, or of one for grey; None chooses.

    Raises:
        DataError: the colours are of a kind that cannot be read.
        SettingsError: the file does not have these bands, or its red, green and blue bands are unknown.
    """
    colors, described = list(file.colorinterp), described_bands(file.descriptions)
    alpha = alpha_of(file)
    if wanted is not None:
        if len(wanted) not in (1, 3) or not all(1 <= band <= file.count for band in wanted):
            raise SettingsError(
                f"{path} has {file.count} band(s); --bands {','.join(map(str, wanted))} must name three of them, "
                "or one for grey."
            )
        palette = _palette(file, wanted[0]) if len(wanted) == 1 else None
        return BandChoice(tuple(wanted), None if alpha in wanted else alpha, palette)
    data = [number for number in range(1, file.count + 1) if number != alpha]
    if len(data) == 1 and colors[data[0] - 1] == ColorInterp.palette:
        return BandChoice((data[0],), alpha, _palette(file, data[0]))
    if described is None and all(color in colors for color in _CMYK):
        return BandChoice(tuple(colors.index(color) + 1 for color in _CMYK), alpha)
    if strange := next((c for c in colors if c in _OTHER_COLORS or c == ColorInterp.palette), None):
        raise DataError(f"{path} has a band of {strange.name}, not red, green and blue; write it as RGB first.")
    numbers = described or _interpreted(colors) or _by_place(path, data)
    return BandChoice(numbers, alpha, notes=_band_notes(file, numbers, described, data))


def described_bands(descriptions: Sequence[str | None]) -> tuple[int, ...] | None:
    """Return the numbers of the bands that are described as red, green and blue; None if that is not so for all three.

    Args:
        descriptions: the description of each band, such as "Red" or "B02 (blue)".
    """
    names = ["" if _OTHER_BANDS.search((text or "").lower()) else (text or "").lower() for text in descriptions]
    found = [[i for i, name in enumerate(names, 1) if re.search(rf"\b{c}\b", name)] for c in ("red", "green", "blue")]
    numbers = tuple(where[0] for where in found if len(where) == 1)
    return numbers if len(set(numbers)) == 3 else None


def cmyk_to_rgb(inks: Bytes) -> Bytes:
    """Convert inks (4, H, W) uint8, where 255 is all ink, to (3, H, W) uint8 RGB."""
    light = 255 - inks.astype(np.uint16)
    return np.asarray((light[:3] * light[3] + 127) // 255, np.uint8)


def look_up(palette: Bytes, index: npt.NDArray[Any]) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """Return the colours of palette indices.

    Args:
        palette: (N, 4) uint8, red, green, blue and alpha of each index.
        index: (H, W) integers. Indices outside the palette are black and not valid.

    Returns:
        planes (3, H, W) uint8 RGB, and (H, W) bool, False where the colour is transparent or missing.
    """
    table = np.concatenate([palette, np.zeros((1, 4), np.uint8)])
    inside = (index >= 0) & (index < len(palette))
    found = table[np.where(inside, index, len(palette))]
    return np.ascontiguousarray(found[..., :3].transpose(2, 0, 1)), found[..., 3] > 0


def _palette(file: rasterio.DatasetReader, number: int) -> Bytes | None:
    if file.colorinterp[number - 1] != ColorInterp.palette:
        return None
    table = file.colormap(number)
    palette = np.zeros((max(table) + 1, 4), np.uint8)
    for index, color in table.items():
        palette[index] = color
    return palette


def _interpreted(colors: Sequence[ColorInterp]) -> tuple[int, ...] | None:
    return tuple(colors.index(color) + 1 for color in _RGB) if all(color in colors for color in _RGB) else None


def _by_place(path: str, data: Sequence[int]) -> tuple[int, ...]:
    if len(data) == 1:
        return tuple(data)
    if len(data) == 2:
        raise SettingsError(
            f"{path} has two bands; an image has three (RGB), or one (grey). Name the grey one with --bands 1, or "
            "write that band alone: gdal_translate -b 1 IN OUT."
        )
    if not data:
        raise SettingsError(f"{path} has only a band of transparency; name the grey one with --bands 1.")
    return tuple(data[:3])


def _says_otherwise(names: Sequence[str], numbers: Sequence[int]) -> bool:
    """Return whether descriptions of bands say something else than that they are counted, or are red, green and blue.

    Codes such as B02 mean other colours for other satellites.
    """
    plain = [name.lower() for name in names]
    counted = all(
        re.fullmatch(rf"((band|layer|channel)[ _-]?)?0*{n}", name) for name, n in zip(plain, numbers, strict=True)
    )
    return any(plain) and not counted and plain != ["r", "g", "b"]


def _band_notes(
    file: rasterio.DatasetReader, numbers: tuple[int, ...], described: tuple[int, ...] | None, data: Sequence[int]
) -> tuple[str, ...]:
    listed, count, colors = ", ".join(map(str, numbers)), file.count, file.colorinterp
    names = [(file.descriptions[number - 1] or "").strip() for number in numbers]
    if described is None and len(numbers) == len(_RGB) and _says_otherwise(names, numbers):
        called = ", ".join(name or "nothing" for name in names)
        return (f"bands {listed} of {count} are taken as RGB, and are called {called} (--bands).",)
    if described is not None and _interpreted(colors) not in (None, described):
        return (f"bands {listed} of {count} are taken as RGB: their descriptions say so, against their colour tags.",)
    if len(data) > len(numbers) or numbers not in ((1, 2, 3), (1,)):
        return (f"bands {listed} of {count} are taken as RGB (--bands).",)
    return ()

"""Names of bands: what a raster calls its bands, and which of them a spec or the user means."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import rasterio
from rasterio.enums import ColorInterp

from skystill.errors import SettingsError
from skystill.raster.input_spec import Band, InputSpec

_COLOR_NAMES = {
    ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue", ColorInterp.nir: "nir",
    ColorInterp.rededge: "rededge", ColorInterp.swir: "swir", ColorInterp.coastal: "coastal", ColorInterp.pan: "pan",
    ColorInterp.mwir: "mwir", ColorInterp.lwir: "lwir", ColorInterp.tir: "tir",
}  # fmt: skip
_KNOWN = (  # the first that fits is the name: "red edge" is not red, "coastal blue" is not blue, "far red" is neither
    (r"red[ _-]?edge[ _-]?(\d*)", "rededge"),
    (r"\bcoastal\b", "coastal"),
    (r"\b(?:near[ _-]?infra[ _-]?red|near[ _-]?ir|nir)[ _-]?(\d*)\b", "nir"),
    (r"\b(?:short[ _-]?wave[ _-]?infra[ _-]?red|swir)[ _-]?(\d*)\b", "swir"),
    (r"\b(?:pan|panchromatic)\b", "pan"),
    (r"\bdeep[ _-]?(\w+)", "deep"),
    (r"\bfar[ _-]?(\w+)", "far"),
    (r"\bred\b", "red"),
    (r"\bgreen\b", "green"),
    (r"\bblue\b", "blue"),
)
_INFRARED = re.compile(r"\binfra[ _-]red\b")  # is not red
_CODE = re.compile(r"\bb(?:and)?[ _-]?0*(\d+a?)\b")
_PLACE = re.compile(r"(?:band|layer|channel|b)?[ _-]?\d+")


@dataclass(frozen=True)
class BandMatch:
    """The bands of a raster that a network is fed.

    Args:
        numbers: their numbers in the raster, in the order of the spec; the first band is 1.
        notes: what the user should know, without the path.
    """

    numbers: tuple[int, ...]
    notes: tuple[str, ...] = ()


def band_name(text: str) -> str:
    """Return the name of a band in the form in which names are compared.

    "B08 (Near Infrared)" is nir, "Red" is red, "B8A" is b8a, "NDVI" is ndvi.
    """
    text = _INFRARED.sub("infrared", text.strip().lower())
    for pattern, name in _KNOWN:
        found = re.search(pattern, text)
        if found:
            return name + (found[1] if found.lastindex and found[1] else "")
    code = _CODE.search(text)
    return f"b{code[1]}" if code else text


def names_of(file: rasterio.DatasetReader) -> list[tuple[str, ...]]:
    """Return the names of each band of a raster, the one that it is known by first.

    Descriptions come first: GDAL marks the first bands of many files as red, green and blue without being told, but
    nobody writes the description "blue" by accident. Bands without a description have the name of their colour
    interpretation, unless the description of another band is that name. Bands of transparency, and bands that are only
    counted, as "Band 4" does, have none.
    """
    described = [_described_names(text) for text in file.descriptions]
    taken = {name for names in described for name in names}
    interpreted = [_COLOR_NAMES.get(color, "") for color in file.colorinterp]
    return [
        names or ((name,) if name and name not in taken and interpreted.count(name) == 1 else ())
        for names, name in zip(described, interpreted, strict=True)
    ]


def _described_names(text: str | None) -> tuple[str, ...]:
    plain = (text or "").strip().lower()
    if not plain or re.fullmatch(r"(?:band|layer|channel)[ _-]?\d+|\d+", plain) or "alpha" in plain:
        return ()
    code = _CODE.search(plain)
    return tuple(dict.fromkeys([band_name(plain), *([f"b{code[1]}"] if code else []), plain]))


def alpha_of(file: rasterio.DatasetReader) -> int | None:
    """Return the number of the band of transparency, or None.

    A band that GDAL calls alpha is one, unless it is described as something else, such as "nir".
    """
    for number, color in enumerate(file.colorinterp, 1):
        text = (file.descriptions[number - 1] or "").lower()
        if color == ColorInterp.alpha and (
            not text or "alpha" in text or "mask" in text or _PLACE.fullmatch(text.strip())
        ):
            return number
    return None


def parse_bands(text: str) -> list[int | str]:
    """Return the bands that the user means: numbers, or names in the form in which they are compared.

    Raises:
        ValueError: a part is empty or 0, a band stands there twice, or numbers and names are mixed.
    """
    parts = [part.strip() for part in text.split(",")]
    found = [int(part) if part.isdecimal() else band_name(part) for part in parts]
    if "" in found or 0 in found:
        raise ValueError("write bands as 4,3,2 (the first band is 1) or as red,green,blue,nir")
    if len({type(one) for one in found}) > 1:
        raise ValueError("write either numbers of bands or names, not both")
    if len(set(found)) < len(found):
        raise ValueError("a band stands there twice")
    return found


def wanted_bands(text: str | None, option: str = "--bands") -> list[int | str] | None:
    """Return the bands that an option names, numbers or names; None if it is not set.

    Args:
        text: the value of the option.
        option: its name, for messages.

    Raises:
        SettingsError: as `parse_bands`.
    """
    try:
        return None if text is None else parse_bands(text)
    except ValueError as error:
        raise SettingsError(f"{option} {text}: {error}.") from error


def pick_bands(file: rasterio.DatasetReader, path: str, wanted: Sequence[int | str]) -> tuple[int, ...]:
    """Return the numbers of the bands of a raster that the user means by `--bands`.

    Args:
        file: the raster.
        path: its name for messages.
        wanted: numbers or names, result of `parse_bands`.

    Raises:
        SettingsError: the raster has no such band, or two of one name.
    """
    names = names_of(file)
    numbers = [one if isinstance(one, int) else _number(names, one, path) for one in wanted]
    missing = [
        one for one, number in zip(wanted, numbers, strict=True) if number is None or not 1 <= number <= file.count
    ]
    if missing:
        raise SettingsError(
            f"{path} has no band {', '.join(map(str, missing))}; it has {describe_bands(file)}. Give other --bands."
        )
    return tuple(number for number in numbers if number is not None)


def match_bands(file: rasterio.DatasetReader, path: str, spec: InputSpec) -> BandMatch:
    """Find the bands of a spec in a raster: by name where the raster names them, otherwise by place.

    Args:
        file: the raster.
        path: its name for messages.
        spec: what the network is fed.

    Raises:
        SettingsError: the raster lacks a band, or two bands would be the same.
    """
    names, alpha = names_of(file), alpha_of(file)
    numbers: list[int] = []
    lacking: list[str] = []
    by_place: list[Band] = []
    for band in spec.bands:
        number = _number(names, band.name, path) if band.name else None
        if number is None:
            here = 1 <= band.number <= file.count and band.number != alpha
            # A band of another name at its place is another band. An unnamed band of the spec may have any name.
            number = band.number if here and not (band.name and names[band.number - 1]) else None
            by_place += [band] if number is not None else []
        if number is None:
            lacking.append(band.label)
        else:
            numbers.append(number)
    if lacking:
        hint = f" Band {alpha} is tagged as transparency." if alpha else ""
        raise SettingsError(
            f"{path} has no band {', '.join(lacking)}; it has {describe_bands(file)}.{hint} The network is fed "
            f"{spec.labels}; say which bands these are with --bands and {len(spec)} numbers, if they are there."
        )
    if len(set(numbers)) < len(numbers):
        raise SettingsError(
            f"{path} has {describe_bands(file)}, and bands {', '.join(map(str, numbers))} would be {spec.labels}: one "
            f"of them twice. Say which bands these are with --bands and {len(spec)} numbers."
        )
    return BandMatch(tuple(numbers), _match_notes(spec, numbers, by_place, file.count))


def _match_notes(spec: InputSpec, numbers: Sequence[int], by_place: Sequence[Band], count: int) -> tuple[str, ...]:
    listed = ", ".join(map(str, numbers))
    if by_place:
        which = "all" if len(by_place) == len(spec) else ", ".join(band.label for band in by_place)
        return (f"bands {listed} of {count} are taken as {spec.labels}, {which} by place and not by name (--bands).",)
    if tuple(numbers) != tuple(band.number for band in spec.bands):
        return (f"bands {listed} of {count} are {spec.labels} by their names.",)
    return ()


def describe_bands(file: rasterio.DatasetReader) -> str:
    """Describe the bands of a raster in words: "4 bands: red, green, blue, transparency"."""
    alpha = alpha_of(file)
    words = [
        "transparency" if number == alpha else names[0] if names else "unnamed"
        for number, names in enumerate(names_of(file), 1)
    ]
    noun = "band" if file.count == 1 else "bands"
    listed = words if len(words) <= 16 else [*words[:16], "..."]
    return f"{file.count} {noun}: {', '.join(listed)}"


def _number(names: Sequence[Sequence[str]], name: str, path: str) -> int | None:
    """Return the number of the band of this name, or None.

    Raises:
        SettingsError: two bands have it.
    """
    found = [number for number, own in enumerate(names, 1) if name in own]
    first = [number for number, own in enumerate(names, 1) if own and own[0] == name]
    found = first if len(first) == 1 else found
    if len(found) > 1:
        raise SettingsError(
            f"{path}: bands {', '.join(map(str, found))} are all called {name}; say which is meant with --bands and "
            "numbers."
        )
    return found[0] if found else None

"""What a teacher of another program is fed: its bands, out of those that the images have, as bytes or as values."""

from collections.abc import Mapping
from dataclasses import replace

from skystill.errors import SettingsError
from skystill.model.adapters import input_scale
from skystill.raster.band_names import parse_bands
from skystill.raster.input_spec import RGB, Band, InputSpec

VALUES = "values"


def foreign_spec(text: str, options: Mapping[str, str], student: InputSpec, offered: InputSpec) -> InputSpec:
    """Return what a teacher is fed whose files do not say it.

    Without options it is fed colours. With `input=values` it is fed the bands of the student. `bands=` chooses others:
    as bytes, or with `input=values` as the values of the images, in their data type.

    Args:
        text: the teacher, for messages.
        options: its options.
        student: what the student is fed.
        offered: all bands of the images, in their data type.

    Raises:
        SettingsError: the images lack a band, or bands are asked for as bytes that are not bytes.
    """
    values = options.get("input") == VALUES
    if "bands" not in options:
        spec = student if values else RGB
    else:
        bands = tuple(_band(text, one, student, offered) for one in _parsed(text, options["bands"]))
        as_bytes = replace(RGB, bands=bands) if len(bands) == 3 else None
        if not values and as_bytes is not None and as_bytes.is_colors:
            return RGB
        spec = InputSpec(bands, offered.dtype)
        if not values and spec.dtype != "uint8":
            raise SettingsError(
                f"teacher {text!r}: the images hold {spec.dtype}, and it would be fed bytes. Feed it their values: "
                "input=values, with divide=, mean= and std= as it was trained."
            )
    return _filled(spec, options) if values else spec


def _parsed(text: str, bands: str) -> list[int | str]:
    try:
        return parse_bands(bands)
    except ValueError as error:
        raise SettingsError(f"teacher {text!r}: bands={bands}: {error}.") from error


def _band(text: str, wanted: int | str, student: InputSpec, offered: InputSpec) -> Band:
    """Return a band with its statistics, or those of the student's other bands if the student is not fed it."""
    for band in student.bands:
        if wanted in (band.name, band.number):
            return band
    for band in offered.bands:
        if wanted in (band.name, band.number):
            return _like(band, student) if student.dtype == offered.dtype else band
    raise SettingsError(f"teacher {text!r}: the images have no band {wanted}; they have {offered.labels}.")


def _like(band: Band, student: InputSpec) -> Band:
    """Return a band with the statistics of all bands of the student: bands of one raster mostly have one unit.

    Without them the teacher would be tried on values from 0 to 255, on which a network of reflectance overflows, and
    pixels without data would be read as 128.
    """
    count = len(student)
    return replace(
        band,
        mean=sum(one.mean for one in student.bands) / count,
        std=sum(one.std for one in student.bands) / count,
        low=min(one.low for one in student.bands),
        high=max(one.high for one in student.bands),
    )


def _filled(spec: InputSpec, options: Mapping[str, str]) -> InputSpec:
    """Return the spec with means that the teacher's own scale makes zero: pixels without data are read as these."""
    if "mean" not in options:
        return spec
    scale = input_scale(options, len(spec))
    means = scale.mean if len(scale.mean) == len(spec) else scale.mean * len(spec)
    bands = [replace(band, mean=mean * scale.divisor) for band, mean in zip(spec.bands, means, strict=True)]
    return replace(spec, bands=tuple(bands))

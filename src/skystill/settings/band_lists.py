"""Settings that list bands of a raster, such as 4,3,2 or red,green,blue,nir. Each raster says which these are."""

from typing import Annotated

from pydantic import AfterValidator


def check_bands(value: str | None) -> str | None:
    """Return a list of bands as it is.

    Raises:
        ValueError: a part is empty or 0, numbers and names are mixed, or a band stands there twice.
    """
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    numbers = [part.isdecimal() for part in parts]
    if not all(parts) or any(numbers) != all(numbers) or any(part.isdecimal() and not int(part) for part in parts):
        raise ValueError("write numbers as 4,3,2 (the first band is 1), or names as red,green,blue,nir")
    if len({part.lower() for part in parts}) < len(parts):
        raise ValueError("a band stands there twice")
    return value


def check_shown(value: str | None) -> str | None:
    """Return a list of bands for a picture as it is.

    Raises:
        ValueError: as `check_bands`, or it does not have three bands or one.
    """
    if check_bands(value) is not None and str(value).count(",") not in (0, 2):
        raise ValueError("write three bands, which become red, green and blue, or one for grey")
    return value


BandList = Annotated[str | None, AfterValidator(check_bands)]
"""Type of a setting that lists the bands of a network."""

ShownBands = Annotated[str | None, AfterValidator(check_shown)]
"""Type of a setting that lists the bands of a picture."""

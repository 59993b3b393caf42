"""`InputSpec`: what a network is fed. Everything that reads pixels for a network reads them by its spec."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DTYPES = ("uint8", "uint16", "int16", "float32")
"""Data types of the pixels that a network can be fed."""

MAX_BANDS = 64

UNITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""What bytes can be divided by. Whole images of two far colours have 64 as well: nothing is gained by more."""

_COLORS = ("red", "green", "blue")


@dataclass(frozen=True)
class Band:
    """One band of the input of a network.

    Args:
        name: its name, such as "nir"; empty if the training images do not name it.
        number: its number in the first training image; the first band is 1.
        mean, std: mean and standard deviation over the valid pixels of the training images.
        low, high: smallest and largest value of these pixels.
    """

    name: str
    number: int
    mean: float = 128.0
    std: float = 64.0
    low: float = 0.0
    high: float = 255.0

    @property
    def label(self) -> str:
        """The name, or "band 4" without one."""
        return self.name or f"band {self.number}"


@dataclass(frozen=True)
class InputSpec:
    """What a network is fed: bands in this order, as an array (B, H, W) of this data type.

    The network gets the raster's own values, and normalises them itself. Only red, green and blue in bytes are colours:
    these may also come from a palette, from grey, from CMYK, or from values of more bits that are stretched to bytes.

    Args:
        bands: 1 to 64 bands.
        dtype: "uint8", "uint16", "int16" or "float32".
        nodata: the nodata value that all training images share, or None. Pixels without data are found by the rules of
            each raster, not by this value.
        resolution_m: metres on the ground per pixel that all training images share, or None.
        resolution_range_m: the smallest and the largest of their resolutions, or None if they have none.
        zero, unit: three bands of bytes are normalised to (x - zero) / unit. All three have the same two numbers, so
            that INT8 can read the bytes as they are. The unit is a power of two, so that the quotient is exact. Other
            inputs are normalised by the statistics of each band.

    Raises:
        ValueError: the bands, the data type, zero or unit are not of these.
    """

    bands: tuple[Band, ...]
    dtype: str = "uint8"
    nodata: float | None = None
    resolution_m: float | None = None
    resolution_range_m: tuple[float, float] | None = None
    zero: int = 128
    unit: float = 64.0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"pixels of {self.dtype}; a network is fed {', '.join(DTYPES)}")
        if not 1 <= len(self.bands) <= MAX_BANDS:
            raise ValueError(f"{len(self.bands)} bands; a network is fed 1 to {MAX_BANDS}")
        names = [band.name for band in self.bands if band.name]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the band {', '.join(twice)} twice; each must be its own")
        if not all(band.std > 0 and math.isfinite(band.mean) and math.isfinite(band.std) for band in self.bands):
            raise ValueError("a band whose mean is not finite, or whose standard deviation is not above 0")
        if not (0 <= self.zero <= 255 and self.unit in UNITS):
            raise ValueError(
                f"bytes are normalised by {self.zero} and {self.unit}; 0 to 255 and one of {UNITS} are known"
            )

    def __len__(self) -> int:
        return len(self.bands)

    @property
    def is_colors(self) -> bool:
        """Whether these are red, green and blue in bytes."""
        return self.is_three_bytes and self.names == _COLORS

    @property
    def is_three_bytes(self) -> bool:
        """Whether these are three bands of bytes. They are normalised alike, and INT8 takes them as they are."""
        return self.dtype == "uint8" and len(self.bands) == 3

    @property
    def kind(self) -> np.dtype[Any]:
        """The data type as numpy has it."""
        return np.dtype(self.dtype)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each band, empty where it has none."""
        return tuple(band.name for band in self.bands)

    @property
    def labels(self) -> str:
        """The bands in words: "red, green, band 4"."""
        return ", ".join(band.label for band in self.bands)

    @property
    def fill(self) -> npt.NDArray[Any]:
        """(B,) in the data type: the value of pixels without data, which is the mean of each band.

        The network normalises it to zero, which is what its convolutions pad with. Pixels of colours keep their values.
        """
        means = np.array([band.mean for band in self.bands])
        if self.kind.kind == "f":
            return means.astype(self.kind)
        limits = np.iinfo(self.kind)
        return np.asarray(np.clip(np.rint(means), limits.min, limits.max), self.kind)

    @property
    def reading(self) -> str:
        """How pixels are read by this spec, for keys of caches: two specs with the same text give the same pixels.

        It is empty for colours.
        """
        if self.is_colors:
            return ""
        bands = [(band.name, band.number) for band in self.bands]
        return repr((bands, self.dtype, self.fill.tolist()))

    def takes(self, image: npt.NDArray[Any]) -> bool:
        """Whether an array is an image (H, W, B) with pixels, of these bands and this data type."""
        return image.ndim == 3 and image.size > 0 and image.shape[2] == len(self) and image.dtype == self.kind

    def to_dict(self) -> dict[str, object]:
        """Return the content for JSON and YAML. `spec_from` reads it."""
        shared = None if self.resolution_range_m is None else list(self.resolution_range_m)
        # Without the two numbers that most images have, which were the only ones before: files stay as they were.
        scale = {} if (self.zero, self.unit) == (128, 64.0) else {"zero": self.zero, "unit": self.unit}
        return scale | {
            "bands": [{name: getattr(band, name) for name in Band.__dataclass_fields__} for band in self.bands],
            "dtype": self.dtype,
            "nodata": self.nodata if self.nodata is None or math.isfinite(self.nodata) else str(self.nodata),
            "resolution_m": self.resolution_m,
            "resolution_range_m": shared,
        }


def spec_from(content: Mapping[str, Any]) -> InputSpec:
    """Return the spec that `InputSpec.to_dict` wrote.

    Raises:
        ValueError, TypeError, KeyError: the content is not that of a spec.
    """
    bands = tuple(
        Band(str(b["name"]), int(b["number"]), *(float(b[key]) for key in ("mean", "std", "low", "high")))
        for b in content["bands"]
    )
    nodata, resolution, both = (content.get(key) for key in ("nodata", "resolution_m", "resolution_range_m"))
    return InputSpec(
        bands,
        str(content["dtype"]),
        None if nodata is None else float(nodata),
        None if resolution is None else float(resolution),
        None if both is None else (float(both[0]), float(both[1])),
        int(content.get("zero", 128)),
        float(content.get("unit", 64.0)),
    )


RGB = InputSpec(tuple(Band(name, number) for number, name in enumerate(_COLORS, 1)))
"""Red, green and blue in bytes, 0 to 255."""

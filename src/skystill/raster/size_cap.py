"""The cap on images and masks that are read whole, checked against the size that a file declares before it is decoded.

Training and evaluation hold images and masks in memory. Prediction and `--unlabeled` read windows, and need no cap.
"""

from skystill.environment import number_in_environment
from skystill.errors import DataError

DEFAULT_VALUES = 2**28
"""Most values (pixels x bands) of an image, or of a mask, by default: 9,459 x 9,459 pixels of three bands."""
BYTES_PER_VALUE = 2
"""The cap in bytes is this number times the cap in values: wider pixels would take several times the memory."""
VARIABLE = "SKYSTILL_MAX_IMAGE_VALUES"
"""Environment variable that holds another number. Processes that are started for training inherit it."""


def check_size(path: object, height: int, width: int, bands: int, itemsize: int = 1) -> None:
    """Check that an image or mask is small enough to be held in memory.

    Args:
        path: the file, for the message.
        height: the number of rows that it declares.
        width: the number of columns.
        bands: values of a pixel.
        itemsize: bytes of a value.

    Raises:
        DataError: it has more values than the cap, or more bytes than `BYTES_PER_VALUE` times the cap.
        SettingsError: the environment variable holds something else than a number above 0.
    """
    values, most = height * width * bands, max_image_values()
    wanted = max(values, -(-values * itemsize // BYTES_PER_VALUE))
    if wanted <= most:
        return
    raise DataError(
        f"{path} has {width:,} x {height:,} pixels with {bands} value(s) each: {values * itemsize / 2**30:,.1f} GiB "
        "when decoded, and several times that with its labels. Images with masks, and masks, are read whole, up to "
        f"{most:,} values and {BYTES_PER_VALUE * most:,} bytes. Cut it into smaller images, its mask likewise "
        "(gdal_translate -srcwin X Y WIDTH HEIGHT IN OUT): large rasters are read in windows only by predict and "
        f"--unlabeled. With enough memory, {VARIABLE}={wanted} in the environment raises the cap."
    )


def max_image_values() -> int:
    """Return the cap in values: that of the environment, or `DEFAULT_VALUES`.

    Raises:
        SettingsError: the environment variable holds something else than a number above 0.
    """
    expected = "a number of values (pixels x bands) above 0"
    return int(number_in_environment(VARIABLE, DEFAULT_VALUES, expected, 1, 10**18))

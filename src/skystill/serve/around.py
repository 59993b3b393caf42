"""What stands around the pixels of an image: texts, metadata and further images, which GDAL reads when it opens a file.

A few megabytes of a PNG may be gigabytes of text, and 200 MB of metadata in a TIFF took 3 GB of memory and a minute. So
this is counted first, from the tables of the file alone.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from skystill.serve.kinds import PNG, TIFF, Kind
from skystill.serve.problems import Problem

PACKED_TEXT_BYTES = 64 * 2**10
"""Most bytes of compressed texts in a PNG. Each may be a thousand bytes of text."""
METADATA_BYTES = 4 * 2**20
"""Most bytes of texts and other metadata in a PNG or TIFF."""
MOST_CHUNKS = 200_000
"""Most chunks of a PNG. GDAL and Pillow write one for each 8 or 64 kB."""
MOST_IMAGES = 64
"""Most images in a TIFF, overviews and masks included."""
MOST_TAGS = 1_024
_BYTES_OF_TYPE = {1: 1, 2: 1, 6: 1, 7: 1}  # BYTE, ASCII, SBYTE, UNDEFINED: what metadata are written in


def check_around(path: Path, kind: Kind) -> None:
    """Check what stands around the pixels of an image.

    Args:
        path: the image.
        kind: its kind, by its first bytes.

    Raises:
        Problem: it is too much. A table that is damaged is left to GDAL.
    """
    with open(path, "rb") as file:
        if kind is PNG:
            _check_png(file)
        elif kind is TIFF:
            _check_tiff(file)


def _check_png(file: BinaryIO) -> None:
    packed = texts = 0
    for number, (name, size, is_packed) in enumerate(_chunks(file)):
        if number >= MOST_CHUNKS:
            raise Problem(413, f"The PNG has more than {MOST_CHUNKS:,} chunks. Write it again with another program.")
        packed += size if is_packed else 0
        texts += size if name not in (b"IDAT", b"IEND") else 0
        if packed > PACKED_TEXT_BYTES or texts > METADATA_BYTES:
            raise _too_much(PACKED_TEXT_BYTES if packed > PACKED_TEXT_BYTES else METADATA_BYTES)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, bool]]:
    """Yield name and size of each chunk, and whether it is a compressed text."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, name = struct.unpack(">I4s", head)
        is_packed = name == b"zTXt"
        if name == b"iTXt":  # a keyword of at most 79 bytes, a zero, and whether it is compressed
            begin = file.read(min(size, 81))
            is_packed = begin.partition(b"\0")[2][:1] != b"\0"
            file.seek(-len(begin), 1)
        yield name, size, is_packed
        if name == b"IEND":  # what follows is not read
            return
        file.seek(size + 4, 1)


def _check_tiff(file: BinaryIO) -> None:
    metadata = 0
    try:
        for number, tags in enumerate(_tables(file)):
            if number >= MOST_IMAGES:
                raise Problem(
                    413, f"The TIFF has more than {MOST_IMAGES} images. Send the first: gdal_translate IN OUT.tif."
                )
            metadata += sum(size * _BYTES_OF_TYPE.get(kind, 0) for _, kind, size in tags)
            if metadata > METADATA_BYTES:
                raise _too_much(METADATA_BYTES)
    except struct.error:
        return  # it was cut, which GDAL says


def _tables(file: BinaryIO) -> Iterator[list[tuple[int, int, int]]]:
    """Yield the tags of each image: number, type, and how many values it has."""
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    count, entry, place = ("Q", "HHQ8x", "Q") if head[2:4] in (b"+\0", b"\0+") else ("H", "HHI4x", "I")

    def read(form: str) -> int:
        return int(struct.unpack(order + form, file.read(struct.calcsize(order + form)))[0])

    file.seek(8 if place == "Q" else 4)
    while at := read(place):
        file.seek(at)
        tags = read(count)
        if tags > MOST_TAGS:
            raise Problem(413, f"The TIFF has {tags:,} tags. Write it again: gdal_translate IN OUT.tif.")
        yield list(struct.iter_unpack(order + entry, file.read(tags * struct.calcsize(order + entry))))


def _too_much(most: int) -> Problem:
    return Problem(
        413, f"The image has more than {most // 2**10:,} kB of texts and metadata around its pixels. Write it again "
        "without them.",
    )  # fmt: skip

"""Files with much around their pixels: texts, metadata, further images."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(chunks: bytes, image: bytes | None = None) -> bytes:
    """A PNG with these chunks before its pixels."""
    if image is None:
        made = io.BytesIO()
        Image.fromarray(np.arange(768, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3)).save(made, "png")
        image = made.getvalue()
    at = image.index(b"IDAT") - 4
    return image[:at] + chunks + image[at:]


def tiff_with(tags: int, images: int, order: str = "<", big: bool = False, again: bool = False) -> bytes:
    """Tables of a TIFF: so many texts of a megabyte each in so many images, which may go round."""
    count, entry, place = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    table = struct.pack(order + count, tags) + tags * struct.pack(order + entry, 42112, 2, 2**20, 8)
    size = len(table) + struct.calcsize(place)
    mark = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    found = mark + (struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8))
    at = len(found)
    for number in range(images):
        following = 0 if number == images - 1 and not again else at + size * ((number + 1) % images)
        found += table + struct.pack(order + place, following)
    return found

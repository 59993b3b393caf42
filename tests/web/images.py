"""Images of every kind that the page reads, and of kinds that it refuses, made by the test."""

import functools
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from skystill.data.scenes import paint_scene

Planes = npt.NDArray[Any]

POINTS = [
    GroundControlPoint(row, column, 55 + column / 1e4, 25 - row / 1e4)
    for row, column in ((0, 0), (0, 230), (150, 0), (150, 220))
]
UTM = {"crs": "EPSG:32640", "transform": from_origin(330000, 2790000, 0.5, 0.5)}


@functools.cache
def _painted() -> npt.NDArray[np.uint8]:
    return paint_scene(250, 5)[0].transpose(2, 0, 1)


def scene(height: int, width: int) -> npt.NDArray[np.uint8]:
    """(3, H, W) uint8: a procedural scene, repeated."""
    times = -(-max(height, width) // 250)
    return np.ascontiguousarray(np.tile(_painted(), (1, times, times))[:, :height, :width])


def write_tiff(path: Path, planes: Planes, **options: Any) -> Path:
    """Write planes (B, H, W). `mask`, `descriptions`, `colorinterp` and `tags` are set after the pixels."""
    after = {name: options.pop(name, None) for name in ("mask", "descriptions", "colorinterp", "tags")}
    count, height, width = planes.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", **{"driver": "GTiff", **options}, count=count, height=height, width=width, dtype=planes.dtype
        ) as file,
    ):
        file.write(planes)
        if after["mask"] is not None:
            file.write_mask(after["mask"])
        if after["descriptions"]:
            file.descriptions = after["descriptions"]
        file.update_tags(**(after["tags"] or {}))
        if after["colorinterp"]:
            file.colorinterp = [ColorInterp[name] for name in after["colorinterp"]]
    return path


def write_tiffs(folder: Path) -> dict[str, Path]:
    """TIFFs of 8 bits by what is special in them."""
    rgb = scene(150, 230)
    holes = rgb.copy()
    holes[:, 20:60, 30:90] = 0
    alpha = np.full((1, 150, 230), 255, np.uint8)
    alpha[:, 100:, :40] = 0
    mask = np.full((150, 230), True)
    mask[:50, 200:] = False
    tiled: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 48}
    gap = rgb.copy()
    gap[:, :, 64:128] = 9  # whole blocks, which are not stored
    four = np.concatenate([rgb[::-1], 255 - rgb[:1]])
    return {name: write_tiff(folder / f"{name}.tif", planes, **options) for name, planes, options in (
        ("plain", rgb, {"photometric": "rgb"}),
        ("deflate-predicted", rgb, {**tiled, **UTM, "compress": "deflate", "predictor": 2, "photometric": "rgb"}),
        ("lzw-strips", rgb, {"compress": "lzw", "predictor": 2, "blockysize": 7, "photometric": "rgb"}),
        ("lzw-bands", rgb, {**tiled, "compress": "lzw", "interleave": "band", "photometric": "rgb"}),
        ("zstd", rgb, {**tiled, "compress": "zstd"}),
        ("packbits-bands", rgb, {"compress": "packbits", "interleave": "band"}),
        ("big", rgb, {**tiled, "bigtiff": "yes", "photometric": "rgb"}),
        ("other-order", rgb, {**tiled, "endianness": "big", "photometric": "rgb"}),
        ("nodata", holes, {**tiled, **UTM, "compress": "deflate", "nodata": 0, "photometric": "rgb"}),
        ("alpha", np.concatenate([rgb, alpha]), {**tiled, "photometric": "rgb", "alpha": "yes"}),
        ("mask", rgb, {**tiled, **UTM, "compress": "deflate", "photometric": "rgb", "mask": mask}),
        ("grey", rgb[:1], {"compress": "lzw"}),
        ("white-is-zero", rgb[:1], {"photometric": "miniswhite"}),
        ("by-description", four, {"descriptions": ("Blue", "Green", "Red", "Near infrared")}),
        ("by-tag", four, {"colorinterp": ("blue", "green", "red", "undefined")}),
        ("five-by-place", np.concatenate([rgb, rgb[:2]]), {**tiled, "photometric": "minisblack"}),
        ("cloud-optimised", rgb, {"driver": "COG", "compress": "deflate", "blocksize": 128, "mask": mask, **UTM}),
        ("point", rgb, {**UTM, "photometric": "rgb", "tags": {"AREA_OR_POINT": "Point"}}),
        ("control-points", rgb, {"photometric": "rgb", "gcps": POINTS, "crs": "EPSG:4326"}),
        ("one-strip", scene(400, 500), {"blockysize": 400, "photometric": "rgb"}),
        ("strips-of-bands", rgb, {"blockysize": 60, "interleave": "band", "photometric": "rgb"}),
        ("sparse", gap, {**tiled, "sparse_ok": True, "nodata": 9, "photometric": "rgb"}),
    )}  # fmt: skip


def write_pngs(folder: Path) -> dict[str, Path]:
    """PNGs of up to 8 bits by what is special in them."""
    rgb = scene(110, 131).transpose(1, 2, 0)
    whole = Image.fromarray(rgb)
    clear = np.full((110, 131, 1), 255, np.uint8)
    clear[30:60, 20:90] = 0
    clear[70:, 100:] = 90
    palette = whole.quantize(60)
    found = {
        "rgb": whole, "rgba": Image.fromarray(np.concatenate([rgb, clear], axis=2)), "grey": whole.convert("L"),
        "bits": whole.convert("1"), "palette": palette, "two-colours": whole.quantize(4),
        "grey-alpha": Image.fromarray(np.concatenate([rgb[..., :1], clear], axis=2), "LA"),
    }  # fmt: skip
    for name, picture in found.items():
        picture.save(folder / f"{name}.png")
    whole.save(folder / "transparent-colour.png", transparency=tuple(int(value) for value in rgb[5, 5]))
    palette.save(folder / "transparent-index.png", transparency=palette.getpixel((5, 5)))
    (folder / "interlaced.png").write_bytes(interlaced(rgb))
    names = (*found, "transparent-colour", "transparent-index", "interlaced")
    return {name: folder / f"{name}.png" for name in names}


def interlaced(rgb: npt.NDArray[np.uint8]) -> bytes:
    """An Adam7 PNG of (H, W, 3) uint8; Pillow and GDAL read these, but do not write them."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [rgb[top::down, left::across] for top, left, down, across in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part if row.size)
    head = struct.pack(">IIBBBBB", rgb.shape[1], rgb.shape[0], 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_tag(content: bytes, tag: int, value: int) -> bytes:
    """A TIFF whose first directory has another value of a tag that holds one number."""
    begin = int.from_bytes(content[4:8], "little") + 2
    at = next(at for at in range(begin, len(content), 12) if content[at : at + 2] == struct.pack("<H", tag))
    return content[: at + 8] + struct.pack("<I", value) + content[at + 12 :]


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def write_refused(folder: Path) -> dict[str, tuple[Path, str]]:
    """Images that a network of colours is not fed, each with a part of the message."""
    rgb = scene(80, 90).transpose(1, 2, 0)
    whole = Image.fromarray(rgb)
    png, jpeg, lossless = encoded(whole, "PNG"), encoded(whole, "JPEG"), encoded(whole, "WEBP", lossless=True)
    clear = Image.fromarray(np.concatenate([rgb, np.full((80, 90, 1), 128, np.uint8)], axis=2))
    turned = Image.Exif()
    turned[274] = 6
    table: list[tuple[str, bytes, str]] = [
        ("deep.png", encoded(Image.fromarray(rgb[..., 0].astype(np.uint16) * 200), "PNG"), "holds uint16"),
        ("cut.png", png[: len(png) // 2], "damaged: its end is missing"),
        ("flipped.png", png[:3000] + bytes([png[3000] ^ 1]) + png[3001:], "check sum"),
        ("cut.jpg", jpeg[: len(jpeg) // 2], "damaged: its end is missing"),
        ("inks.jpg", encoded(whole.convert("CMYK"), "JPEG"), "CMYK"),
        ("sideways.png", encoded(whole, "PNG", exif=turned), "sideways"),
        ("clear.webp", encoded(clear, "WEBP"), "transparent pixels"),
        (
            "huge.png",
            png[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0)) + png[33:],
            "50000 x 50000 pixels take 12500 MB; this page reads up to 1000 MB",
        ),
        (
            "huge.jpg",
            jpeg.replace(struct.pack(">HH", 80, 90), struct.pack(">HH", 60000, 50000), 1),
            "50000 x 60000 pixels take 15000 MB; this page reads up to 1000 MB",
        ),
        (
            "huge.webp",
            lossless[:21]
            + struct.pack("<I", 16382 | 16381 << 14 | struct.unpack("<I", lossless[21:25])[0] & 0xF0000000)
            + lossless[25:],
            "16383 x 16382 pixels take 1342 MB; this page reads up to 1000 MB",
        ),
        ("notes.png", b"these are notes", "no JPEG, PNG, WebP or TIFF"),
        ("empty.tif", b"", "empty"),
    ]
    found = {name: (folder / name, said) for name, _, said in table}
    for name, content, _ in table:
        (folder / name).write_bytes(content)
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    whole_tiff = write_tiff(folder / "whole.tif", planes, tiled=True, blockxsize=32, blockysize=32).read_bytes()
    (folder / "cut.tif").write_bytes(whole_tiff[:-2000])
    found["cut.tif"] = folder / "cut.tif", "damaged: "
    packed = bytearray(write_tiff(folder / "packed.tif", planes, compress="deflate").read_bytes())
    packed[-900:-800] = bytes(100)
    (folder / "packed.tif").write_bytes(packed)
    found["packed.tif"] = folder / "packed.tif", "damaged"
    zstd = write_tiff(folder / "zstd.tif", planes, compress="zstd").read_bytes()
    (folder / "zstd.tif").write_bytes(zstd.replace(b"\x28\xb5\x2f\xfd", bytes(4), 1))  # how a frame begins
    found["zstd.tif"] = folder / "zstd.tif", "holds 0 of 8100 bytes"
    strip = write_tiff(folder / "strip.tif", planes, photometric="rgb", blockysize=80).read_bytes()
    for name, tag, value, said in (
        ("no-length.tif", 279, 0, "block 0 has a place and no length"),
        ("white-is-zero.tif", 262, 0, "several bands in which white is zero"),
    ):
        (folder / name).write_bytes(with_tag(strip, tag, value))
        found[name] = folder / name, said
    plain = bytearray(whole_tiff)
    begin = int.from_bytes(plain[4:8], "little")
    following = begin + 2 + 12 * int.from_bytes(plain[begin : begin + 2], "little")
    plain[following : following + 4] = plain[4:8]  # the images go round in a circle
    (folder / "circle.tif").write_bytes(plain)
    for name, content, options, said in (
        ("two.tif", planes[:2], {}, "two bands"),
        ("deep.tif", planes.astype(np.uint16), {}, "holds uint16"),
        ("float.tif", planes.astype(np.float32), {}, "holds float32"),
        ("inks.tif", np.concatenate([planes, planes[:1]]), {"photometric": "cmyk"}, "inks"),
        ("nothing.tif", np.zeros_like(planes), {"nodata": 0}, "no pixel with data"),
        ("webp.tif", planes, {"compress": "lerc"}, "compressed by a method"),
    ):
        found[name] = write_tiff(folder / name, content, **options), said
    with rasterio.open(write_tiff(folder / "indices.tif", planes[:1] % 4, photometric="palette"), "r+") as file:
        file.write_colormap(1, {value: (10 * value, 0, 0, 255) for value in range(4)})
    found["indices.tif"] = folder / "indices.tif", "indices of a palette"
    return found

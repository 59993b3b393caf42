"""Files whose content is not what their name says: none of them reaches a server, a program, or another file."""

import os
import re
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import RasterioError
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT

from skystill.data.mask_files import read_mask
from skystill.errors import DataError
from skystill.raster import vrt
from skystill.raster.opening import RasterRefused, drivers_of, is_remote, open_raster
from skystill.raster.overwriting import source_files
from skystill.raster.picture import read_whole
from tests.measured import run

SECRET = b"root:x:0:0:"
SIDE = 64


class Server:
    """A server that counts who comes, and says nothing."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.calls = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            self.calls += 1
            connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.socket.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a secret file, pictures, and a program `gs` that leaves a mark when it is started."""
    (tmp_path / "secret").write_bytes(SECRET.ljust(SIDE * SIDE, b"x"))
    pixels = np.arange(SIDE * SIDE * 3, dtype=np.uint32).reshape(SIDE, SIDE, 3).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "good.png")
    write(tmp_path / "good.tif", pixels)
    (tmp_path / "bin").mkdir()
    for program in ("gs", "gswin64c", "gswin32c"):
        path = tmp_path / "bin" / program
        path.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "2")
    return tmp_path


def write(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], driver: str = "GTiff") -> None:
    height, width, count = pixels.shape
    with rasterio.open(path, "w", driver=driver, height=height, width=width, count=count, dtype="uint8") as file:
        file.write(pixels.transpose(2, 0, 1))


def raw(name: Path | str, bands: int = 1, more: str = "") -> str:
    band = (
        '<VRTRasterBand dataType="Byte" band="{}" subClass="VRTRawRasterBand"><SourceFilename relativetoVRT="0">'
        f"{name}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>{SIDE}"
        f"</LineOffset>{more}</VRTRasterBand>"
    )
    return dataset("".join(band.format(number + 1) for number in range(bands)))


def dataset(inside: str, kind: str = "") -> str:
    return f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"{kind}>{inside}</VRTDataset>'


def source(name: Path | str, tag: str = "SimpleSource", relative: str = "1", more: str = "") -> str:
    return dataset(
        f'<VRTRasterBand dataType="Byte" band="1"><{tag}><SourceFilename relativeToVRT="{relative}">{name}'
        f"</SourceFilename><SourceBand>1</SourceBand>{more}</{tag}></VRTRasterBand>"
    )


def wms(port: int) -> str:
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:{port}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
        "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>10</UpperLeftY><LowerRightX>10</LowerRightX><LowerRightY>0"
        f"</LowerRightY><SizeX>{SIDE}</SizeX><SizeY>{SIDE}</SizeY></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
    )


EPS = (
    "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n%%BeginProlog\n%%EndProlog\n"
    "0 0 64 64 rectfill\nshowpage\n%%EOF\n"
)
PDF = "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n%%EOF\n"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><rect width="64" height="64"/></svg>'
HTML = "<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
NETCDF = b"CDF\x01" + bytes(28)
NAMES = ("photo.jpg", "photo.JPEG", "photo.png", "photo.tif", "photo.TIFF", "photo.bmp", "photo.webp", "photo.jp2")
SERVICES = ("wms", "wcs", "wmts", "stac", "mrf", "tile index")


def hostile(kind: str, here: Path, port: int) -> bytes:
    url = f"http://127.0.0.1:{port}/x.tif"
    made = {
        "raw VRT": raw(here / "secret", 3),
        "VRT": source("good.png"),
        "VRT of a server": source(f"/vsicurl/{url}"),
        "wms": wms(port),
        "wcs": f"<WCS_GDAL><ServiceURL>http://127.0.0.1:{port}/?</ServiceURL><CoverageName>a</CoverageName></WCS_GDAL>",
        "wmts": f"<GDAL_WMTS><GetCapabilitiesUrl>http://127.0.0.1:{port}/c</GetCapabilitiesUrl></GDAL_WMTS>",
        "stac": '{"type":"FeatureCollection","stac_version":"1.0.0","features":[],"links":[{"href":"' + url + '"}]}',
        "mrf": f"<MRF_META><CachedSource><Source>/vsicurl/{url}</Source></CachedSource><Raster><Size x='64' y='64' "
        "c='3'/><PageSize x='64' y='64' c='3'/></Raster></MRF_META>",
        "tile index": f"<GDALTileIndexDataset><IndexDataset>/vsicurl/{url}</IndexDataset></GDALTileIndexDataset>",
        "EPS": EPS,
        "PDF": PDF,
        "SVG": SVG,
        "HTML": HTML,
    }
    return NETCDF if kind == "NetCDF" else made[kind].encode()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "kind", ["raw VRT", "VRT", "VRT of a server", *SERVICES, "EPS", "PDF", "SVG", "HTML", "NetCDF"]
)
def test_content_does_not_choose_the_opener(here: Path, server: Server, kind: str, name: str) -> None:
    path = here / name
    path.write_bytes(hostile(kind, here, server.port))
    with pytest.raises(DataError, match=rf"{name}: cannot be read.*ends in {path.suffix.lower()} must be a TIFF, JPEG"):
        read_whole(path)
    with pytest.raises(DataError, match=name):
        read_mask(path)
    assert source_files(str(path)) == [path]
    assert server.calls == 0 and not (here / "started").exists()


def test_the_files_of_this_table_do_harm_elsewhere(here: Path, server: Server) -> None:
    """Without it, the tests above might pass because the files are no good."""
    path = here / "photo.jpg"
    path.write_bytes(hostile("raw VRT", here, server.port))
    with rasterio.open(path) as file:
        assert bytes(file.read(1)[0, : len(SECRET)]) == SECRET
    path.write_bytes(hostile("wms", here, server.port))
    with rasterio.open(path) as file, pytest.raises(RasterioError):
        file.read()
    assert server.calls > 0
    path.write_bytes(hostile("EPS", here, server.port))
    with Image.open(path) as picture, pytest.raises(OSError):
        picture.load()
    assert (here / "started").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "exact"), [("GTiff", True), ("PNG", True), ("JPEG", False), ("BMP", True)])
def test_pictures_may_have_the_names_of_other_pictures(here: Path, kind: str, exact: bool, name: str) -> None:
    pixels = np.full((SIDE, SIDE, 3), 0, np.uint8) + np.array([200, 100, 50], np.uint8)
    path = here / name
    if kind == "GTiff":
        write(path, pixels)
    else:
        Image.fromarray(pixels).save(path, kind)
    assert np.abs(read_whole(path).image.astype(int) - pixels).max() <= (0 if exact else 3)
    found = read_mask(path)
    assert found.index is None and np.abs(found.picture.astype(int) - pixels).max() <= (0 if exact else 3)


@pytest.mark.parametrize(
    ("name", "driver"),
    [("a.img", "HFA"), ("a.asc", "AAIGrid"), ("a.nc", "netCDF"), ("a.bil", "EHdr"), ("a.dat", "ENVI"), ("a", "GTiff"),
     ("a.pgm", "PNM"), ("a.grd", "GSBG"), ("a.gif", "GIF"), ("a.rst", "RST")],
)  # fmt: skip
def test_files_of_other_kinds_are_opened_where_the_user_names_them(here: Path, name: str, driver: str) -> None:
    with rasterio.open(here / "grey.tif", "w", driver="GTiff", height=8, width=8, count=1, dtype="uint8") as file:
        file.write(np.full((1, 8, 8), 9, np.uint8))
    copy(here / "grey.tif", here / name, driver=driver)
    with open_raster(here / name) as file:
        assert file.driver == driver and (file.read(1) == 9).all()
    subdataset = f"NETCDF:{here / name}:Band1"
    if driver == "netCDF":
        with open_raster(subdataset) as file:
            assert (file.read(1) == 9).all()


def test_netcdf_stored_as_hdf5_is_refused(here: Path) -> None:
    """HDF5 can take values from a file that it names ("external storage")."""
    write(here / "grey.tif", np.full((8, 8, 1), 9, np.uint8))
    copy(here / "grey.tif", here / "a.nc", driver="netCDF", format="NC4")
    assert (here / "a.nc").read_bytes().startswith(b"\x89HDF")
    for name in (str(here / "a.nc"), f"NETCDF:{here / 'a.nc'}:Band1"):
        with pytest.raises(RasterRefused, match=r"a\.nc is stored as HDF5, which can take values from other files"):
            open_raster(name)
    (here / "a.nc").rename(here / "a.h5")
    with pytest.raises(RasterRefused, match=r"Convert it: gdal_translate"):
        open_raster(here / "a.h5")


@pytest.mark.parametrize(
    "name",
    ["WMS:http://127.0.0.1:{port}/wms?SERVICE=WMS&LAYERS=a&SRS=EPSG:4326&BBOX=0,0,1,1", "vrt://{here}/good.png",
     "DERIVED_SUBDATASET:LOGAMPLITUDE:{here}/good.tif", "<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>",
     "<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:{port}</ServerUrl></Service></GDAL_WMS>",
     "STACIT:\"http://127.0.0.1:{port}/s\"", "/vsizip/{here}/a.zip/a.vrt", "/vsimem/a.vrt"],
)  # fmt: skip
def test_names_that_are_descriptions_are_no_files(here: Path, server: Server, name: str) -> None:
    with pytest.raises(RasterioError):
        open_raster(name.format(here=here, port=server.port))
    assert server.calls == 0


GOOD, SECRET_BAND = source("good.png"), raw("HERE/secret")
DERIVED = '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">{}</VRTRasterBand>'
MASK = SECRET_BAND.split(">", 1)[1].removesuffix("</VRTDataset>")
RAW = "holds a VRTRawRasterBand, which shows the bytes of any file as pixels"
REMOTE, OTHER = "which is a file on a server", "which is no plain file"
UNLIKE, OPENS = "not what its name says", "begins as a file that names other files"
ALONE = "must hold a file name, and nothing else"


def with_end(text: str, end: str) -> str:
    return text.replace("</VRTDataset>", f"{end}</VRTDataset>")


def metadata(domain: str, key: str, value: str) -> str:
    return with_end(GOOD, f'<Metadata domain="{domain}"><MDI key="{key}">{value}</MDI></Metadata>')


VRTS = {
    "raw band": (SECRET_BAND, RAW),
    "raw band in lower case": (SECRET_BAND.replace("subClass", "subclass"), RAW),
    "raw band by an element": (
        SECRET_BAND.replace(' subClass="VRTRawRasterBand">', "><subClass>VRTRawRasterBand</subClass>"), RAW
    ),
    "raw mask": (with_end(GOOD, f"<MaskBand>{MASK}</MaskBand>"), RAW),
    "server": (source("http://127.0.0.1:PORT/x.tif"), REMOTE),
    "server by GDAL's name": (source("/vsicurl/http://127.0.0.1:PORT/x.tif"), REMOTE),
    "bucket": (source("/vsis3/bucket/x.tif", relative="0"), REMOTE),
    "archive": (source("/vsizip/a.zip/x.tif"), OTHER),
    "description": (source("&lt;GDAL_WMS/&gt;"), OTHER),
    "subdataset": (source("NETCDF:a.nc:Band1"), OTHER),
    "secret as a source": (source("secret"), UNLIKE),
    "secret of another source": (source("secret", "ComplexSource"), UNLIKE),
    "secret with another base": (source("HERE/secret", relative="0"), UNLIKE),
    "raw VRT that is named a picture": (source("raw.jpg"), OPENS),
    "polyglot": (source("both.png"), OPENS),
    "WMS that is named a picture": (source("wms.tif"), OPENS),
    "raw VRT in a VRT": (source("raw.vrt"), "raw.vrt holds a VRTRawRasterBand"),
    "python": (dataset(DERIVED.format("<PixelFunctionLanguage>Python</PixelFunctionLanguage>")), "holds code"),
    "python code": (dataset(DERIVED.format("<PixelFunctionCode>import os</PixelFunctionCode>")), "holds code"),
    "other kind": (dataset("", ' subClass="VRTProcessedDataset"'), "holds a VRTProcessedDataset"),
    "warped": (
        dataset("<GDALWarpOptions><SourceDataset>http://127.0.0.1:PORT/x</SourceDataset></GDALWarpOptions>"), REMOTE
    ),
    "geolocation": (metadata("GEOLOCATION", "X_DATASET", "HERE/raw.jpg"), UNLIKE),
    "overviews": (metadata("OVERVIEWS", "OVERVIEW_FILE", "/vsicurl/http://127.0.0.1:PORT/x"), REMOTE),
    "name in an attribute": (dataset('<VRTRasterBand><SimpleSource SourceFilename="secret"/></VRTRasterBand>'),
                             "is an attribute"),
    "comment in a name": (source("raw.jpg<!-- -->x"), ALONE),
    "two bases": (GOOD.replace('relativeToVRT="1"', 'relativeToVRT="0" relativetovrt="1"'), ALONE),
    "entities": ('<!DOCTYPE a [<!ENTITY b "secret">]>' + source("&b;"), "declares a document type"),
    "CDATA": (source("<![CDATA[raw.jpg]]>"), "or CDATA"),
    "no XML": ("<VRTDataset", "not well-formed"),
    "grid file": (with_end(GOOD, "<SRS>+proj=longlat +ellps=bessel +nadgrids=/etc/passwd</SRS>"), "file /etc/passwd"),
    "grid file of a warp": (
        with_end(GOOD, "<CoordinateOperation>+proj=hgridshift +grids=/etc/passwd</CoordinateOperation>"), "grid file"
    ),
    "WMS": (wms(1), "A file that ends in .vrt must be a VRT"),
    "another encoding": ('<?xml version="1.0" encoding="utf-7"?>' + source("raw.jpg"), OPENS),
}  # fmt: skip


@pytest.mark.parametrize("case", VRTS)
def test_a_vrt_names_local_files_of_the_usual_kinds(here: Path, server: Server, case: str) -> None:
    (here / "raw.jpg").write_text(raw(here / "secret"))
    (here / "raw.vrt").write_text(raw(here / "secret"))
    (here / "wms.tif").write_text(wms(server.port))
    (here / "both.png").write_bytes((here / "good.png").read_bytes()[:200] + raw(here / "secret").encode())
    content, says = VRTS[case]
    path = here / "all.vrt"
    path.write_text(content.replace("HERE", str(here)).replace("PORT", str(server.port)))
    with pytest.raises(RasterRefused, match=says):
        open_raster(path)
    with pytest.raises(DataError, match=r"all\.vrt: cannot be read"):
        read_whole(path)
    assert server.calls == 0


def test_vrts_that_people_have_are_read(here: Path) -> None:
    expected = read_whole(here / "good.tif").image
    copy(here / "good.tif", here / "a.vrt", driver="VRT")
    (here / "below").mkdir()
    text = (here / "a.vrt").read_text()
    assert 'relativeToVRT="1">good.tif' in text
    (here / "below/b.vrt").write_text(
        text.replace(">good.tif", ">../good.tif").replace("<VRTDataset", "<!-- mine --><VRTDataset")
    )
    (here / "c.vrt").write_text(text.replace(">good.tif", ">below/b.vrt"))
    (here / "d.VRT").write_text(text.replace('relativeToVRT="1">good.tif', f'relativeToVRT="0">{here}/good.tif'))
    (here / "link").symlink_to(here / "below")
    for name in ("a.vrt", "below/b.vrt", "c.vrt", "d.VRT", "link/b.vrt"):
        assert np.array_equal(read_whole(here / name).image, expected), name
    with rasterio.open(here / "good.tif", "r+") as file:
        file.crs, file.transform = "EPSG:32633", rasterio.Affine(1, 0, 500_000, 0, -1, 5_000_000)
    with rasterio.open(here / "good.tif") as file, WarpedVRT(file, crs="EPSG:32633") as warped:
        copy(warped, here / "warped.vrt", driver="VRT")
    assert "VRTWarpedDataset" in (here / "warped.vrt").read_text()
    assert np.array_equal(read_whole(here / "warped.vrt").image, expected)


def test_a_vrt_of_itself_ends(here: Path) -> None:
    (here / "self.vrt").write_text(source("self.vrt"))
    with pytest.raises(DataError):
        read_whole(here / "self.vrt")


def nested(folder: Path, levels: int, times: int) -> Path:
    """VRTs that each name the next one some times; the last names a picture."""
    for level in range(levels):
        name = "good.png" if level == levels - 1 else f"v{level + 1}.vrt"
        one = source(name).split(">", 1)[1].removesuffix("</VRTDataset>")
        whole = source(name).removesuffix("</VRTDataset>") + one * (times - 1) + "</VRTDataset>"
        (folder / f"v{level}.vrt").write_text(whole)
    return folder / "v0.vrt"


@pytest.mark.parametrize(
    ("levels", "times", "words"),
    [
        (20, 1, ""),  # one way to the bottom
        (21, 1, "is a VRT inside 20 others; at most 20 levels are read"),
        (1200, 1, "at most 20 levels"),  # deeper than Python calls itself
        (18, 2, ""),  # 2^19 - 2 files, counted with those in between
        (19, 2, "names more than 524,288 files"),  # 2^20 - 2
        (3, 300, "names more than 524,288 files"),
    ],
)
def test_nested_vrts_are_bounded(here: Path, levels: int, times: int, words: str) -> None:
    top = str(nested(here, levels, times))
    if not words:
        vrt.check_vrt(top)
        return
    with pytest.raises(RasterRefused, match=words):
        vrt.check_vrt(top)


def test_a_pipe_that_is_called_a_vrt_is_refused(here: Path) -> None:
    os.mkfifo(here / "pipe.vrt")
    (here / "top.vrt").write_text(source("pipe.vrt"))
    with pytest.raises(DataError, match=r"pipe\.vrt is a named pipe"):
        read_whole(here / "top.vrt")


# ---- files beside a raster, which GDAL opens by their content


@pytest.mark.parametrize("name", ["good.tif.ovr", "good.tif.OVR", "good.tif.msk", "good.tif.ovr.msk"])
@pytest.mark.parametrize("kind", ["raw VRT", "VRT of a server", "wms", "PDF"])
def test_overviews_and_masks_beside_a_raster_are_tiffs(here: Path, server: Server, kind: str, name: str) -> None:
    if name.count(".") > 2:
        write(here / "good.tif.ovr", np.zeros((SIDE // 2, SIDE // 2, 3), np.uint8))
    (here / name).write_bytes(hostile(kind, here, server.port))
    with pytest.raises(DataError, match=rf"good\.tif.* uses .*{name}, which is not what its name says"):
        read_whole(here / "good.tif")
    assert server.calls == 0


@pytest.mark.parametrize("name", ["good.tif.ovr", "good.tif.msk", "pipe.tif"])
def test_a_pipe_does_not_block(here: Path, name: str) -> None:
    os.mkfifo(here / name)
    (here / "all.vrt").write_text(source("pipe.tif" if name == "pipe.tif" else "good.tif"))
    with pytest.raises(DataError, match="is a named pipe"):
        read_whole(here / "all.vrt")


BESIDE = ["GOOD.TFW", "good.wld", "Good.WLD", "good.tab", "good.TAB", "good.aux", "good.tif.aux", "good.tif.aux.xml",
          "good.IMD", "good_RPC.TXT", "good.TIF.msk", "METADATA.DIM", "other_MTL.txt"]  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_a_pipe_in_the_place_of_a_file_beside_a_raster_does_not_block(here: Path, name: str) -> None:
    os.mkfifo(here / name)
    with pytest.raises(DataError, match=f"{re.escape(name)} is a named pipe, not a file"):
        read_whole(here / "good.tif")
    (here / name).unlink()
    (here / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match=f"{re.escape(name)} is a device, not a file"):
        read_whole(here / "good.tif")


@pytest.mark.parametrize("name", ["agent.sock", "goods.tfw", "good.jpg", "good"])
def test_a_pipe_that_is_no_part_of_a_raster_is_no_matter(here: Path, name: str) -> None:
    os.mkfifo(here / name)
    read_whole(here / "good.tif")


def test_real_overviews_and_masks_beside_a_raster_are_used(here: Path) -> None:
    path = here / "large.tif"
    with rasterio.open(path, "w", driver="GTiff", height=512, width=512, count=1, dtype="uint8") as file:
        file.write(np.full((1, 512, 512), 5, np.uint8))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(np.eye(512, dtype=bool))
    assert (here / "large.tif.ovr").exists() and (here / "large.tif.msk").exists()
    with open_raster(path) as file:
        assert file.overviews(1) == [2, 4] and file.read_masks(1)[0, 0] == 255 and file.read_masks(1)[0, 1] == 0


@pytest.mark.parametrize("where", ["tag", "aux"])
@pytest.mark.parametrize(
    "value", ["/vsicurl/http://127.0.0.1:{port}/x", "{here}/raw.jpg", ":::BASE:::raw.jpg", ":::BASE:::../x.ovr"]
)
def test_metadata_name_no_file_of_overviews(here: Path, server: Server, value: str, where: str) -> None:
    (here / "raw.jpg").write_text(raw(here / "secret", 3))
    value = value.format(here=here, port=server.port)
    if where == "tag":
        with rasterio.open(here / "good.tif", "r+") as file:
            file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=value)
        path = here / "good.tif"
    else:
        path = here / "good.png"
        (here / "good.png.aux.xml").write_text(
            f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{value}</MDI></Metadata></PAMDataset>'
        )
    with pytest.raises(DataError, match="must lie beside it"):
        read_whole(path)
    assert server.calls == 0


@pytest.mark.parametrize(
    ("name", "crs", "words"),
    [
        ("a.tif", "+proj=utm +zone=33 +ellps=bessel +nadgrids=GRID", r"its CRS names the grid file /.*grid\.gsb"),
        (
            "a.png",
            "+proj=longlat +ellps=bessel +geoidgrids=GRID +vunits=m",
            r"its CRS names the grid file /.*grid\.gsb",
        ),
        ("a.png", "+proj=utm +zone=33 +ellps=bessel +nadgrids=GRID", "File not found"),  # GDAL's own error comes first
        ("a.png", "+proj=merc +a=6378137 +b=6378137 +nadgrids=@null", ""),
        ("a.tif", "+proj=utm +zone=33 +ellps=bessel +nadgrids=conus", ""),
        ("a.tif", "EPSG:32633", ""),
    ],
)
def test_a_crs_names_no_grid_file_by_its_path(here: Path, name: str, crs: str, words: str) -> None:
    place = {"crs": crs.replace("GRID", str(here / "grid.gsb")), "transform": rasterio.Affine(1, 0, 5, 0, -1, 9)}
    with rasterio.open(here / name, "w", width=8, height=8, count=1, dtype="uint8", **place) as file:
        file.write(np.ones((1, 8, 8), np.uint8))
    if words:
        with pytest.raises(RasterRefused, match=words):
            open_raster(here / name)
    else:
        open_raster(here / name).close()


# ---- names


@pytest.mark.parametrize(
    ("name", "remote"),
    [("https://a.b/c.tif", True), ("HTTP://a/c.tif", True), ("s3://b/c.tif", True), ("zip+https://a/b.zip!c.tif", True),
     ("/vsicurl/http://a/b.tif", True), ("/vsizip//vsicurl/http://a/b.zip/c.tif", True), ("/vsigs/b/c.tif", True),
     ("/vsis3_streaming/b/c.tif", True), ("/vsizip/a.zip/b.tif", False), ("a.tif", False), ("C:/a.tif", False),
     ("file:///a.tif", False), ("zip://a.zip!b.tif", False), ("photos https/a.tif", False)],
)  # fmt: skip
def test_what_is_remote(name: str, remote: bool) -> None:
    assert is_remote(name) is remote


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [("a.vrt", "VRT", "GTiff"), ("https://a/b.vrt?key=1.tif", "VRT", "GTiff"),
     ("https://a/b.tif?x=.vrt", "GTiff", "VRT"), ("a.tif", "PNG", "netCDF"), ("a.nc", "netCDF", "VRT"),
     ("a", "GTiff", "WMS"), ("a.xml", "GTiff", "WMTS")],
)  # fmt: skip
def test_the_name_chooses_the_drivers(name: str, has: str, lacks: str) -> None:
    assert has in drivers_of(name) and lacks not in drivers_of(name)


def test_a_remote_vrt_names_no_file_of_this_computer(here: Path) -> None:
    name = "/vsicurl/http://127.0.0.1:1/a/b.vrt"
    for text in (
        source(here / "good.png", relative="0"),
        source("/etc/passwd", relative="0"),
        source("x/y.tif", relative="0"),
    ):
        with pytest.raises(RasterRefused, match="is on a server and names a file of this computer"):
            vrt.check_remote_vrt(name, text)
    with pytest.raises(RasterRefused, match="RawRasterBand"):
        vrt.check_remote_vrt(name, raw("http://127.0.0.1:1/x"))
    with pytest.raises(RasterRefused, match=r"uses /vsicurl/http://127\.0\.0\.1:1/a/good\.tif, which is not"):
        vrt.check_remote_vrt(name, source("good.tif"))  # nothing answers there


def test_metadata_that_are_no_text_are_an_error_in_words(pairs_folder: Path) -> None:
    """GDAL quotes them in a message, of which rasterio raises UnicodeDecodeError, and prints a traceback beside it."""
    image = pairs_folder / "images/0.png"
    Image.new("RGB", (40, 36)).save(image, "JPEG")
    content = image.read_bytes()
    packet = b"http://ns.adobe.com/xap/1.0/\x00<x\xd1\xff\xfe>" + bytes(range(128, 192))
    image.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(packet) + 2) + packet + content[2:])
    for command in (["data", "check", pairs_folder], ["predict", image, "--out", pairs_folder / "out/a.tif"]):
        code, text, _ = run(*command)
        assert code in (0, 2) and "Traceback" not in text and "internal error" not in text, text


def test_damaged_metadata_are_an_error_in_words(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg")
    sound = (tmp_path / "a.jpg").read_bytes()
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta a ></x:xmpmeta>"
    segment = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    (tmp_path / "a.jpg").write_bytes(sound[:2] + segment + sound[2:])
    with pytest.raises(DataError, match=r"a\.jpg: .*its metadata are damaged: .*value of attribute 'a'"):
        read_whole(tmp_path / "a.jpg")

"""What is refused, each with its status, a plain message, and no trace of the server's files."""

import base64
import contextlib
import io
import json
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from tests.around import chunk, png_with, tiff_with
from tests.serve.images import png, waves, write_tif
from tests.serve.serving import Serving, wait_until

VRT = (
    b'<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    b"<SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
)
WMS = b'<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/x</ServerUrl></Service></GDAL_WMS>'


def png_of(width: int, height: int, data: bytes = b"", interlaced: int = 0) -> bytes:
    """A PNG that declares a size, with these bytes as its pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def tiff_of(width: int, height: int, bands: int = 3, bits: int = 8, sample_format: int = 1, packing: int = 8) -> bytes:
    """A TIFF that declares a size, in one strip that is not there."""
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, packing), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, bands), (278, 4, 1, height), (279, 4, 1, 8), (339, 3, 1, sample_format),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def tif(tmp_path: Path, bands: np.ndarray[Any, Any], **more: Any) -> bytes:
    return write_tif(tmp_path / "image.tif", bands, **more).read_bytes()


def sparse(tmp_path: Path, width: int, height: int, rows: int = 10_000) -> bytes:
    """A TIFF of a few hundred bytes, without its strips. GDAL makes them of one row if `rows` is above the height."""
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "sparse.tif", "w", **profile, compress="deflate", SPARSE_OK=True, blockysize=rows):
        pass
    assert (tmp_path / "sparse.tif").stat().st_size < 1000
    return (tmp_path / "sparse.tif").read_bytes()


AROUND = {
    "a PNG of packed texts": lambda: png_with(9 * chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(7_900_000)))),
    "a PNG of many chunks": lambda: png()[:-12] + 200_000 * chunk(b"IDAT", b"") + png()[-12:],
    "a PNG of long texts": lambda: png_with(chunk(b"tEXt", b"k\0" + 5_000_000 * b"a")),
    "a TIFF of metadata": lambda: tiff_with(5, 1),
    "a BigTIFF of metadata": lambda: tiff_with(5, 1, ">", big=True),
    "a TIFF of many images": lambda: tiff_with(0, 65, ">"),
    "a TIFF that goes round": lambda: tiff_with(0, 2, big=True, again=True),
    "a TIFF of many tags": lambda: tiff_with(1025, 1),
}
"""What stands around the pixels, and is read when a file is opened."""

IMAGES: dict[str, tuple[int, str]] = {
    # what is sent: the status, and a word of the answer
    "nothing": (400, "no body"),
    "text": (415, "begins as none"),
    "a VRT": (415, "begins as none"),
    "a VRT called a TIFF": (415, "begins as none"),
    "a WMS called a PNG": (415, "begins as none"),
    "SVG": (415, "Content-Type is image/svg+xml"),
    "HTML": (415, "Content-Type is text/html"),
    "a form": (415, "--data-binary"),
    "parts of a form": (415, "multipart/form-data"),
    "a name": (415, "begins as none"),
    "a BMP": (415, "begins as none"),
    "a GIF called a PNG": (415, "begins as none"),
    "a zip": (415, "begins as none"),
    "a PNG called a TIFF": (415, "states a TIFF"),
    "packed": (415, "Content-Encoding is gzip"),
    "only a signature": (422, "cannot be opened"),
    "a PNG cut off": (422, "can be read"),
    "a JPEG cut off": (422, "damaged"),
    "a TIFF cut off": (422, "damaged"),
    "a PNG of no pixels": (422, "cannot be opened"),
    "a huge PNG": (422, "cannot be opened"),
    "a huge TIFF": (413, "megapixels"),
    "a TIFF of one huge strip": (413, "blocks"),
    "a TIFF of one column": (413, "2,084 tiles of 96 x 96"),
    "a TIFF of one row": (413, "2,084 tiles of 96 x 96"),
    "a TIFF of many blocks": (413, "70,000 blocks of 1 x 1"),
    "a PNG bomb": (413, "megapixels"),
    "five megapixels": (413, "megapixels"),
    "too many bytes": (413, "at most 16,000,000"),
    "many bands": (413, "bands"),
    "very many bands": (413, "65,535 bands"),
    "complex numbers": (422, "complex"),
    "no bands for colours": (422, "bands"),
    "a TIFF that names overviews": (422, "overviews"),
    "empty noise": (422, "cannot be opened"),
    "a PNG of packed texts": (413, "64 kB of texts"),
    "a PNG of many chunks": (413, "chunks"),
    "a PNG of long texts": (413, "4,096 kB of texts"),
    "a TIFF of metadata": (413, "4,096 kB of texts"),
    "a BigTIFF of metadata": (413, "4,096 kB of texts"),
    "a TIFF of many images": (413, "64 images"),
    "a TIFF that goes round": (413, "64 images"),
    "a TIFF of many tags": (413, "tags"),
}


def image_of(name: str, tmp_path: Path) -> tuple[bytes, str | None, dict[str, str]]:
    """The body, its Content-Type, and further headers."""
    bands = waves(120, 150)
    plain: dict[str, tuple[bytes, str | None]] = {
        "nothing": (b"", "image/png"),
        "text": (b"hello", None),
        "a VRT": (VRT, None),
        "a VRT called a TIFF": (VRT, "image/tiff"),
        "a WMS called a PNG": (WMS, "image/png"),
        "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        "HTML": (b"<script>alert(1)</script>", "text/html"),
        "a form": (png(), "application/x-www-form-urlencoded"),
        "parts of a form": (b"--x\r\n\r\n", "multipart/form-data; boundary=x"),
        "a name": (b"/vsicurl/http://127.0.0.1:9/image.tif", None),
        "a zip": (b"PK\x03\x04" + bytes(100), None),
        "a PNG called a TIFF": (png(), "image/tiff"),
        "only a signature": (b"II*\0", "image/tiff"),
        "a PNG cut off": (png(200, 200)[:-3000], "image/png"),
        "a PNG of no pixels": (png_of(0, 0), "image/png"),
        "a huge PNG": (png_of(2**31 - 1, 2**31 - 1), "image/png"),
        "a huge TIFF": (tiff_of(200_000, 200_000), "image/tiff"),
        "a TIFF of one column": (sparse(tmp_path, 1, 200_000), "image/tiff"),
        "a TIFF of one row": (sparse(tmp_path, 200_000, 1), "image/tiff"),
        "a TIFF of many blocks": (sparse(tmp_path, 1, 70_000, rows=200_000), "image/tiff"),
        "a PNG bomb": (png_of(20_000, 20_000, bytes(2**20)), "image/png"),
        "five megapixels": (png_of(2500, 2000), "image/png"),
        "very many bands": (tiff_of(8, 8, 65_535), "image/tiff"),
        "complex numbers": (tiff_of(1, 1, 3, 64, 6), "image/tiff"),
        "empty noise": (b"\xff\xd8\xff" + bytes(range(256)), "image/jpeg"),
        "too many bytes": (b"II*\0" + bytes(16_000_000), "image/tiff"),
    }
    if name in plain:
        return *plain[name], {}
    if name in AROUND:
        return AROUND[name](), None, {}
    buffer = io.BytesIO()
    picture = Image.fromarray(bands.transpose(1, 2, 0))
    if name in ("a BMP", "a GIF called a PNG", "a JPEG cut off"):
        form = {"a BMP": "BMP", "a GIF called a PNG": "GIF", "a JPEG cut off": "JPEG"}[name]
        picture.save(buffer, form)
        content = buffer.getvalue()
        return content[: len(content) // 2] if "cut" in name else content, {"GIF": "image/png"}.get(form), {}
    if name == "packed":
        return zlib.compress(png()), "image/png", {"Content-Encoding": "gzip"}
    if name == "a TIFF cut off":
        return tif(tmp_path, bands, tiled=True, blockxsize=64, blockysize=64)[:-20_000], "image/tiff", {}
    if name == "a TIFF of one huge strip":
        return tiff_of(2000, 2000, 30), None, {}
    if name == "many bands":
        return tif(tmp_path, np.zeros((300, 8, 8), np.uint8), compress="deflate"), "image/tiff", {}
    if name == "no bands for colours":
        return tif(tmp_path, bands[:2], photometric="minisblack"), "image/tiff", {}
    assert name == "a TIFF that names overviews"
    path = write_tif(tmp_path / "image.tif", bands)
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE="/etc/hostname")
    return path.read_bytes(), "image/tiff", {}


def check_problem(answer: Any, status: int, word: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert word in problem["detail"], problem
    for secret in ("/tmp", "scratch", "Traceback", ".py", "site-packages", ".onnx", "--"):
        assert secret not in problem["detail"].replace("--data-binary", ""), problem


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_is_refused(name: str, service: Serving, tmp_path: Path) -> None:
    body, kind, headers = image_of(name, tmp_path)
    answer = service.client.post("/predict", content=body, headers=headers | ({"Content-Type": kind} if kind else {}))
    check_problem(answer, *IMAGES[name])
    assert service.post("/predict", png()).status_code == 200
    wait_until(lambda: service.files() == [])


QUERIES = {
    "f=jpg": "f is jpg",
    "f=png&f=tif": "stands there twice",
    "out=/etc/passwd": "no parameter out",
    "model=other.onnx": "no parameter model",
    "max_memory=1": "no parameter max_memory",
    "smooth=4": "odd",
    "smooth=-1": "smooth",
    "smooth=99999": "smooth",
    "smooth=1e1": "smooth",
    "min_area=20": "20m2 or 50px",
    "min_area=0px": "above 0",
    "min_area=" + "9" * 400 + "px": "min_area is 999",
    "min_area=" + "9" * 400 + "m2": "min_area is 999",
    "min_area=0.0000000001px": "9 behind it",
    "f=geojson&simplify=" + "9" * 400 + "m": "simplify is 999",
    "resolution=999999999.9": "resolution",
    "simplify=1m": "f=geojson",
    "simplify=1m&f=png": "f=geojson",
    "square=Building&f=tif": "f=geojson",
    "simplify=-1m&f=geojson": "1m or 2px",
    "confidence=yes": "true or false",
    "confidence=true&f=png": "GeoTIFF",
    "confidence=true&f=geojson": "GeoTIFF",
    "views=3": "views",
    "bands=": "bands",
    "bands=0,1,2": "bands",
    "bands=1,1,2": "twice",
    "scale=5,5": "scale",
    "resolution=0": "resolution",
    "resolution=nan": "resolution",
    "resolution=inf": "resolution",
    "resolution=-1": "resolution",
    "resolution=1e-9": "resolution",
    "bands=%0d%0aX-Evil:1": "printed",
    "bands=" + "1," * 400: "characters",
}


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query[:30])
def test_a_parameter_that_is_refused(query: str, service: Serving) -> None:
    check_problem(service.post(f"/predict?{query}", png()), 400, QUERIES[query])


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("bands=4,3,2", 422, "band"),
        ("bands=nir,red,green", 422, "nir"),
        ("scale=0,100", 422, "scale"),
        ("resolution=0.5", 422, "resolution needs a CRS"),
        ("square=Castle&f=geojson", 422, "Castle"),
        ("min_area=3m2", 422, "min_area"),
        ("min_area=999999999999999px", 422, "the whole raster has 5600"),
    ],
)
def test_a_parameter_that_does_not_fit_the_image(query: str, status: int, word: str, service: Serving) -> None:
    check_problem(service.post(f"/predict?{query}", png(), "image/png"), status, word)


def test_a_resolution_that_would_make_a_huge_result(service: Serving, tmp_path: Path) -> None:
    body = tif(tmp_path, waves(120, 150))
    check_problem(service.post("/predict?resolution=0.001", body), 413, "megapixels")


def test_polygons_without_a_place_on_the_earth(service: Serving, tmp_path: Path) -> None:
    body = tif(tmp_path, waves(64, 64), crs='LOCAL_CS["x",UNIT["m",1]]')
    assert service.post("/predict", body).status_code == 200
    answer = service.post("/predict?f=geojson", body)
    check_problem(answer, 422, "the result cannot be written in longitude and latitude")
    assert "Take f=tif" in answer.json()["detail"]


def test_what_no_form_is_accepted_for(service: Serving) -> None:
    for accept in ("text/html", "image/jpeg", "image/png;q=0", "application/json"):
        check_problem(service.post("/predict", png(), Accept=accept), 406, "Accept allows none")


ADDRESSES = [
    ("GET", "/predict", 405), ("PUT", "/predict", 405), ("HEAD", "/predict", 405), ("OPTIONS", "/predict", 405),
    ("GET", "/jobs", 404), ("DELETE", "/jobs", 404), ("POST", "/", 405), ("TRACE", "/", 405), ("FOO", "/health", 405),
    ("GET", "/nothing", 404), ("GET", "/predict/", 404), ("GET", "/..%2f..%2fetc/passwd", 404),
    ("GET", "/jobs/..%2f..%2fetc", 404), ("GET", "/jobs/%00", 404), ("DELETE", "/jobs/none", 404),
    ("GET", "/jobs/none/results", 404), ("GET", "/jobs/%F0%9F%A6%8A", 404), ("GET", "/processes/other", 404),
    ("POST", "/processes/other/execution", 404), ("GET", "/jobs/" + "x" * 5000, 404),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "status"), ADDRESSES, ids=lambda value: str(value)[:30])
def test_an_address_or_method_that_is_refused(method: str, path: str, status: int, service: Serving) -> None:
    answer = service.client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (status == 405) == ("allow" in answer.headers)


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({}, True),
        ({"Origin": "SERVICE"}, True),
        ({"Origin": "SERVICE", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "https://map.example.org", "Sec-Fetch-Site": "same-origin"}, True),  # behind a proxy
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "https://map.example.org", "Host": "map.example.org"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://[bad"}, False),
        ({"Origin": "SERVICE", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_a_page_of_another_site_may_not_send_images(headers: dict[str, str], taken: bool, service: Serving) -> None:
    given = {name: service.url if value == "SERVICE" else value for name, value in headers.items()}
    for method, path, status in [
        ("POST", "/predict", 200), ("POST", "/processes/segment/execution", 200), ("DELETE", "/jobs/none", 404),
    ]:  # fmt: skip
        answer = service.client.request(method, path, content=png(), headers=given)
        if taken:
            assert answer.status_code == status
        else:
            check_problem(answer, 403, "a page of another site")
    assert service.client.get("/health", headers=given).status_code == 200


def inline(**inputs: Any) -> dict[str, Any]:
    return {"inputs": {"image": base64.b64encode(png()).decode(), **inputs}}


REQUESTS: list[tuple[Any, int, str]] = [
    ("{", 400, "JSON"),
    ("[]", 400, "inputs"),
    ("{}", 400, "inputs"),
    ('{"inputs": {}, "inputs": {}}', 400, "twice"),
    ("[" * 200 + "]" * 200, 400, "deep"),
    ("[" + "[]," * 2_000_000 + "[]]", 400, "1,000 values"),
    ({"inputs": {}}, 400, "image"),
    ({"inputs": {"image": {"href": "http://127.0.0.1:9/x.tif"}}}, 400, "by reference"),
    ({"inputs": {"image": {"href": "file:///etc/passwd", "value": ""}}}, 400, "by reference"),
    ({"inputs": {"image": "/etc/passwd"}}, 400, "base64"),
    ({"inputs": {"image": "!!!!"}}, 400, "base64"),
    ({"inputs": {"image": ""}}, 415, "begins as none"),
    ({"inputs": {"image": base64.b64encode(VRT).decode()}}, 415, "begins as none"),
    ({"inputs": {"image": {"value": base64.b64encode(png()).decode(), "mediaType": "image/tiff"}}}, 415, "states"),
    ({"inputs": {"image": {"value": base64.b64encode(png()).decode(), "encoding": "gzip"}}}, 400, "encoding"),
    ({"inputs": {"image": [1]}}, 400, "image"),
    (inline(smooth="3"), 400, "smooth"),
    (inline(smooth=4), 400, "odd"),
    (inline(path="/etc/passwd"), 400, "path"),
    (inline(confidence=1), 400, "confidence"),
    (inline(resolution=1e300), 400, "resolution is 1e+300; it may be 1e-09 to 999,999,999 metres"),
    (inline(resolution=1e-300), 400, "resolution is 1e-300"),
    (json.dumps(inline(resolution=7.5)).replace("7.5", "1e400"), 400, "finite"),
    (inline(resolution=-1.0), 400, "resolution"),
    (inline(min_area="9" * 400 + "m2"), 400, "min_area"),
    (inline(min_area="9" * 400 + "px"), 400, "min_area"),
    (
        {**inline(simplify="9" * 400 + "m"), "outputs": {"result": {"format": {"mediaType": "application/geo+json"}}}},
        400,
        "simplify",
    ),
    ({**inline(), "subscriber": {"successUri": "http://127.0.0.1:9"}}, 400, "subscriber"),
    ({**inline(), "outputs": {"other": {}}}, 400, "other"),
    ({**inline(), "outputs": {"result": {"format": {"mediaType": "image/jpeg"}}}}, 400, "mediaType"),
    ({**inline(), "outputs": {"result": {"transmissionMode": "reference"}}}, 400, "transmissionMode"),
    ({**inline(), "response": "both"}, 400, "response"),
    ({**inline(), "more": 1}, 400, "more"),
]


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_a_request_of_the_standard_that_is_refused(number: int, service: Serving) -> None:
    content, status, word = REQUESTS[number]
    body = content if isinstance(content, str) else json.dumps(content)
    for prefer in ("", "respond-async"):
        answer = service.post("/processes/segment/execution", body, "application/json", Prefer=prefer)
        if prefer and answer.status_code == 201:  # what only the prediction can say
            assert status == 422
            continue
        check_problem(answer, status, word)
    assert service.post("/processes/segment/execution?f=png", body, "application/json").status_code == 400


# ---- below HTTP


GONE = b""


def talk(service: Serving, *parts: bytes) -> bytes:
    """Send bytes as they are, and return all that comes until the service closes the connection.

    After the part `GONE`, which is empty, the client sends no more, and the service takes it for gone.
    """
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        if parts[-1] == GONE:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        with contextlib.suppress(ConnectionResetError):  # the service closes before all is read
            while part := connection.recv(65536):
                found += part
    return found


def head(*lines: str, to: str = "POST /predict HTTP/1.1") -> bytes:
    return "\r\n".join([to, "Host: x", "Content-Type: image/png", *lines, "", ""]).encode()


def test_a_length_that_is_not_that_of_the_body(service: Serving) -> None:
    body = png()
    assert talk(service, head(f"Content-Length: {len(body) + 10}"), body, GONE) == b""
    assert b" 413 " in talk(service, head(f"Content-Length: {10**12}", "Connection: close"), body)
    assert b" 400 " in talk(service, head("Content-Length: -5"), body)
    assert b" 400 " in talk(service, head("Content-Length: 5", "Content-Length: 6"), body)
    longer = talk(service, head(f"Content-Length: {len(body)}"), body + b"more\r\n\r\n")
    assert longer.count(b"HTTP/1.1 200") == 1
    assert b"HTTP/1.1 400" in longer
    wait_until(lambda: service.files() == [])


def test_a_body_in_chunks(service: Serving) -> None:
    body = png()
    parts = b"".join(
        b"%x\r\n%s\r\n" % (len(body[at : at + 100]), body[at : at + 100]) for at in range(0, len(body), 100)
    )
    sent = head("Transfer-Encoding: chunked", "Connection: close")
    assert b"HTTP/1.1 200" in talk(service, sent, parts, b"0\r\n\r\n")
    assert b"HTTP/1.1 400" in talk(service, sent, b"zz\r\n")
    assert b" 413 " in talk(service, sent, b"f42400\r\n" + bytes(16_000_000) + b"\r\n", b"10\r\n" + bytes(16) + b"\r\n")
    wait_until(lambda: service.files() == [])


def test_heads_that_are_no_http(service: Serving) -> None:
    assert b" 200 " not in talk(service, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2_000_000)
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        found = talk(service, sent)
        assert found.startswith(b"HTTP/1.1 400"), (sent[:40], found[:100])


def test_nothing_of_the_client_becomes_a_header_or_a_line_of_the_log(service: Serving) -> None:
    service.client.get("/nothing%0d%0aSet-Cookie:%20a=1")
    service.client.get("/%1b%5b31mred%e2%80%ae")
    lines = service.log.splitlines()
    assert not [line for line in lines if line.startswith("Set-Cookie")]
    assert "\x1b" not in service.log
    assert "\u202e" not in service.log


def test_trailing_bytes_of_a_png_are_not_read(service: Serving) -> None:
    clean = service.post("/predict", png(), "image/png")
    assert service.post("/predict", png() + b"PK\x03\x04<VRTDataset>" * 99, "image/png").content == clean.content


def test_plain_texts_around_a_png_are_taken(service: Serving) -> None:
    clean = service.post("/predict", png(), "image/png")
    texts = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + 500_000 * b"a") + chunk(
        b"zTXt", b"k\0\0" + zlib.compress(b"a")
    )
    assert service.post("/predict", png_with(texts, png()), "image/png").content == clean.content


def test_range_is_for_results_that_are_fetched(service: Serving) -> None:
    answer = service.post("/predict", png(), "image/png", Range="bytes=0-3")
    assert answer.status_code == 200
    assert len(answer.content) > 4


def test_no_other_file_is_opened(service: Serving, tmp_path: Path) -> None:
    """A file beside the image, under every name that GDAL knows, changes nothing, as nobody can put one there."""
    from skystill.raster.opening import LISTING, NOTHING_BESIDE, open_raster
    from skystill.raster.source import gdal_environment

    path = write_tif(tmp_path / "image.tif", waves(64, 64), crs=None, transform=None)
    (tmp_path / "image.tfw").write_text("2\n0\n0\n-2\n100\n200\n")
    with gdal_environment(), open_raster(path) as file:
        assert file.transform.a == 2
    with rasterio.Env(**{LISTING: NOTHING_BESIDE}), gdal_environment(), open_raster(path) as file:
        assert file.transform.a == 1

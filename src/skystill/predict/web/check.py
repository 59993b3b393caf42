"""The page of `skystill export`, tried in a browser after it was written."""

import base64
import functools
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from skystill.data.scenes import paint_scene
from skystill.errors import ModelFileError
from skystill.model.file import open_session, read_info
from skystill.predict.web.browser import Browser, BrowserFailed, PageFailed, find_browser, open_browser
from skystill.raster.input_spec import InputSpec

_SIDE, _SEED = 192, 5  # pixels of the tile: a multiple of 64; larger scenes take long to paint
_PATIENCE = 60  # seconds for each answer of the browser
_LEAST = 0.99  # of the pixels; INT8 rounds otherwise in WebAssembly, which changed up to 0.1 % of the pixels

ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""The headers that isolate a page, so that its threads may share memory."""

_LABEL = """(async () => {
    const bytes = Uint8Array.from(atob(%s), (letter) => letter.charCodeAt(0));
    const planes = new { uint8: Uint8Array, uint16: Uint16Array, int16: Int16Array, float32: Float32Array }[%s](
        bytes.buffer);
    const [top, left, bottom, right] = [0, 0, %d, %d];
    const tile = { top, left, bottom, right, readTop: top, readLeft: left, readBottom: bottom, readRight: right };
    const found = await (%s).workers[0].ask({ planes, valid: null, tile, geo: null });
    if (!found.labels) throw new Error(found.failed);
    return btoa(Array.from(found.labels, (label) => String.fromCharCode(label)).join(""));
})()"""


def check_page(page: Path, models: Sequence[Path]) -> str:
    """Label a tile with each model, in the page and in ONNX Runtime.

    Args:
        page: the page: a file, or a folder, which is then served on this computer.
        models: the model files in it: one, or two that are compared.

    Returns:
        A sentence: the share of the pixels whose class is the same, or why the page was not tried.

    Raises:
        ModelFileError: the page does not work, or its classes are others.
    """
    binary = find_browser()
    if binary is None:
        return "The page was not tried in a browser: neither Chromium nor Chrome is found."
    session = open_session(models[0])
    tile = _tile(read_info(session, models[0]).input_spec)
    try:
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            served(page, ISOLATED) if page.is_dir() else nullcontext(page) as address,
            open_browser(binary, Path(folder), _PATIENCE) as browser,
        ):
            browser.open(address)
            name = f"{Path(binary).name} {browser.version}"
            found = [_labelled(browser, tile, pool) for pool in ("pool", "await openOther()")[: len(models)]]
    except PageFailed as error:
        raise ModelFileError(f"{models[0]} does not run in a page: {error}") from error
    except (BrowserFailed, OSError) as error:
        return f"The page was not tried in {binary}: {error}."
    equal = [_equal(model, tile, labels, name) for model, labels in zip(models, found, strict=True)]
    shares = " and ".join(f"{100 * share:.3f} %" for share in equal)
    return f"In {name}, {shares} of the pixels of a test tile have the class that ONNX Runtime gives."


@contextmanager
def served(folder: Path, headers: Mapping[str, str]) -> Iterator[str]:
    """Serve a folder to this computer alone, and yield its address.

    Args:
        folder: what is served.
        headers: are sent with every file.
    """

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in headers.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _equal(model: Path, tile: npt.NDArray[Any], labels: npt.NDArray[np.uint8], browser: str) -> float:
    equal = float((labels == _wanted(open_session(model), tile)).mean())
    if equal < _LEAST:
        raise ModelFileError(
            f"{model}: in {browser}, {equal:.2%} of the pixels of a test tile have the class that ONNX Runtime gives, "
            f"and at least {_LEAST:.0%} were expected. The page is not written: run skystill predict with the model."
        )
    return equal


def _tile(spec: InputSpec) -> npt.NDArray[Any]:
    """(bands, rows, columns) in the data type of the images: a scene, or values about those of the training images."""
    if spec.is_colors:
        return np.ascontiguousarray(paint_scene(_SIDE, _SEED)[0].transpose(2, 0, 1))
    rng = np.random.default_rng(_SEED)
    coarse = rng.normal(size=(len(spec), _SIDE // 16, _SIDE // 16)).repeat(16, 1).repeat(16, 2)
    values = coarse + rng.normal(scale=0.3, size=(len(spec), _SIDE, _SIDE))
    planes = [band.mean + band.std * plane for band, plane in zip(spec.bands, values, strict=True)]
    within = [plane.clip(band.low, band.high) for band, plane in zip(spec.bands, planes, strict=True)]
    return np.stack(within).astype(spec.dtype)


def _wanted(session: ort.InferenceSession, tile: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """(rows, columns): the classes in ONNX Runtime."""
    given = session.get_inputs()[0]
    values = tile.astype(np.float32) if given.type == "tensor(float)" else tile
    logits: npt.NDArray[np.float32] = session.run(None, {given.name: values[None]})[0]
    labels: npt.NDArray[np.intp] = logits[0].argmax(axis=0)
    return labels


def _labelled(browser: Browser, tile: npt.NDArray[Any], pool: str) -> npt.NDArray[np.uint8]:
    """(rows, columns): the classes in the page."""
    content = base64.b64encode(tile.tobytes()).decode()
    found = browser.run(_LABEL % (json.dumps(content), json.dumps(tile.dtype.name), *tile.shape[1:], pool))
    return np.frombuffer(base64.b64decode(found), np.uint8).reshape(tile.shape[1:])

"""`skystill export --format web`: a page as a folder, in a real browser and from a web server."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from skystill.api import export
from skystill.cli import app
from skystill.errors import DiskFull, SettingsError
from skystill.model.bundled import bundled_model
from skystill.predict import Predictor
from skystill.predict.web.browser import PageFailed
from skystill.predict.web.check import ISOLATED, served
from skystill.predict.web.folder import POLICY
from tests.web.browser import Browser
from tests.web.images import UTM, scene, write_tiff

LONG = re.compile(r"[a-z-]+\.([0-9a-f]{16})\.(?:js|css|jpg|bin)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skystill.predict.web.parts._EXAMPLE_SIDE", 64)  # large scenes take seconds
        patch.setattr("skystill.predict.web.check.find_browser", lambda: None)  # it takes seconds
        return export(run=bundled_model(), format="web", out=tmp_path_factory.mktemp("web") / "site")


def test_every_file_but_two_is_named_by_its_content(folder: Path) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in files if not LONG.fullmatch(name)} == {"index.html", "isolate.js"}
    for name, content in files.items():
        if found := LONG.fullmatch(name):
            assert hashlib.sha256(content).hexdigest().startswith(found[1])
    index = files["index.html"].decode()
    about = json.loads(re.search(r'id="about-model">(.*?)</script>', index)[1])  # type: ignore[index]
    assert {one["file"] for one in about["files"].values()} == set(files) - {"index.html", "isolate.js"}
    assert set(re.findall(r'(?:src|href)="([^"]*)"', index)) < set(files)
    assert f'http-equiv="Content-Security-Policy" content="{POLICY}"' in index
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == "'none'"
    for rule in rules.values():
        assert set(rule.split()) <= {"'none'", "'self'", "blob:", "'wasm-unsafe-eval'"}
    assert "<style" not in index  # all of it is in files of its own
    assert re.findall(r"<script(?! type=.application/json. )[^>]*>[^<]", index) == []
    assert sum(map(len, files.values())) < 6_000_000


def test_it_replaces_its_own_folder_and_no_other(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skystill.predict.web.parts._EXAMPLE_SIDE", 64)
    site = tmp_path / "site"
    done = CliRunner().invoke(app, ["export", str(bundled_model()), "--format", "web", "--out", str(site)])
    assert done.exit_code == 0, done.output
    assert re.search(r"site: 4,\d\d\d kB", done.output)
    before = {path.name: path.read_bytes() for path in site.iterdir()}
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    (site / "style.0123456789abcdef.css").write_text("of an older version")
    (tmp_path / ".part-123-site").mkdir()  # of a process that was killed
    export(run=bundled_model(), format="web", out=site)
    assert {path.name: path.read_bytes() for path in site.iterdir()} == before
    site.rename(tmp_path / ".old-123-site")  # killed between two names
    monkeypatch.setattr("skystill.predict.web.export.check_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(run=bundled_model(), format="web", out=site)
    assert {path.name: path.read_bytes() for path in site.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} - {".lock-site"} == {"site"}


@pytest.mark.parametrize(
    ("content", "out", "said"),
    [
        ({"site/notes.txt": b"mine"}, "site", "holds other files (notes.txt)"),
        ({"site/index.html": b"<p>mine"}, "site", "holds other files (index.html)"),
        ({"site/page.0123456789abcdef.js": b""}, "site", "holds other files (page.0123456789abcdef.js)"),
        ({"site/isolate.js/a": b""}, "site", "holds other files (isolate.js)"),
        ({"site": b"mine"}, "site", "web writes a folder"),
        ({}, "site.html", "web writes a folder"),
        ({}, ".", "holds other files (own.onnx)"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Mapping[str, bytes], out: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "own.onnx"
    model.write_bytes(bundled_model().read_bytes())
    for name, raw in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError, match=re.escape(said)):
        export(run=model, format="web", out=Path(out))
    assert [path for path in sorted(tmp_path.rglob("*")) if not path.name.startswith(".lock-")] == before


def test_a_disk_that_fails_leaves_the_folder_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("skystill.predict.web.parts._EXAMPLE_SIDE", 64)
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name.startswith("wasm"):
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFull, match="site"):
        export(run=bundled_model(), format="web", out=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path.name for path in folder.parent.iterdir()} - {".lock-site"} == {"site"}


@pytest.mark.slow
def test_classes_are_those_of_predict_with_and_without_the_headers(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    planes = scene(300, 1100)  # two tiles
    planes[:, 200:260, 500:640] = 0
    image = write_tiff(tmp_path / "map.tif", planes, nodata=0, tiled=True, photometric="rgb", **UTM)
    Predictor(bundled_model()).predict(image, tmp_path / "wanted.tif")
    with rasterio.open(tmp_path / "wanted.tif") as file:
        wanted = file.read(1)
    for headers, is_passed_by, is_isolated in ((ISOLATED, True, True), ({}, True, False), ({}, False, True)):
        with served(folder, headers) as address:
            browser.call("Network.setBypassServiceWorker", bypass=is_passed_by)
            browser.requests.clear()
            browser.open(address)
            assert browser.run("crossOriginIsolated") is is_isolated
            opened = browser.run("""(async () => {
                pool = new Pool(pool.url, pool.opening, 1); // one worker gets all cores
                await pool.open();
                return [(await pool.workers[0].ready).threads, navigator.hardwareConcurrency];
            })()""")
            assert opened[0] == (min(opened[1], 16) if is_isolated else 1)
            assert browser.label(image) == "done", browser.status
            with rasterio.open(browser.save("save-tif", "map-classes.tif")) as file:
                labels = file.read(1)
            assert len(np.unique(labels)) > 3
            assert (labels == wanted).mean() >= 0.9999
            assert np.array_equal(labels == 255, wanted == 255)
            browser.save("save-geojson", "map-classes.geojson")  # its script is loaded now
            browser.run("document.getElementById('licences').open = true")
            browser.run("""new Promise((done) => {
                const look = () => ($("licences-text").textContent ? done() : setTimeout(look, 20));
                look();
            })""")
            assert len(browser.requests) > 8
            for url in browser.requests:
                assert url.startswith((address, f"blob:{address}")), url
            assert browser.run("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    browser.call("Network.setBypassServiceWorker", bypass=False)


@pytest.mark.slow
def test_only_the_page_is_isolated_and_threads_that_fail_are_done_without(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "other.html").write_text("<html data-state=ready>")
    with served(tmp_path, {}) as address:
        for name, is_isolated in (("", True), ("index.html?a=b#c", True), ("other.html", False)):
            browser.open(address + name)
            assert browser.run("[crossOriginIsolated, Boolean(navigator.serviceWorker.controller)]") == [
                is_isolated, True
            ]  # fmt: skip
        browser.open(address)
        threads = browser.run("""(async () => {
            const ask = Asked.prototype.ask;
            Asked.prototype.ask = function (message, ...all) {
                return message.threads > 1 ? Promise.resolve({ failed: "no memory" }) : ask.call(this, message, ...all);
            };
            const one = Object.assign(new Pool(pool.url, pool.opening), { threads: 2 });
            await one.open();
            return (await one.workers[0].ready).threads;
        })()""")
        assert threads == 1
        (tmp_path / "isolate.js").unlink()
    with served(tmp_path, {}) as address:
        browser.open(address)
        assert not browser.run("crossOriginIsolated")  # and it works


@pytest.mark.slow
def test_a_part_that_is_missing_or_another_is_told(browser: Browser, folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    [model] = tmp_path.glob("model.*")
    for content in (b"another", None):
        if content is None:
            model.unlink()
        else:
            model.write_bytes(content)
        with served(tmp_path, ISOLATED) as address, pytest.raises(PageFailed, match=rf"a part .* {model.name}, cannot"):
            browser.open(address)

"""`skystill export --format html`: what is put into the page, and what is refused."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skystill.api import export
from skystill.classes import DUBAI, ClassMap
from skystill.cli import app
from skystill.errors import ModelFileError, RunFolderError, SettingsError
from skystill.model.bundled import bundled_model, model_card
from skystill.predict.web.parts import ISOLATE, NETWORK, PAGE, POLYGONS, READER
from skystill.progress import Note
from skystill.raster.input_spec import Band, InputSpec
from skystill.run_folder import write_text
from tests.banded_model import write_banded
from tests.channel_model import INFO, write_model

SCRIPTS = Path(__file__).parents[2] / "src/skystill/predict/web"


@pytest.fixture(autouse=True)
def small_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skystill.predict.web.parts._EXAMPLE_SIDE", 64)  # large scenes take seconds


def packed(page: str, name: str) -> bytes:
    found = re.search(rf'<script type="application/octet-stream" id="{name}">([^<]*)</script>', page)
    assert found, name
    return base64.b64decode(found[1])


def test_a_model_file_becomes_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path is relative, as people write it
    done = CliRunner().invoke(app, ["export", str(bundled_model()), "--format", "html", "--out", "map.html"])
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} - {".lock-map.html"} == {"map.html"}
    content = (tmp_path / "map.html").read_bytes()
    assert len(content) < 6_000_000
    page = content.decode()
    assert gzip.decompress(packed(page, "model")) == bundled_model().read_bytes()
    assert packed(page, "example-image").startswith(b"\xff\xd8")
    licences = gzip.decompress(packed(page, "licences-packed")).decode()
    assert "onnxruntime-web 1.30.0 (MIT)" in licences
    for said in (hashlib.sha256(bundled_model().read_bytes()).hexdigest(), "onnxruntime-web", "geotiff", "Vegetation"):
        assert said in page
    assert model_card().splitlines()[0] in page
    about = json.loads(re.search(r'id="about-model">(.*?)</script>', page)[1])  # type: ignore[index]
    assert about["grid"] == {"rows": 640, "columns": 1152, "margin": 64}
    assert about["input"] == {"tensor": "uint8", "bands": 3, "classes": 6}


def test_a_second_model_is_in_the_page(tmp_path: Path) -> None:
    models = [
        write_model(tmp_path / f"{name}.onnx", replace(INFO, tile_size=size).to_metadata())
        for name, size in (("student", 80), ("teacher", 160))
    ]
    given = [
        "export",
        str(models[0]),
        "--format",
        "html",
        "--out",
        str(tmp_path / "map.html"),
        "--with",
        str(models[1]),
    ]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "map.html").read_text()
    for name, model in zip(("model", "other-model"), models, strict=True):
        assert gzip.decompress(packed(page, name)) == model.read_bytes()
        assert hashlib.sha256(model.read_bytes()).hexdigest() in page
    about = json.loads(re.search(r'id="about-model">(.*?)</script>', page)[1])  # type: ignore[index]
    assert (about["name"], about["grid"]["rows"], about["other"]["name"]) == ("student", 80, "teacher")
    assert about["other"]["grid"]["rows"] > 80


def test_the_policy_lets_only_this_script_and_this_style_run(tmp_path: Path) -> None:
    page = export(run=bundled_model(), format="html", out=tmp_path / "map.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert {rules[name] for name in ("default-src", "connect-src", "base-uri", "form-action")} == {"'none'"}
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule].replace(" 'wasm-unsafe-eval'", "") == f"'sha256-{digest}'"
    assert not re.search(r"<(img|link|iframe|script)[^>]*\s(src|href)=", page)


def test_no_script_ends_early_and_none_is_left_out() -> None:
    files = {path.name for path in SCRIPTS.glob("*.js")}
    assert {*PAGE, *READER, *NETWORK, *POLYGONS, ISOLATE} == files
    for name in files:
        text = (SCRIPTS / name).read_text(encoding="utf-8")
        assert "</script" not in text.lower()
        assert "<!--" not in text
        assert len(text.splitlines()) <= 400, name
        assert max(map(len, text.splitlines())) <= 120, name


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    strange = ClassMap(("</script><b>", 'a"b & c', "​<!--", "d", "e", "f\u202e"), tuple((i, 0, 0) for i in range(6)))
    model = write_model(tmp_path / "<i>.onnx", replace(INFO, tile_size=80, classes=strange).to_metadata())
    page = export(run=model, format="html", out=tmp_path / "map.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "<i>" not in page
    assert "\u202e" not in page
    about = json.loads(re.search(r'id="about-model">(.*?)</script>', page)[1])  # type: ignore[index]
    assert about["classes"][0] == {"name": "</script><b>", "rgb": [0, 0, 0]}


def test_of_a_run_the_int8_file_is_taken(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_text(run / "config.yaml", "data: d\nseed: 0\n")
    with pytest.raises(ModelFileError, match=r"has no model file, model\.onnx: the run has not finished"):
        export(run=run, format="html", out=tmp_path / "map.html")
    write_model(run / "model.onnx", replace(INFO, tile_size=80, network="float").to_metadata())
    for network in ("float", "int8"):
        page = export(run=run, format="html", out=tmp_path / "map.html").read_text(encoding="utf-8")
        model = run / ("model.onnx" if network == "float" else "model-int8.onnx")
        assert gzip.decompress(packed(page, "model")) == model.read_bytes()
        assert "Class maps by run" in page
        write_model(run / "model-int8.onnx", replace(INFO, tile_size=80, network="int8").to_metadata())


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"out": "map.htm"}, SettingsError, "a file for html ends in .html"),
        ({"stac": True}, SettingsError, "--stac is for model files"),
        ({"resolution": 0.5}, SettingsError, "--resolution is for model files"),
        ({"run": "missing.onnx"}, ModelFileError, "no such model file"),
        ({"run": "empty"}, RunFolderError, "is not a run folder"),
        ({"run": "foreign.onnx"}, ModelFileError, "was not exported by SkyStill"),
        ({"run": "cut.onnx"}, ModelFileError, "cannot be opened as an ONNX model"),
        ({"run": "small.onnx"}, ModelFileError, "tiles of 64 pixels that share 16 leave no middle"),
        ({"run": "page.html", "out": "page.html"}, SettingsError, "would overwrite inputs"),
        ({"with_": "page.html", "out": "page.html"}, SettingsError, "would overwrite inputs"),
        ({"with_": "missing.onnx"}, ModelFileError, "no such model file"),
        ({"with_": "bands.onnx"}, SettingsError, "is fed band 1, band 2 in uint8, and"),
        ({"with_": "classes.onnx"}, SettingsError, "has the classes a, b, c, d, e, f, and"),
        ({"with_": "own.onnx", "format": "onnx"}, SettingsError, "--with is for a page: add --format html"),
    ],
)
def test_what_is_refused(tmp_path: Path, changed: dict[str, object], error: type[Exception], said: str) -> None:
    model = write_model(tmp_path / "own.onnx", replace(INFO, tile_size=80).to_metadata())
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:200])
    write_model(tmp_path / "foreign.onnx", {})
    write_model(tmp_path / "small.onnx", INFO.to_metadata())
    shutil.copy(model, tmp_path / "page.html")
    two = InputSpec(tuple(Band("", number, 100, 50, 0, 255) for number in (1, 2)), "uint8")
    write_banded(tmp_path / "bands.onnx", two)
    others = ClassMap(tuple("abcdef"), DUBAI.colors)
    write_model(tmp_path / "classes.onnx", replace(INFO, tile_size=80, classes=others).to_metadata())
    (tmp_path / "empty").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    given = {"run": "own.onnx", "out": "map.html", "format": "html"} | changed
    given |= {name: tmp_path / str(given[name]) for name in ("run", "out", "with_") if name in given}
    with pytest.raises(error, match=re.escape(said)):
        export(**given)
    after = {path: path.read_bytes() for path in tmp_path.glob("[!.]*.*")}
    assert after == before


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skystill_web", None)
    with pytest.raises(SettingsError, match=re.escape('pip install "skystill[html]"')):
        export(run=bundled_model(), format="html", out=tmp_path / "map.html")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "in a browser: neither Chromium nor Chrome is found."),
        ("exit 1", "in {browser}: the browser has ended."),
        ("exec sleep 600", "in {browser}: the browser does not answer within 0.3 s."),
        ("exec cat <&3 >&4", "in {browser}: Target.createTarget failed: "),
        (
            "printf 'hello\\0' >&4; exec sleep 600",
            "in {browser}: its answer is not that of a browser.",
        ),
    ],
)
def test_a_page_is_written_where_no_browser_can_try_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\n{script}\n")
    browser.chmod(0o755)
    monkeypatch.setattr("skystill.predict.web.check.find_browser", lambda: script and str(browser))
    monkeypatch.setattr("skystill.predict.web.check._PATIENCE", 0.3 if "0.3" in said else 120)
    model = write_model(tmp_path / "own.onnx", replace(INFO, tile_size=80).to_metadata())
    told: list[object] = []
    out = export(run=model, format="html", out=tmp_path / "map.html", on_progress=told.append)
    assert out.is_file()
    [note] = [one.text for one in told if isinstance(one, Note)]
    assert note.startswith("The page was not tried " + said.format(browser=browser))

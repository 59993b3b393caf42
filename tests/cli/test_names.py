"""Names of classes, files and folders are text wherever they come out: terminal, page, plots, tables, layers, links."""

import csv
import html
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import numpy as np
import optuna
import pyogrio
import pytest
import rasterio
import yaml
from matplotlib.figure import Figure
from PIL import Image

from skystill.classes import ClassMap, classes_from, read_classes
from skystill.cli.bars import ProgressDisplay
from skystill.errors import ClassesError
from skystill.model.stac import write_stac_item
from skystill.progress import Message, Note
from skystill.report.plots import save_plot
from skystill.run_folder import write_table, write_text
from skystill.settings import TuneSettings
from skystill.train.tune import open_study
from tests.cli.conftest import Done

HOSTILE = (
    "[/red]",
    "$\\frac{$",
    "=1+1",
    "@SUM(A1)",
    "50 % & #1?",
    "<script>alert('x')</script>",
    "\"quotes\" 'and'",
    ":car: 🏠",
    "שדה",
    "{0} {SCHEMA_VERSION}",
)
"""Names of classes. Each is taken for something else by one of the programs that they go through."""
FOLDER = "a [b] 100%?#$\\frac{$ & '{x}' <i> =1 🏠"
"""A folder, below which everything lies: data, runs and results."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images, each in its own way a stripe of each class, with hostile names of files, too."""
    folder = tmp_path_factory.mktemp("names") / FOLDER / "data"
    rng = np.random.default_rng(0)
    for index, name in enumerate(["=1+1", "[bold]", "a$b$", "50%?#", "<b>", "שדה 🏠"]):
        for below in ("images", "masks"):
            (folder / below).mkdir(parents=True, exist_ok=True)
        labels = np.roll(np.repeat(np.arange(len(HOSTILE), dtype=np.uint8), 4), index)
        Image.fromarray(np.tile(labels, (40, 1))).save(folder / "masks" / f"{name}.png")
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / "images" / f"{name}.png")
    (folder / "classes.yaml").write_text(yaml.safe_dump({"classes": [{"name": name} for name in HOSTILE]}))
    return folder


@pytest.fixture
def trained(data: Path, skystill: Callable[..., Done]) -> tuple[Path, Done]:
    """A run of a second, with its report."""
    run = data.parent / "run"
    done = skystill(
        "train", "--data", data, "--out", run, "--network", "unet?channels=8&depth=2", "--epochs=1", "--crop=32",
        "--batch-size=2", "--crops-per-image=1", "--split=0.5/0.2/0.3", *(["--resume"] if run.exists() else []),
    )  # fmt: skip
    assert done.code == 0, done.err
    return run, done


@pytest.mark.slow
def test_a_run_and_its_report(trained: tuple[Path, Done], data: Path, skystill: Callable[..., Done]) -> None:
    run, done = trained
    for name in HOSTILE:
        assert name in done.err  # pixels per class
    assert f"report: {run}" in done.out
    page = (run / "report.html").read_text(encoding="utf-8")
    for name in HOSTILE:
        assert str(html.escape(name, quote=False)).replace("'", "&#39;").replace('"', "&#34;") in page
    assert "<script>alert" not in page
    assert "<i>" not in page.replace("<i></i>", "").split("<h2>Settings</h2>")[1]
    assert json.loads((run / "split.json").read_text())["test"]
    checked = skystill("data", "check", data)
    assert checked.code == 0
    for name in HOSTILE:
        assert name in checked.out
    assert skystill("evaluate", run).code == 0


@pytest.mark.slow
def test_a_prediction_with_all_that_goes_beside_it(
    trained: tuple[Path, Done], data: Path, skystill: Callable[..., Done]
) -> None:
    run, _ = trained
    out = data.parent / "predicted"
    image = data / "images" / "50%?#.png"
    done = skystill(
        "predict", image, data / "images" / "=1+1.png", "--model", run / "model.onnx", "--out", out,
        "--vector=gpkg", "--areas", "--overlay",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "50%?#" in done.out
    tables = list(out.glob("*-areas.csv"))
    assert len(tables) == 2
    with open(tables[0], newline="", encoding="utf-8") as file:
        names = [row["class"] for row in csv.DictReader(file)]
    assert names == [f"'{name}" if name[0] in "=@" else name for name in HOSTILE] + ["no data"]
    for layer in out.glob("*.gpkg"):
        _, _, _, fields = pyogrio.raw.read(layer, layer="classes", columns=["class"])
        assert set(fields[0]) <= set(HOSTILE)
        assert len(fields[0]) > 0
        style = pyogrio.raw.read(layer, layer="layer_styles", columns=["styleQML"])[3][0][0]
        shown = [entry.get("value") for entry in ElementTree.fromstring(style).iter("category")]
        assert shown == list(HOSTILE)
    for raster in [path for path in out.iterdir() if path.suffix in (".tif", ".png") and "overlay" not in path.name]:
        with rasterio.open(raster) as opened:
            assert opened.shape == (40, 40)


@pytest.mark.slow
def test_the_link_of_a_stac_item_leads_to_the_model(trained: tuple[Path, Done], data: Path) -> None:
    model = data.parent / "50%?# a:b.onnx"
    model.write_bytes((trained[0] / "model.onnx").read_bytes())
    item = write_stac_item(model, data.parent / "item.json")
    link = item["assets"]["model"]["href"]  # type: ignore[index]
    parts = urlsplit(link)
    assert (parts.scheme, parts.query, parts.fragment) == ("", "", "")
    assert unquote(parts.path) == model.name
    names = [entry["name"] for entry in item["properties"]["mlm:output"][0]["classification:classes"]]  # type: ignore[index]
    assert names == list(HOSTILE)
    assert item["assets"]["model"]["file:size"] == model.stat().st_size  # type: ignore[index]


def test_a_study_lies_in_its_folder(tmp_path: Path) -> None:
    """As an address, the folder would be read up to "?" and its braces as a template."""
    out = tmp_path / FOLDER
    out.mkdir()
    settings = TuneSettings(data=tmp_path, out=out, teacher=["t"])
    study = open_study(settings)
    study.add_trial(optuna.trial.create_trial(value=0.5))
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
    assert (out / "study.db").stat().st_size > 0
    assert open_study(settings).best_value == 0.5


@pytest.mark.parametrize("text", [*HOSTILE, "[bold]x[/bold]", "\\[x]"])
def test_the_terminal_shows_what_is_there(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    display = ProgressDisplay()
    display(Note(text))
    display(Message(text))
    assert capsys.readouterr().err == f"note: {text}\n{text}\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_plot_draws_the_name_and_no_formula(text: str, tmp_path: Path) -> None:
    drawn = []

    def plot() -> Figure:
        figure = Figure()
        axes = figure.subplots()
        axes.set(title=text, xlabel=text)
        axes.set_xticks([0], [text])
        axes.plot([0], [0], label=text)
        axes.legend()
        drawn.extend([axes.title, axes.xaxis.label, *axes.get_xticklabels(), *axes.get_legend().get_texts()])
        return figure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that the font does not have
        save_plot(plot, tmp_path / "plot.png", "light")
    assert [one.get_text() for one in drawn] == [text] * 4
    assert not any(one.get_parse_math() for one in drawn)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+1+1", "'+1+1"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("＝1", "'＝1"),  # noqa: RUF001
        ("-0.5", "-0.5"),
        ("+1e5", "+1e5"),
        (-3, "-3"),
        ("Roof", "Roof"),
        ("a=b", "a=b"),
        ("a,b\"c", "a,b\"c"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_table_holds_no_formula(cell: object, written: str, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [{"class": cell}])
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        assert [row["class"] for row in csv.DictReader(file)] == [written]


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\0b", "a\x07", "\ud800", "a\x85b"])
def test_what_is_no_text_is_no_name_of_a_class(name: str) -> None:
    with pytest.raises(ClassesError, match="which is no text"):
        classes_from([{"name": name}, "b"], "classes.yaml")


def test_an_emoji_in_json_is_one_character(tmp_path: Path) -> None:
    """json.dumps writes it as two escapes, of which the YAML parser makes two characters."""
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"classes": [{"name": "🏠"}]}))
    assert "\\ud83c" in path.read_text()
    assert read_classes(path).names == ("🏠",)


def test_space_around_a_name_goes() -> None:
    """A block of YAML ends with a line break."""
    assert classes_from(yaml.safe_load("- name: |\n    Roof\n- ' b '"), "x").names == ("Roof", "b")
    with pytest.raises(ClassesError, match="has no name"):
        classes_from([" \n"], "x")
    assert ClassMap(("a",), ((1, 1, 1),)).names == ("a",)


def test_bytes_that_are_no_text_do_not_stop_a_page(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", b"caf\xe9.png".decode("utf-8", "surrogateescape"))
    assert (tmp_path / "page.html").read_text() == "caf\\udce9.png"

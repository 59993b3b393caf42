"""export, quantize, measure and predict as commands, in processes where that is the point."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from PIL import Image
from pystac.extensions.mlm import MLMExtension
from rasterio.transform import from_origin

from skystill.data import read_image
from skystill.data.scenes import paint_scene
from skystill.model.bundled import bundled_model
from skystill.model.measure import compare_models
from skystill.model.stac import write_stac_item
from skystill.predict import Predictor
from skystill.report import int8
from tests.channel_model import INFO, write_model
from tests.cli.conftest import TINY, Done, process
from tests.foreign_model import write_foreign

Cli = Callable[..., Done]
pytestmark = pytest.mark.slow
RGB = np.random.default_rng(5).integers(0, 256, (3, 3000, 2000), np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m.onnx", replace(INFO, tile_size=128).to_metadata())


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raster") / "in.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=3000, width=2000, count=3, dtype="uint8", crs="EPSG:32640", tiled=True,
        blockxsize=256, blockysize=256, interleave="pixel", transform=from_origin(300_000, 2_800_000, 0.5, 0.5),
    ) as file:  # fmt: skip
        file.write(RGB)
    return path


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def test_a_disk_that_fills_up_leaves_nothing_under_the_name(model: Path, raster: Path, tmp_path: Path) -> None:
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000));"
        f"sys.argv = ['skystill', 'predict', {str(raster)!r}, '--model={model}', '--out={tmp_path}/out.tif'];"
        "from skystill.cli.commands import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out.tif").exists()
    again = process("predict", raster, f"--model={model}", f"--out={tmp_path}/out.tif", "--resume")
    assert again.code == 0, again.err
    assert np.array_equal(read(tmp_path / "out.tif"), RGB.argmax(axis=0))


def test_a_damaged_raster_is_done_as_far_as_it_goes(model: Path, raster: Path, tmp_path: Path, skystill: Cli) -> None:
    cut = tmp_path / "cut.tif"
    cut.write_bytes(raster.read_bytes()[: int(raster.stat().st_size * 0.75)])
    done = skystill("predict", cut, "--model", model, "--out", tmp_path / "out.tif")
    assert done.code == 2
    # Of 12 x 8 blocks, whole ones are there up to number 71: the last one of rows 2048 to 2303 is cut.
    assert f"{cut} is damaged" in done.err and "rows 2304 to 2999, columns 0 to 255\n" in done.err
    assert "rows 2048 to 2999, columns 1792 to 1999\n" in done.err
    found = read(tmp_path / "out.tif")
    assert np.array_equal(found[:2000], RGB.argmax(axis=0)[:2000])
    assert (found[2816:] == 255).all()


def test_folders_patterns_and_extras(model: Path, raster: Path, tmp_path: Path, skystill: Cli) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.JPG"):
        Image.fromarray(RGB[:, :90, :120].transpose(1, 2, 0)).save(photos / name)
    flags = ("--model", model, "--out", tmp_path / "out", "--areas", "--overlay", "--vector", "gpkg", "--threads", 2)
    small = tmp_path / "in.tif"
    with (
        rasterio.open(raster) as file,
        rasterio.open(small, "w", **{**file.profile, "height": 200, "width": 300}) as part,
    ):
        part.write(RGB[:, :200, :300])
    done = skystill("predict", photos, small, *flags)
    assert done.code == 0, done.err
    assert "in.tif: 0.1 MP" in done.out
    made = {path.name for path in (tmp_path / "out").iterdir()}
    wanted = {f"{stem}{end}" for stem in "ab" for end in (".png", ".qml", ".gpkg", "-areas.csv", "-overlay.png")}
    assert wanted | {"in.tif", "in.gpkg", "in-areas.csv", "in-overlay.png", "in.tif.aux.xml", "in.qml"} == made
    assert skystill("predict", f"{photos}/*.png", "--model", model, "--out", tmp_path / "one.png").code == 0
    assert np.array_equal(read(tmp_path / "one.png"), RGB[:, :90, :120].argmax(axis=0))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["nowhere.tif", "--model={m}", "--out={t}/o.tif"], "nowhere.tif: no such file"),
        (["{t}", "--model={m}", "--out={t}/o"], "no images there"),
        (["{r}", "--model={t}/none.onnx", "--out={t}/o.tif"], "no such model file"),
        (["{r}", "--model={r}", "--out={t}/o.tif"], "cannot be opened as an ONNX model"),
        (["{r}", "--model={m}", "--out={t}/o.jpg"], "name it .tif (GeoTIFF) or .png, or give a folder"),
        (["{r}", "{r}", "{m}", "--model={m}", "--out={t}/o.tif"], "is one file, and there are 2 inputs"),
        (["{r}", "--model={m}", "--out={t}/o.tif", "--bands=1,2,9"], "has no band 9; it has 3 bands"),
        (["{r}", "--model={m}", "--out={t}/o.tif", "--smooth=4"], "odd number of pixels"),
        (["{r}", "--model={m}", "--out={t}/o.tif", "--simplify=2px"], "add --vector"),
        (["{r}", "--model={m}", "--out={t}/o.tif", "--square=Building"], "--square is for polygons: add --vector"),
        (
            ["{r}", "--model={m}", "--out={t}/o.tif", "--vector=gpkg", "--square=Water,House"],
            "--square Water,House: the model has no class 'House'. Its classes are Building, Land, Road,",
        ),
        (["{r}", "--model={m}", "--out={t}/o.tif", "--min-area=1px"], "no component is smaller"),
        (["{r}", "--model={m}", "--out={t}/o.tif", "--bands=nir"], "has no band nir; it has 3 bands"),
        (["{r}", "--model={m}", "--out={t}/o.tif", "--scale=9,3"], "a larger one that becomes white"),
        (["{r}", "--model={m}", "--out={t}/o.tif", "--max-memory=lots"], "write a size as 256MB"),
        (["{r}", "--model={m}", "--out={t}/o.tif", "--max-memory=9MB"], "the smallest possible is"),
        (["{r}", "--model={m}", "--out=/proc/none/o.tif"], "cannot write"),
    ],
)
def test_bad_input_ends_in_words(
    flags: list[str], says: str, model: Path, raster: Path, tmp_path: Path, skystill: Cli
) -> None:
    done = skystill("predict", *(flag.format(m=model, r=raster, t=tmp_path) for flag in flags))
    assert done.code == 2
    assert says in " ".join(done.err.split())
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_model_is_told_from_ours(raster: Path, tmp_path: Path, skystill: Cli) -> None:
    foreign = write_model(tmp_path / "foreign.onnx", {})
    done = skystill("predict", raster, "--model", foreign, "--out", tmp_path / "o.tif")
    assert done.code == 2 and "say what its classes are with --classes" in done.err
    done = skystill("predict", raster, "--model", foreign, "--out", tmp_path / "o.tif", "--classes", "dubai")
    assert done.code == 0
    assert np.array_equal(read(tmp_path / "o.tif"), RGB.argmax(axis=0))


@pytest.mark.timeout(300)
def test_the_memory_limit_is_kept(student: Path, raster: Path, tmp_path: Path) -> None:
    flags = [str(raster), f"--model={student / 'student.onnx'}", f"--out={tmp_path}/o.tif", "--max-memory=320MB"]
    script = (
        f"import sys; sys.argv = ['skystill', 'predict', *{flags!r}]\n"
        "from skystill.cli import commands as cli\n"
        "from skystill.model.measure import peak_rss_bytes\n"
        "cli.main()\nprint(peak_rss_bytes())"
    )
    script = script.replace("cli.main()", "cli.app(standalone_mode=False)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) <= 320e6


def test_export_gives_the_runs_own_model_with_scores(
    student: Path, scenes: Path, tmp_path: Path, skystill: Cli
) -> None:
    out = tmp_path / "student.onnx"
    done = skystill("export", student, "--out", out, "--stac", "--resolution", 0.3)
    assert done.code == 0, done.err
    own, exported = Predictor(student / "student.onnx"), Predictor(out)
    image = read_image(scenes / "images/scene_000.jpg")
    assert image.shape == (128, 128, 3)
    assert np.array_equal(own.labels(image), exported.labels(image))
    results = json.loads((student / "results.json").read_text())
    assert exported.info.scores["miou"] == round(results["models"]["student"]["scores"]["miou"], 4)
    assert exported.info.resolution_m == 0.3
    item = json.loads((tmp_path / "student.stac.json").read_text())
    properties = item["properties"]
    assert item["assets"]["model"]["href"] == "student.onnx"
    assert properties["mlm:total_parameters"] == 25_749
    assert properties["mlm:memory_size"] > 10**7
    classes = properties["mlm:output"][0]["classification:classes"]
    assert [entry["name"] for entry in classes] == list(own.classes.names)
    assert (properties["gsd"], properties["mlm:input"][0]["input"]["data_type"]) == (0.3, "uint8")


def test_export_replaces_no_file_of_the_run(student: Path, scenes: Path, tmp_path: Path, skystill: Cli) -> None:
    """The run's own model file is what its results were measured on."""
    taken = {"link.onnx": student / "student.onnx", "o.bin": student / "checkpoints/model.safetensors"}
    taken |= {"s.stac.json": student / "config.yaml", "image.onnx": scenes / "images/scene_000.jpg"}
    for name, file in taken.items():
        (tmp_path / name).symlink_to(file)
    before = {path: path.read_bytes() for path in (*taken.values(), *student.glob("*.*")) if path.is_file()}
    files = set(tmp_path.iterdir())
    for out, *flags in (
        (student / "student.onnx",),
        (student / "student.onnx", "--format", "deepness"),
        (tmp_path / "link.onnx",),
        (tmp_path / "image.onnx",),
        (tmp_path / "s.onnx", "--stac"),
        (tmp_path / "o.xml", "--format", "openvino"),
    ):
        done = skystill("export", student, "--out", out, *flags)
        assert done.code == 2, done.err
        assert "results would overwrite inputs or each other; nothing was written" in " ".join(done.err.split())
        assert {path: path.read_bytes() for path in before} == before
        assert set(tmp_path.iterdir()) == files


def test_a_stac_item_is_valid_to_pystac(tmp_path: Path) -> None:
    """The schema of items comes with pystac. Those of extensions are on the web; pystac reads their fields instead."""
    write_stac_item(bundled_model(), tmp_path / "m.stac.json")
    item = pystac.Item.from_file(str(tmp_path / "m.stac.json"))
    without_extensions = item.full_copy()
    without_extensions.stac_extensions = []
    assert without_extensions.validate()  # raises where the item breaks the schema
    model = MLMExtension.ext(item)
    assert model.framework == "ONNX" and model.tasks == ["semantic-segmentation"]
    assert model.input[0].input.shape == [-1, 3, -1, -1] and model.input[0].input.data_type == "uint8"
    assert [entry.name for entry in model.output[0].classes or []] == list(Predictor(bundled_model()).classes.names)


def test_the_deepness_variant_has_what_deepness_wants(student: Path, tmp_path: Path, skystill: Cli) -> None:
    import onnxruntime

    done = skystill("export", student, "--out", tmp_path / "d.onnx", "--format", "deepness")
    assert done.code == 0, done.err
    session = onnxruntime.InferenceSession(tmp_path / "d.onnx")
    assert session.get_inputs()[0].shape == [1, 3, 512, 512] and session.get_inputs()[0].type == "tensor(float)"
    image = RGB[None, :, :512, :512]
    shares = session.run(None, {session.get_inputs()[0].name: image.astype(np.float32) / 255})[0]
    assert np.abs(shares.sum(axis=1) - 1).max() < 1e-5
    expected = Predictor(student / "student.onnx").labels(image[0].transpose(1, 2, 0))
    assert (shares[0].argmax(axis=0) == expected).mean() > 0.999
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["tile_size"]) == 512 and json.loads(metadata["model_type"]) == "Segmentor"


def test_the_deepness_variant_runs_here_as_the_float_file_does(
    student: Path, scenes: Path, tmp_path: Path, skystill: Cli
) -> None:
    done = skystill("export", student, "--out", tmp_path / "d.onnx", "--format", "deepness")
    assert done.code == 0, done.err
    own = Predictor(student / "student.onnx")
    variant = Predictor(tmp_path / "d.onnx", classes=own.classes)
    for image in (
        read_image(scenes / "images/scene_000.jpg"),
        RGB[:, :900, :700].transpose(1, 2, 0),
        paint_scene(700, 1)[0],
    ):
        assert (variant.labels(image) == own.labels(image)).mean() >= 0.999
    picture = scenes / "images/scene_001.jpg"
    classes = scenes / "classes.yaml"
    done = skystill(
        "predict", picture, "--model", tmp_path / "d.onnx", "--classes", classes, "--out", tmp_path / "c.png"
    )
    assert done.code == 0 and "as its metadata for Deepness says" in done.err.replace("\n", " "), done.err
    own.predict(picture, tmp_path / "own.png")
    found, expected = (np.asarray(Image.open(tmp_path / name)) for name in ("c.png", "own.png"))
    assert (found == expected).mean() >= 0.999


@pytest.mark.parametrize(
    ("options", "flags", "message"),
    [
        ({"end": "ArgMax", "dtypes": (1, 7)}, [], "argmax"),
        ({}, ["--input", "0..2"], "0..2"),
        ({"multiple": 256}, [], "fails on an input of the shape"),
    ],
)
def test_a_foreign_file_that_cannot_be_run_ends_with_2_and_writes_nothing(
    options: dict[str, Any], flags: list[str], message: str, tmp_path: Path, skystill: Cli
) -> None:
    model = write_foreign(tmp_path / "m.onnx", **options)
    (tmp_path / "c.yaml").write_text("classes:\n  - {name: a, color: '#010101'}\n  - {name: b, color: '#020202'}\n"
                                     "  - {name: c, color: '#030303'}\n")  # fmt: skip
    Image.fromarray(RGB[:, :50, :60].transpose(1, 2, 0)).save(tmp_path / "in.png")
    before = sorted(tmp_path.iterdir())
    flags = ["--model", str(model), "--classes", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "o.png"), *flags]
    done = skystill("predict", tmp_path / "in.png", *flags)
    assert done.code == 2 and message in done.err.replace("\n", " "), done.err
    assert sorted(tmp_path.iterdir()) == before


def test_openvino_runs_both_files_to_the_same_classes(student: Path, tmp_path: Path, skystill: Cli) -> None:
    openvino = pytest.importorskip("openvino")
    done = skystill("export", student, "--out", tmp_path / "o.xml", "--format", "openvino")
    assert done.code == 0, done.err
    image = RGB[:, :300, :500]
    expected = Predictor(student / "student.onnx").labels(image.transpose(1, 2, 0))
    for path in (tmp_path / "o.xml", student / "student.onnx"):
        model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # its default rounds to bf16
        found = next(iter(model([image[None]]).values()))[0].argmax(axis=0)
        assert (found == expected).mean() >= 0.999
    ours = Predictor(student / "student.onnx", runtime="openvino").labels(image.transpose(1, 2, 0))
    assert (ours == expected).mean() >= 0.999
    assert {path.name for path in tmp_path.iterdir()} == {"o.xml", "o.bin"}  # no part, no ONNX file in between


def test_quantize_and_measure(student: Path, scenes: Path, tmp_path: Path, skystill: Cli) -> None:
    done = skystill("quantize", student / "student.onnx", "--data", scenes, "--out", tmp_path / "q.onnx", "--images", 4)
    assert done.code == 0, done.err
    assert (tmp_path / "q.onnx").exists()
    assert "layers in INT8: mIoU" in done.err and "kept in float:" in done.out
    saved = tmp_path / "costs.json"
    done = skystill("measure", student / "student.onnx", "--save", saved)
    assert done.code == 0, done.err
    (one,) = json.loads(saved.read_text())["models"]
    assert (one["parameters"], one["size_bytes"]) == (25_749, (student / "student.onnx").stat().st_size)
    assert one["latency_ms_per_mp"] > 0 and one["latency_ms_per_mp_1_thread"] > 0 and 0 < one["peak_fraction"] < 10
    assert "ms per megapixel, 1 thread" in done.out


def test_distill_quantize_writes_an_int8_file(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = compare_models([teacher / "model.onnx"])  # timing is tested above; here INT8 is said to be faster
    faster = replace(costs[0], latency_ms_per_mp=0.1)
    monkeypatch.setattr(int8, "compare_models", lambda paths, on_progress: [costs[0], faster])
    flags = ["--student=two-level", "--epochs=4", "--no-alone", "--no-report", "--quantize"]
    done = skystill("distill", "--data", scenes, "--teacher", teacher, "--out", tmp_path / "s", *flags, *TINY)
    assert done.code == 0, done.err
    assert Predictor(tmp_path / "s/student-int8.onnx").info.precision == "int8"
    assert len((tmp_path / "s/metrics-int8.csv").read_text().splitlines()) == 2  # a quarter of four epochs
    again = skystill("export", tmp_path / "s", "--out", tmp_path / "again.onnx")
    assert again.code == 0, again.err

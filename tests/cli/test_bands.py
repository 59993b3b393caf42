"""Whole commands on images of four bands of 16 bits: from the check of the data to a pruned student."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import rasterio
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from skystill.raster.input_spec import RGB, spec_from
from tests.banded_rasters import write_bands
from tests.cli.conftest import Done
from tests.foreign_model import write_foreign

Cli = Callable[..., Done]
NAMES = ("blue", "green", "red", "nir")
QUICK = ["--crop=32", "--batch-size=4", "--crops-per-image=8", "--split=0.5/0.125/0.375", "--precision=32"]


def paint(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four bands of which only nir tells the classes apart, and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16), int)).astype(np.uint8)
    planes = rng.normal(1000, 100, (4, 64, 64))
    planes[3] += 1500.0 * labels
    return planes.astype(np.uint16), labels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bands")
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for seed in range(8):
        planes, labels = paint(seed)
        planes[:, :4, :4] = 0
        write_bands(folder / f"images/{seed}.tif", planes, NAMES, nodata=0)
        Image.fromarray(labels).save(folder / f"masks/{seed}.png")
    (folder / "classes.yaml").write_text("classes: [bare, plant]\n")
    return folder


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--bands=1,2,9"], "has no band 9; it has 4 bands: blue, green, red, nir"), (["--bands=b"], "has no band b"),
        (["--bands=1,red"], "or names as red,green,blue,nir"), (["--bands=0"], "the first band is 1"),
        (["--bands=nir,nir"], "a band stands there twice"), (["--bands="], "--bands is empty"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["check", "train", "distill", "cache"])
def test_bands_that_are_not_there_end_in_words(
    command: str, flags: list[str], says: str, data: Path, tmp_path: Path, skystill: Cli
) -> None:
    commands: dict[str, list[Any]] = {
        "check": ["data", "check", data], "train": ["train", f"--data={data}", f"--out={tmp_path / 'r'}", *QUICK],
        "distill": ["distill", f"--data={data}", f"--out={tmp_path / 'r'}", "--teacher=x.onnx", *QUICK],
        "cache": ["cache", f"--data={data}", f"--cache={tmp_path / 'r'}", "--teacher=x.onnx", QUICK[3]],
    }  # fmt: skip
    done = skystill(*commands[command], *flags)
    assert done.code == 2, done.err
    assert says in done.err.replace("\n", " ")
    assert not (tmp_path / "r").exists()


def test_data_check_shows_what_would_be_fed(data: Path, skystill: Cli) -> None:
    done = skystill("data", "check", data, "--bands=nir,B3")
    assert done.code == 2 and "has no band b3" in done.err
    done = skystill("data", "check", data, "--bands=nir,red")
    assert done.code == 0, done.err
    assert "fed as uint16" in done.out and "0.5 m on the ground per pixel" in done.out
    row = next(line for line in done.out.splitlines() if "nir" in line)
    assert row.replace("│", " ").split()[:2] == ["nir", "4"]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.cli.conftest import process

    out = tmp_path_factory.mktemp("runs") / "train"
    done = process(
        "train", f"--data={data}", f"--out={out}", "--network=two-level", "--bands=red,green,blue,nir", "--epochs=12",
        *QUICK,
    )  # fmt: skip
    assert done.code == 0, done.err
    return out


def score(run: Path, name: str) -> float:
    return float(json.loads((run / "results.json").read_text())["models"][name]["scores"]["miou"])


@pytest.mark.slow
class TestRun:
    """A run of `train` on all four bands, and what is made of it."""

    def test_config_weights_and_model_hold_one_spec(self, run: Path, data: Path) -> None:
        spec = spec_from(yaml.safe_load((run / "config.yaml").read_text())["input_spec"])
        assert [(band.name, band.number) for band in spec.bands] == [("red", 3), ("green", 2), ("blue", 1), ("nir", 4)]
        assert (spec.dtype, spec.nodata, spec.resolution_m) == ("uint16", 0.0, 0.5)
        with safe_open(run / "checkpoints/model.safetensors", framework="pt") as file:
            assert spec_from(json.loads(file.metadata()["skystill"])["input_spec"]) == spec
        properties = {one.key: one.value for one in onnx.load(run / "model.onnx").metadata_props}
        assert spec_from(json.loads(properties["input_spec"])) == spec
        keys = json.loads((run / "split.json").read_text())["train"]
        valid = np.ones((64, 64), bool)
        valid[:4, :4] = False
        values = np.concatenate([paint(int(key))[0][3][valid] for key in keys]).astype(float)
        assert spec.bands[3].mean == pytest.approx(values.mean(), rel=1e-6)
        assert spec.bands[3].std == pytest.approx(values.std(), rel=1e-6)
        assert score(run, "teacher") > 0.9

    def test_predict_finds_the_bands(self, run: Path, tmp_path: Path, skystill: Cli) -> None:
        planes, labels = paint(50)
        write_bands(tmp_path / "a.tif", planes[[3, 0, 1, 2]], ("nir", "blue", "green", "red"))
        write_bands(tmp_path / "b.tif", planes[[2, 1, 0, 3]])  # by number, in the order of the spec
        for name, flags in (("a", []), ("b", ["--bands=1,2,3,4"])):
            done = skystill("predict", tmp_path / f"{name}.tif", f"--model={run}/model.onnx",
                            f"--out={tmp_path}/{name}-classes.tif", *flags)  # fmt: skip
            assert done.code == 0, done.err
            with rasterio.open(tmp_path / f"{name}-classes.tif") as file:
                assert (file.read(1) == labels).mean() > 0.9

    def test_evaluate_export_and_quantize(self, run: Path, data: Path, tmp_path: Path, skystill: Cli) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(run, copy)
        assert skystill("quantize", copy / "model.onnx", f"--data={data}").code == 0
        assert skystill("evaluate", copy).code == 0
        for number, flags in enumerate(("--format=onnx", "--resolution=0.75", "--format=deepness")):
            done = skystill("export", copy, f"--out={tmp_path}/{number}.onnx", flags)
            assert done.code == 0, done.err
            stated = {one.key: one.value for one in onnx.load(tmp_path / f"{number}.onnx").metadata_props}
            spec = spec_from(json.loads(stated["input_spec"]))
            assert len(spec) == 4 and spec.resolution_m == (0.75 if number == 1 else 0.5)

    def test_resume_with_other_bands_is_refused(self, run: Path, data: Path, tmp_path: Path, skystill: Cli) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(run, copy)
        flags = ["train", f"--data={data}", f"--out={copy}", "--network=two-level", "--epochs=12", "--resume", *QUICK]
        done = skystill(*flags, "--bands=nir,green,blue,red")
        assert done.code == 2 and "bands was red,green,blue,nir, is now nir,green,blue,red" in done.err.replace(
            "\n", " "
        )
        done = skystill(*flags, "--bands=red,green,blue,nir")
        assert done.code == 0, done.err

    def test_the_config_of_a_run_is_settings_of_another(self, run: Path, tmp_path: Path, skystill: Cli) -> None:
        flags = [f"--config={run}/config.yaml", "--epochs=1", "--no-report"]
        done = skystill("train", *flags, f"--out={tmp_path}/all", "--limit-images=2")
        assert done.code == 0, done.err
        again = yaml.safe_load((tmp_path / "all/config.yaml").read_text())
        assert len(again["sampled_images"]) == 2
        done = skystill("train", f"--config={tmp_path}/all/config.yaml", f"--out={tmp_path}/again", "--no-report")
        assert done.code == 0, done.err
        other = yaml.safe_load((tmp_path / "again/config.yaml").read_text())
        assert {**again, "out": ""} == {**other, "out": ""}

    def test_training_goes_on_from_the_weights(self, run: Path, data: Path, tmp_path: Path, skystill: Cli) -> None:
        weights = f"--network={run}/checkpoints/model.safetensors"
        flags = ["train", f"--data={data}", f"--out={tmp_path}/r", weights, "--epochs=1", "--no-report", *QUICK]
        done = skystill(*flags, "--bands=nir,red")
        assert done.code == 2 and "is fed red, green, blue, nir as uint16" in done.err.replace("\n", " ")
        done = skystill(*flags, "--seed=5")
        assert done.code == 0, done.err
        before, after = (yaml.safe_load((one / "config.yaml").read_text()) for one in (run, tmp_path / "r"))
        assert before["input_spec"]["bands"] == after["input_spec"]["bands"]

    def test_images_on_another_scale_are_refused(self, run: Path, data: Path, tmp_path: Path, skystill: Cli) -> None:
        scaled = tmp_path / "scaled"
        shutil.copytree(data, scaled)
        for path in (scaled / "images").iterdir():
            with rasterio.open(path) as file:
                planes = file.read()
            write_bands(path, (planes // 200).astype(np.uint16), NAMES, nodata=0)
        more = [f"--out={tmp_path}/r", "--epochs=1", "--no-report", *QUICK]
        weights = run / "checkpoints/model.safetensors"
        for command, says in (
            (["train", f"--data={scaled}", f"--network={weights}"], "the network to start from was trained on other"),
            (["distill", f"--data={scaled}", f"--teacher={run}"], f"the teacher {run} was trained on other values"),
            (
                ["distill", f"--data={data}", f"--teacher={run}", f"--unlabeled={scaled}/images"],
                "8 file(s) cannot teach",
            ),
            (["pretrain", f"--teacher={run}", f"--images={scaled}/images"], "8 file(s) cannot teach"),
        ):
            flags = more if command[0] != "pretrain" else more[:2]
            done = skystill(*command, *flags)
            said = " ".join(done.err.split())
            assert done.code == 2 and says in said and "its values are on another scale" in said, said

    def test_a_cached_teacher_of_values_and_a_student_that_was_trained_before(
        self, run: Path, data: Path, tmp_path: Path, skystill: Cli
    ) -> None:
        """The student keeps its statistics, and the cache, which knows no student, takes those of the images."""
        path = write_foreign(tmp_path / "f.onnx", ("n", 4, "h", "w"), bands=4, scale=1 / 20)
        done = skystill(
            "distill", f"--data={data}", f"--teacher={path}?bands=red,green,blue,nir&input=values", "--limit-images=2",
            "--teacher-classes=bare,plant,rest", f"--student={run}/checkpoints/model.safetensors", "--no-alone",
            "--teacher-mode=cached", "--epochs=1", "--no-report", f"--out={tmp_path}/r", *QUICK,
        )  # fmt: skip
        assert done.code == 0, done.err

    def test_distill_and_prune(self, run: Path, data: Path, tmp_path: Path, skystill: Cli) -> None:
        shared = [f"--data={data}", "--epochs=4", *QUICK]
        three = "--bands=nir,red,green"  # the teacher is fed four
        done = skystill("distill", *shared, f"--teacher={run}", f"--out={tmp_path}/s", "--student=two-level", three,
                        "--quantize", "--no-alone", "--distillation-loss=kl+pkd")  # fmt: skip
        assert done.code == 0, done.err
        spec = spec_from(yaml.safe_load((tmp_path / "s/config.yaml").read_text())["input_spec"])
        assert spec.names == ("nir", "red", "green") and score(tmp_path / "s", "student") > 0.6
        assert (tmp_path / "s/student-int8.onnx").exists()
        size = (tmp_path / "s/student-int8.onnx").stat().st_size
        done = skystill("prune", f"{tmp_path}/s", f"--data={data}", f"--out={tmp_path}/p", f"--max-size={size + 9000}B",
                        "--epochs=1", "--no-report", *QUICK)  # fmt: skip
        assert done.code == 0, done.err
        pruned = yaml.safe_load((tmp_path / "p/config.yaml").read_text())["input_spec"]
        assert pruned["bands"] == yaml.safe_load((tmp_path / "s/config.yaml").read_text())["input_spec"]["bands"]


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on(teacher: Path, scenes: Path, tmp_path: Path, skystill: Cli) -> None:
    """Its config.yaml, weights and model file do not say what the network is fed: colours."""
    old = tmp_path / "old"
    shutil.copytree(teacher, old)
    config = yaml.safe_load((old / "config.yaml").read_text())
    for name in ("input_spec", "bands", "show"):
        config.pop(name, None)
    (old / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    weights = old / "checkpoints/model.safetensors"
    with safe_open(weights, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        content = json.loads(file.metadata()["skystill"])
    assert spec_from(content.pop("input_spec")).is_colors
    content["settings"].pop("bands", None)
    assert len(content.pop("skystill_sha256")) == 64
    save_file(state, weights, metadata={"skystill": json.dumps(content)})
    model = onnx.load(old / "model.onnx")
    kept = [(one.key, one.value) for one in model.metadata_props if one.key not in ("input_spec", "skystill_sha256")]
    del model.metadata_props[:]
    for key, value in kept:
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, old / "model.onnx")
    before = score(teacher, "teacher")
    done = skystill("evaluate", old)
    assert done.code == 0, done.err
    assert score(old, "teacher") == before
    done = skystill("export", old, f"--out={tmp_path}/m.onnx")
    assert done.code == 0, done.err
    stated = {one.key: one.value for one in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert spec_from(json.loads(stated["input_spec"])) == RGB
    done = skystill("train", f"--config={old}/config.yaml", "--resume")
    assert done.code == 0, done.err

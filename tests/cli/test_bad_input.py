import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from skystill.data import read_image
from skystill.errors import SettingsError
from skystill.settings import DistillSettings, build_settings
from tests.cli.conftest import TINY, Done, process

Cli = Callable[..., Done]


def snapshot(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def refuse_image_without_mask(data: Path) -> list[str]:
    (data / "masks/scene_000.png").unlink()
    return ["scene_000.jpg: no mask"]


def refuse_other_size(data: Path) -> list[str]:
    mask = read_image(data / "masks/scene_001.png")
    Image.fromarray(mask[:90, :100]).save(data / "masks/scene_001.png")
    return ["scene_001.png: 100x90 pixels; its image scene_001.jpg has 128x128"]


def refuse_truncated_jpeg(data: Path) -> list[str]:
    path = data / "images/scene_002.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    return ["scene_002.jpg: cannot be read as an image"]


def refuse_unknown_color(data: Path) -> list[str]:
    mask = read_image(data / "masks/scene_003.png").copy()
    mask[:2] = (61, 17, 150)
    Image.fromarray(mask).save(data / "masks/scene_003.png")
    return ["#3D1196: 256 pixels in 1 mask(s)", "nearest class colour is Building #3C1098", "scene_003.png"]


def refuse_class_never_seen(data: Path) -> list[str]:
    text = (data / "classes.yaml").read_text().replace("#3C1098", "#3C1099")
    (data / "classes.yaml").write_text(text)
    return ["Building #3C1099: no mask holds a pixel", "#3C1098:"]


def refuse_empty_folder(data: Path) -> list[str]:
    shutil.rmtree(data)
    data.mkdir()
    return ["holds no image with a mask", "images/NAME + masks/NAME"]


def refuse_one_image(data: Path) -> list[str]:
    for path in [*data.glob("images/*"), *data.glob("masks/*")]:
        if path.stem != "scene_001":
            path.unlink()
    (data / "classes.yaml").write_text("[Building, Land, Road, Vegetation]")
    Image.fromarray(np.arange(4, dtype=np.uint8).repeat(4096).reshape(128, 128)).save(data / "masks/scene_001.png")
    return ["of 1 image(s) leaves nothing for train"]


def refuse_all_at_once(data: Path) -> list[str]:
    spoilers = (refuse_image_without_mask, refuse_other_size, refuse_truncated_jpeg, refuse_unknown_color)
    return ["4 problem(s) in the data", *[words for spoil in spoilers for words in spoil(data)]]


@pytest.mark.parametrize(
    "spoil",
    [
        refuse_image_without_mask,
        refuse_other_size,
        refuse_truncated_jpeg,
        refuse_unknown_color,
        refuse_class_never_seen,
        refuse_empty_folder,
        refuse_one_image,
        refuse_all_at_once,
    ],
)
def test_bad_data_ends_in_words_and_writes_nothing(
    spoil: Callable[[Path], list[str]], scenes: Path, tmp_path: Path, skystill: Cli
) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    words = spoil(data)
    before = snapshot(tmp_path)
    commands = [["train", "--data", data, "--out", tmp_path / "run", "--split=0.7/0.1/0.2"]]
    if spoil is not refuse_one_image:
        commands.append(["data", "check", data])
    for command in commands:
        done = skystill(*command)
        assert done.code == 2, done.err
        for word in words:
            assert word in done.err
        assert "Traceback" not in done.err
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--nonsense"], "No such option"),
        (["--epochs=0"], "--epochs 0: Input should be greater than or equal to 1"),
        (["--epochs=many"], "Invalid value"),
        (["--student-loss=hinge"], "hinge"),
        (["--network=resnet"], "no network is called 'resnet'"),
        (["--classes=nowhere.yaml"], "nowhere.yaml is neither a classes file nor a built-in name"),
        (["--split=nowhere"], "--split nowhere"),
        (["--limit-images=99"], "there are only"),
    ],
)
def test_bad_flags_end_in_words(flags: list[str], says: str, scenes: Path, tmp_path: Path, skystill: Cli) -> None:
    done = skystill("train", "--data", scenes, "--out", tmp_path / "run", *flags)
    assert (done.code, "Traceback" in done.err) == (2, False)
    assert says in " ".join(done.err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


def test_an_out_that_holds_a_run_is_refused(teacher: Path, scenes: Path, skystill: Cli) -> None:
    before = (teacher / "report.html").read_bytes()
    done = skystill("train", "--data", scenes, "--out", teacher)
    assert done.code == 2
    assert "holds a run. Go on with it by --resume" in done.err
    assert (teacher / "report.html").read_bytes() == before


def test_an_out_that_holds_a_run_is_refused_before_the_cache_is_filled(
    teacher: Path, scenes: Path, tmp_path: Path, skystill: Cli
) -> None:
    cached = ["--teacher-mode=cached", f"--cache={tmp_path / 'cache'}"]
    done = skystill("distill", "--data", scenes, "--teacher", teacher, "--out", teacher, *cached, *TINY)
    assert done.code == 2
    assert "holds a run. Go on with it by --resume" in done.err
    assert not (tmp_path / "cache").exists()


def test_a_resume_with_other_settings_is_refused(teacher: Path, scenes: Path, skystill: Cli) -> None:
    done = skystill("train", "--data", scenes, "--out", teacher, "--resume", "--epochs=99", *TINY)
    assert done.code == 2
    assert "epochs was 3, is now 99" in done.err


def test_a_teacher_of_other_classes_is_refused(teacher: Path, scenes: Path, tmp_path: Path, skystill: Cli) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    text = (data / "classes.yaml").read_text()
    for name in ("Building", "Land", "Road", "Vegetation", "Water"):
        text = text.replace(f"- name: {name}", f"- name: Other {name}")
    (data / "classes.yaml").write_text(text)
    done = skystill("distill", "--data", data, "--teacher", teacher, "--out", tmp_path / "run", *TINY)
    assert done.code == 2, done.err
    assert "of the data's classes (Other Building" in " ".join(done.err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_teacher_that_is_no_run_is_refused(name: str, scenes: Path, tmp_path: Path, skystill: Cli) -> None:
    (tmp_path / "empty").mkdir()
    done = skystill("distill", "--data", scenes, "--teacher", tmp_path / name, "--out", tmp_path / "run")
    assert done.code == 2
    assert "is not a run folder" in done.err


def test_weights_cut_in_half_are_refused(teacher: Path, scenes: Path, tmp_path: Path, skystill: Cli) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teacher, copy)
    weights = copy / "checkpoints/model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    done = skystill("distill", "--data", scenes, "--teacher", copy, "--out", tmp_path / "run")
    assert done.code == 2
    assert "model.safetensors cannot be read as SkyStill weights" in done.err
    (copy / "checkpoints/resume.pt").write_bytes(b"half")
    data = yaml.safe_load((copy / "config.yaml").read_text())["data"]
    done = skystill(
        "train", f"--data={data}", "--out", copy, "--resume", "--network=unet?channels=8&depth=3", "--epochs=3", *TINY
    )
    assert done.code == 2
    assert "resume.pt cannot be read" in done.err


def test_evaluating_what_is_no_run_is_refused(tmp_path: Path, skystill: Cli) -> None:
    done = skystill("evaluate", tmp_path)
    assert done.code == 2
    assert "is not a run folder" in done.err


@pytest.mark.slow
def test_a_loss_that_explodes_names_the_step_and_the_mend(scenes: Path, tmp_path: Path) -> None:
    done = process(
        "train", "--data", scenes, "--out", tmp_path / "run", "--network=two-level", "--learning-rate=1e30",
        "--schedule=constant", "--epochs=3", *TINY,
    )  # fmt: skip
    assert done.code == 2, done.err
    assert "the loss is not finite at step" in done.err
    assert "Lower --learning-rate" in done.err
    assert "Traceback" not in done.err
    assert not list((tmp_path / "run").glob("*.onnx"))


def test_debug_shows_where(tmp_path: Path) -> None:
    done = process("--debug", "evaluate", tmp_path)
    assert done.code == 1
    assert "Traceback" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "check", ""),
        ("predict", ""),
        ("predict", "a.tif", "--out="),
        ("measure", "a.onnx", ""),
        ("train", "--data=", "--out=b"),
        ("train", "--data=a", "--out=b", "--classes="),
        ("distill", "--data=a", "--out=b", "--teacher=c", "--unlabeled="),
        ("distill", "--data=a", "--out=b", "--teacher=c", "--unlabeled=d", "--unlabeled="),
        ("pretrain", "--teacher=lite0", "--images=", "--out=b"),
    ],
)
def test_an_empty_text_is_not_the_current_folder(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skystill: Cli
) -> None:
    """A variable of a shell that is not set would train on, or predict, whatever lies there."""
    monkeypatch.chdir(tmp_path)
    done = skystill(*arguments)
    assert done.code == 2 and "is empty" in " ".join(done.err.split()), done
    assert snapshot(tmp_path) == set()


def test_an_empty_text_in_python_is_refused() -> None:
    with pytest.raises(SettingsError, match="--unlabeled is empty"):
        build_settings(DistillSettings, {"data": "a", "out": "b", "teacher": "c", "unlabeled": ["d", ""]})

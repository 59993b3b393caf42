"""Whether a distillation begins with the teacher's features, and what it begins with then."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from skystill.classes import ClassMap
from skystill.data.prepare import PreparedData, prepare_data
from skystill.errors import RunFolderError, SettingsError
from skystill.raster.input_spec import RGB, Band, InputSpec
from skystill.report.records import TrainingRecord, write_record
from skystill.run_folder import RunFolder, write_table
from skystill.settings import DistillSettings, PretrainSettings
from skystill.train.features_first import (
    baseline_epochs,
    begin_with_features,
    check_features_first,
    feature_seconds,
)
from skystill.train.networks.start import network_name, start_network
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, write_network

CLASSES = ClassMap(("a", "b"), ((255, 0, 0), (0, 255, 0)))
SMALL = "swift?channels=(8,8,16)&blocks=(0,1,1)&up_blocks=(1,1)"


def run_of(folder: Path, network: str, fed: InputSpec = RGB) -> Path:
    """A run folder with the weights of a network, and what else makes it one."""
    run = RunFolder(folder)
    run.weights.parent.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump({"network": network}))
    record = NetworkRecord(network, CLASSES, input_spec=fed)
    write_network(run.weights, build_network(network, 2, fed), record)
    return folder


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("teachers")
    return {
        "lite0": run_of(folder / "lite0", "lite0"),
        "small": run_of(folder / "small", SMALL),
        "of two numbers": run_of(folder / "dark", SMALL, fed=replace(RGB, zero=40, unit=16.0)),
    }


@pytest.fixture(scope="module")
def prepared(scenes: Path) -> PreparedData:
    return prepare_data(DistillSettings(data=scenes, teacher=["t"], out=Path("o"), split="0.5/0.1/0.4"))


def asking(teacher: Path, out: Path, **more: object) -> DistillSettings:
    """Settings that ask for features."""
    given: dict[str, object] = {"student": SMALL, "feature_epochs": 2, **more}
    return DistillSettings(data=Path("d"), teacher=[str(teacher)], out=out, **given)


class Learning:
    """Stands for `skystill pretrain`: writes its settings and weights that anyone can tell, and keeps the settings."""

    def __init__(self, fed: InputSpec = RGB) -> None:
        self.settings: list[PretrainSettings] = []
        self.fed = fed

    def __call__(self, settings: PretrainSettings) -> None:
        self.settings.append(settings)
        RunFolder(settings.out).config.write_text(yaml.safe_dump(settings.to_config()))
        network = build_network(network_name(settings.student), len(CLASSES), self.fed)
        with torch.no_grad():
            for weight in network.parameters():
                weight.fill_(0.25)
        record = NetworkRecord(settings.student, CLASSES, input_spec=self.fed, pretrained="t")
        write_network(RunFolder(settings.out).weights, network, record)


@pytest.mark.parametrize(
    ("teacher", "more", "passes"),
    [
        ("lite0", {}, 0),
        ("lite0", {"feature_epochs": 20}, 20),
        ("small", {"feature_epochs": 2}, 2),
        ("of two numbers", {"feature_epochs": 2}, 2),
    ],
)
def test_how_many_passes(
    teachers: dict[str, Path],
    prepared: PreparedData,
    tmp_path: Path,
    teacher: str,
    more: dict[str, object],
    passes: int,
) -> None:
    learn = Learning()
    named = [str(teachers[name]) for name in teacher.split("+")]
    settings = DistillSettings(data=Path("d"), teacher=named, out=tmp_path, **{"student": SMALL, **more})
    check_features_first(settings)
    before = start_network(settings.student, 2, prepared.spec)
    student, fed = begin_with_features(before, settings, prepared, learn)
    assert [one.epochs for one in learn.settings] == ([passes] if passes else [])
    if not passes:
        assert student is before and fed is prepared
        return
    own = dict(student.named_parameters())
    learnt = {name for name, weight in own.items() if (weight == 0.25).all()}
    assert own.keys() - learnt == {name for name in own if name.startswith("head.")}
    zero, unit = (40, 16.0) if teacher == "of two numbers" else (128, 64.0)
    assert (fed.spec.zero, fed.spec.unit) == (zero, unit), "what the features were learnt with"


def test_features_that_are_there_are_not_learnt_again(
    teachers: dict[str, Path], prepared: PreparedData, tmp_path: Path
) -> None:
    settings = asking(teachers["lite0"], tmp_path)
    learn, students = Learning(), []
    for _ in range(2):
        students.append(begin_with_features(torch.nn.Identity(), settings, prepared, learn)[0])
    assert len(learn.settings) == 1
    one, other = (student.state_dict() for student in students)
    assert all(torch.equal(value, other[name]) for name, value in one.items()), "the head is drawn by the seed"


def test_features_of_a_command_that_was_stopped_are_not_those_of_another(
    teachers: dict[str, Path], prepared: PreparedData, tmp_path: Path
) -> None:
    """The network would be that of the first command, under the name of the second."""

    def begin(out: Path, images: int, **more: object) -> None:
        split = replace(prepared.split, train=prepared.split.train[:images])
        begin_with_features(
            torch.nn.Identity(), asking(teachers["lite0"], out, **more), replace(prepared, split=split), Learning()
        )

    begin(tmp_path / "run", 2)
    for more, said in (({"student": "kite-nano"}, "student was swift.*, is now kite-nano"), ({"seed": 1}, "seed was")):
        with pytest.raises(RunFolderError, match=f"features holds features that were learnt otherwise: {said}"):
            begin(tmp_path / "run", 2, **more)
    with pytest.raises(RunFolderError, match="otherwise: from other images"):
        begin(tmp_path / "run", 1)
    (tmp_path / "run").rename(tmp_path / "moved")
    begin(tmp_path / "moved", 2)


def test_the_features_are_learnt_from_the_training_images_of_the_run(
    teachers: dict[str, Path], prepared: PreparedData, tmp_path: Path
) -> None:
    more: dict[str, object] = {"unlabeled": [tmp_path], "seed": 5, "crop": 32}
    settings = asking(teachers["lite0"], tmp_path, **more)
    few = replace(prepared, split=replace(prepared.split, train=prepared.split.train[:2]))  # as by --limit-images
    learn = Learning()
    begin_with_features(torch.nn.Identity(), settings, few, learn)
    (first,) = learn.settings
    assert (first.images, first.seed, first.crop, first.student) == ([tmp_path], 5, 64, SMALL)
    assert RunFolder(tmp_path).read_json(Path(first.split))["train"] == [pair.key for pair in few.split.train]


def test_a_teacher_of_other_bands(teachers: dict[str, Path], prepared: PreparedData, tmp_path: Path) -> None:
    more = InputSpec((*RGB.bands, Band("nir", 4)), "uint16")
    reason = "the teacher is fed red, green, blue as uint8, and the student red, green, blue, nir as uint16"
    learn = Learning()
    with pytest.raises(SettingsError, match=f"--feature-epochs 2: {reason}. Leave the option out."):
        begin_with_features(
            torch.nn.Identity(), asking(teachers["lite0"], tmp_path), replace(prepared, spec=more), learn
        )
    assert not learn.settings


def test_a_teacher_of_the_same_bands_with_other_means(prepared: PreparedData, tmp_path: Path) -> None:
    """As with --limit-images, or a teacher of another place: the student is then fed as its teacher."""
    taught = InputSpec((*RGB.bands, Band("nir", 4, 500.0)), "uint16")
    own = replace(taught, bands=(*RGB.bands, Band("nir", 4, 600.0)), nodata=0.0)
    settings = asking(run_of(tmp_path / "teacher", SMALL, taught), tmp_path / "run")
    _, found = begin_with_features(torch.nn.Identity(), settings, replace(prepared, spec=own), Learning(taught))
    assert found.spec.bands == taught.bands and found.spec.nodata == 0.0


@pytest.mark.parametrize(
    ("teacher", "more", "reason"),
    [
        (["model.onnx"], {}, "one teacher that is a run"),
        (["lite0", "lite0"], {}, "one teacher that is a run"),
        (["lite0"], {"student": "begun.safetensors"}, "begun.safetensors does not begin"),
        (["lite0"], {"student": "timm:resnet18"}, "timm:resnet18 does not begin"),
        (["lite0"], {"from_scratch": True}, "exclude each other"),
        (["lite0"], {"devices": 2}, "in one process"),
    ],
)
def test_what_cannot_be_asked_for(
    teachers: dict[str, Path], teacher: Sequence[str], more: dict[str, object], reason: str
) -> None:
    named = [str(teachers.get(name, name)) for name in teacher]
    with pytest.raises(SettingsError, match=reason):
        check_features_first(DistillSettings(data=Path("d"), teacher=named, out=Path("o"), feature_epochs=2, **more))


def test_the_student_alone_has_the_same_time(tmp_path: Path) -> None:
    """Two passes of 10 s, and epochs of 8 s: 20 s are worth two and a half epochs, rounded to two."""
    run = RunFolder(tmp_path)
    settings = DistillSettings(data=Path("d"), teacher=["t"], out=tmp_path, epochs=6)  # it stopped after four

    def record() -> None:
        seconds = sum(feature_seconds(tmp_path))
        given = {"parameters": 1, "steps": 1, "seconds": 32.0, "peak_rss_bytes": 1, "device": "cpu"}
        write_record(run.training, TrainingRecord(**given, feature_seconds=seconds, history=[{"seconds": 8.0}] * 4))

    record()
    assert (baseline_epochs(settings), feature_seconds(tmp_path)) == (6, [])
    run.features.path.mkdir()
    write_table(run.features.metrics, [{"seconds": 10.0}] * 2)
    record()
    assert (baseline_epochs(settings), feature_seconds(tmp_path)) == (8, [10.0, 10.0])

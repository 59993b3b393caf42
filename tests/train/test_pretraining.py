import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from skystill.api import pretrain, train
from skystill.classes import ClassMap
from skystill.data import find_pairs
from skystill.errors import CheckpointError, DataError, SettingsError
from skystill.progress import EpochEnd, Event
from skystill.raster.input_spec import RGB, Band, InputSpec
from skystill.run_folder import RunFolder, write_json
from skystill.train.batches.batches import as_batch
from skystill.train.loop.matching import FeatureMatching
from skystill.train.networks.levels import Leveled
from skystill.train.networks.start import recorded_input, start_network
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, read_network, write_network

CLASSES = ClassMap(("a", "b", "c"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
STUDENT = "swift?channels=(8,8,16)&blocks=(0,1,1)&up_blocks=(1,1)"
TEACHER = "swift?channels=(16,16,24)&blocks=(1,1,1)&up_blocks=(1,1)"
TINY: dict[str, object] = {"student": STUDENT, "crop": 64, "batch_size": 2, "crops_per_image": 1}


def network(spec: str, seed: int) -> Leveled:
    torch.manual_seed(seed)
    built = build_network(spec, 3)
    assert isinstance(built, Leveled)
    return built


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a teacher; its BatchNorms have seen images."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    made = network(TEACHER, 5).train()
    made(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    write_network(path, made, NetworkRecord(TEACHER, CLASSES))
    return path


def features(network: Leveled, images: Tensor) -> list[Tensor]:
    """The outputs of the levels, and the input of the head, taken without hooks on the levels."""
    values = network.normalize(images, network.multiple, network.stride)  # type: ignore[operator]
    found = []
    for level in network.levels:
        values = level(values)
        found.append(values)
    before: list[Tensor] = []
    handle = network.head.register_forward_pre_hook(lambda module, given: before.append(given[0]))  # type: ignore[union-attr]
    network(images)
    handle.remove()
    return [*found, *before]


def one_minus_correlation(one: Tensor, other: Tensor) -> float:
    """Mean over channels of 1 - Pearson's r over all cells, in float64: what PKD is (Cao 2022, equation 4)."""
    rows = [part.detach().double().permute(0, 2, 3, 1).flatten(0, 2).T.numpy() for part in (one, other)]
    return float(np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(*rows, strict=True)]))


@pytest.mark.parametrize("has_decoder", [True, False])
def test_the_loss_is_the_mean_of_one_minus_the_correlations(has_decoder: bool) -> None:
    student, teacher = network(STUDENT, 1), network(TEACHER, 2)
    teacher.train()(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    task = FeatureMatching(student, teacher, has_decoder, Fabric(accelerator="cpu", devices=1))
    task.begin(torch.optim.AdamW(student.parameters(), lr=1e-3))
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    student.train()
    losses, _, _ = task.losses(as_batch((images, torch.zeros(2, 64, 96, dtype=torch.int64))))
    ours, theirs = features(student, images), features(teacher, images)
    wanted = 4 if has_decoder else 3  # levels at 1/2, 1/4 and 1/8, and what comes before the head
    assert len(task.loss) == wanted
    found = [
        one_minus_correlation(loss.project(own), other)  # type: ignore[operator]
        for loss, own, other in zip(task.loss, ours, theirs, strict=False)
    ]
    assert losses["loss"].item() == pytest.approx(np.mean(found), abs=2e-4)


def test_levels_are_matched_by_their_resolution() -> None:
    """Kite begins at 1/4, Swift at 1/2: the levels at 1/4 and 1/8 are common, not the first ones of both."""
    student = network("kite?channels=(8,8)&blocks=(0,0)", 1)
    task = FeatureMatching(student, network(TEACHER, 2), False, Fabric(accelerator="cpu", devices=1))
    assert [loss.project.out_channels for loss in task.loss] == [16, 24]  # type: ignore[union-attr]


def test_a_stopped_pretraining_ends_in_the_same_weights(scenes: Path, teacher: Path, tmp_path: Path) -> None:
    given = {"teacher": str(teacher), "images": [scenes], "epochs": 3, **TINY}
    whole = pretrain(out=tmp_path / "whole", **given)

    def stop(event: Event) -> None:
        if isinstance(event, EpochEnd):
            raise RuntimeError("the plug is pulled")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="plug"):
            pretrain(out=tmp_path / "stopped", on_progress=stop, resume=True, **given)
    stopped = pretrain(out=tmp_path / "stopped", resume=True, **given)
    assert len(stopped.metrics.read_text().splitlines()) == 4
    one, other = (start_network(str(run.weights), 3).state_dict() for run in (whole, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one if not name.startswith("head."))


def test_a_training_starts_from_it_with_a_head_of_its_own(scenes: Path, teacher: Path, tmp_path: Path) -> None:
    run = pretrain(teacher=str(teacher), images=scenes, out=tmp_path / "pre", epochs=1, **TINY)
    with pytest.raises(CheckpointError, match="knows no classes yet"):
        read_network(run.weights)
    torch.manual_seed(0)
    begun = start_network(str(run.weights), 7).state_dict()
    untrained = network(STUDENT, 0).state_dict()
    assert begun["head.weight"].shape[0] == 7 * 4
    changed = [name for name in begun if not name.startswith("head.") and not torch.equal(begun[name], untrained[name])]
    assert len(changed) > 0.9 * len([name for name in begun if not name.startswith("head.")]) - 2
    tiny = {"crop": 64, "crops_per_image": 1, "epochs": 1, "split": "0.5/0.1/0.4"}
    trained = train(data=scenes, network=str(run.weights), out=tmp_path / "run", report=False, **tiny)
    assert read_network(trained.weights)[1].network == STUDENT
    assert trained.model.is_file()


def test_images_that_are_held_out_are_refused(scenes: Path, teacher: Path, tmp_path: Path) -> None:
    shared = {"teacher": str(teacher), "data": scenes, "split": "0.5/0.25/0.25", "epochs": 1, **TINY}
    messages: list[str] = []
    run = pretrain(out=tmp_path / "a", on_progress=lambda event: messages.append(str(event)), **shared)
    assert run.weights.is_file()
    assert any("6 image(s) and windows to learn from, 6 held out" in text for text in messages)
    with pytest.raises(DataError, match="on which the student is scored"):
        pretrain(out=tmp_path / "b", images=[scenes], **shared)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"teacher": "kite"}, "its weights are random"),
        ({"teacher": "kit"}, "no network is called 'kit'"),
        ({"teacher": "runs/nothing.safetensors"}, "is missing"),
        ({"student": "swift?channels=3"}, "swift"),
        ({"bands": "3,2,1"}, "Leave --bands out"),
        ({"images": []}, "say which images to learn from"),
        ({"images": ["no/such/folder"]}, "is not a folder"),
    ],
)
def test_bad_input(changed: dict[str, object], said: str, scenes: Path, teacher: Path, tmp_path: Path) -> None:
    given = {"teacher": str(teacher), "images": [scenes], "out": tmp_path / "run", **TINY} | changed
    with pytest.raises((SettingsError, CheckpointError, DataError), match=said):
        pretrain(**given)
    assert not RunFolder(tmp_path / "run").config.exists()


def test_the_split_is_that_of_a_distillation_from_the_same_teacher(scenes: Path, teacher: Path, tmp_path: Path) -> None:
    """With `auto` a distillation takes the split of its teacher; its test images must not be learnt from before it."""
    run, keys = RunFolder(tmp_path / "teacher"), sorted(pair.key for pair in find_pairs(scenes).pairs)
    run.weights.parent.mkdir(parents=True)
    shutil.copy(teacher, run.weights)
    run.config.write_text("network: swift\n")
    parts = {"train": keys[:5], "validation": keys[5:7], "test": keys[7:]}
    write_json(run.split, {"rule": "mine", **parts})
    found = pretrain(teacher=str(run.path), data=scenes, out=tmp_path / "pre", epochs=1, **TINY)
    assert {part: found.read_json(found.split)[part] for part in parts} == parts


def test_an_image_that_is_named_twice_counts_once(scenes: Path, teacher: Path, tmp_path: Path) -> None:
    """The folder of links holds two of the training images under other paths."""
    given = {"teacher": str(teacher), "data": scenes, "split": "0.5/0.25/0.25", "epochs": 1, **TINY}
    first = pretrain(out=tmp_path / "a", **given)
    links = tmp_path / "links"
    links.mkdir()
    images = {pair.key: pair.image for pair in find_pairs(scenes).pairs}
    for key in first.read_json(first.split)["train"][:2]:
        (links / images[key].name).symlink_to(images[key])
    messages: list[str] = []
    pretrain(out=tmp_path / "b", images=[links], on_progress=lambda event: messages.append(str(event)), **given)
    assert any("6 image(s) and windows to learn from, 6 held out" in text for text in messages)


def test_a_student_that_was_trained_gets_a_fresh_head(scenes: Path, teacher: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun.safetensors"
    write_network(begun, network(STUDENT, 3), NetworkRecord(STUDENT, CLASSES))
    given = TINY | {"student": str(begun)}
    run = pretrain(teacher=str(teacher), images=scenes, out=tmp_path / "pre", epochs=1, learning_rate=1e-9, **given)
    one, other = (start_network(str(path), 3).state_dict() for path in (run.weights, begun))
    close = [name for name in one if torch.allclose(one[name], other[name], atol=1e-6)]
    learnt = {name for name, _ in network(STUDENT, 3).named_parameters() if not name.startswith("head.")}
    assert learnt <= set(close), "it goes on from what it was"


def test_a_student_that_is_fed_other_bands_is_refused(scenes: Path, teacher: Path, tmp_path: Path) -> None:
    begun, four = tmp_path / "begun.safetensors", InputSpec((*RGB.bands, Band("nir", 4)))
    write_network(begun, build_network(STUDENT, 3, four), NetworkRecord(STUDENT, CLASSES, input_spec=four))
    given = TINY | {"student": str(begun)}
    with pytest.raises(SettingsError, match="they cannot see the same pixels"):
        pretrain(teacher=str(teacher), images=scenes, out=tmp_path / "pre", **given)


def test_a_student_keeps_its_own_scale_and_the_split_is_by_its_seed(
    scenes: Path, teacher: Path, tmp_path: Path
) -> None:
    """It begins with a network of other classes, and of dark images, as the teacher's are not."""
    path, dark = tmp_path / "student.safetensors", replace(RGB, zero=15, unit=8.0)
    write_network(path, build_network(STUDENT, 3, dark), NetworkRecord(STUDENT, CLASSES, input_spec=dark))
    given = TINY | {"student": str(path), "teacher": str(teacher), "data": scenes, "epochs": 1}
    runs = [pretrain(out=tmp_path / str(seed), seed=seed, **given) for seed in (0, 1)]
    assert recorded_input(str(runs[0].weights)) == dark
    splits = [run.read_json(run.split) for run in runs]
    assert splits[0]["test"] != splits[1]["test"]
    again = {pair.key: pair for pair in find_pairs(scenes).pairs}
    messages: list[str] = []
    more = {"images": [again[splits[0]["train"][0]].image], "on_progress": lambda event: messages.append(str(event))}
    pretrain(out=tmp_path / "more", **given, **more)
    assert any(f"{len(splits[0]['train'])} image(s) and windows to learn from" in text for text in messages)

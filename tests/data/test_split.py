"""The automatic split: every class in every part, and what is said of a part that lacks one."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from skystill.classes import ClassMap, read_classes
from skystill.data import Pair, check_data, find_pairs, mask_areas, split_pairs
from skystill.data.parts import count_parts
from skystill.data.prepare import check_folder, prepare_data
from skystill.data.run_split import run_split
from skystill.data.split import Split
from skystill.data.stratify import stratified_parts
from skystill.errors import SettingsError
from skystill.run_folder import RunFolder
from skystill.settings import CacheSettings, CheckSettings, DistillSettings, FitSettings, TrainSettings
from tests.conftest import CLASSES_YAML, GREEN, RED


def pairs(count: int) -> list[Pair]:
    return [Pair(f"{i:03d}", Path(f"{i:03d}.jpg"), Path(f"{i:03d}.png")) for i in range(count)]


def keys(split: Split) -> list[list[str]]:
    return [[pair.key for pair in part] for part in (split.train, split.validation, split.test)]


@given(st.data())
def test_every_part_has_its_size_and_no_image_is_there_twice(data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    areas = rng.integers(0, 1000, (count, 4)) * (rng.random((count, 4)) < rng.random(4))
    seed = data.draw(st.integers(0, 9))
    split = split_pairs(pairs(count), "auto", seed, lambda found: areas)
    train, validation, test = keys(split)
    assert sorted(train + validation + test) == [f"{i:03d}" for i in range(count)]
    assert len(test) == max(5 if count >= 15 else 1, round(0.15 * count))
    assert len(validation) == max(1, round(0.15 * count))
    assert train
    assert split == split_pairs(pairs(count)[::-1], "auto", seed, lambda found: areas)


@given(st.integers(3, 60), st.integers(0, 2**32 - 1), st.integers(3, 6))
def test_a_rare_class_is_in_all_parts_where_it_is_in_three_images(count: int, seed: int, images: int) -> None:
    """Two classes everywhere, and a rare one of few pixels in a few images, wherever they are in the list."""
    rng = np.random.default_rng(seed)
    areas = rng.integers(1, 1000, (count, 3))
    areas[:, 2] = 0
    areas[rng.permutation(count)[:images], 2] = rng.integers(1, 9, min(images, count))
    split = split_pairs(pairs(count), "auto", seed % 7, lambda found: areas)
    for part in keys(split):
        assert sum(areas[int(key), 2] for key in part) > 0


def test_by_hand_of_six_images_the_three_rare_ones_go_apart() -> None:
    """Sizes 4, 1 and 1: the class of images 1, 3 and 5 must have one in each part, so 0, 2 and 4 train."""
    areas = np.array([[9, 0], [9, 1], [9, 0], [9, 1], [9, 0], [9, 1]])
    for seed in range(6):
        parts = stratified_parts(areas, (4, 1, 1), seed)
        assert [parts[i] for i in (0, 2, 4)] == [0, 0, 0]
        assert sorted(parts[i] for i in (1, 3, 5)) == [0, 1, 2]


def test_a_class_in_two_images_is_trained_and_tested_and_in_one_image_trained() -> None:
    areas = np.full((10, 3), 0)
    areas[:, 0] = 50
    areas[[2, 7], 1] = 1
    areas[4, 2] = 1
    for seed in range(5):
        parts = stratified_parts(areas, (6, 2, 2), seed)
        assert {parts[2], parts[7]} == {0, 2}
        assert parts[4] == 0


def test_areas_come_nearer_to_the_fractions_than_by_chance() -> None:
    """Of 40 images with lognormal areas of six classes: the test part should hold 15 % of the area of each."""
    rng = np.random.default_rng(3)
    areas = np.rint(rng.lognormal(5, 1.5, (40, 6)) * (rng.random((40, 6)) < 0.4)).astype(np.int64)

    def error(split: Split) -> float:
        held = areas[[int(key) for key in keys(split)[2]]].sum(axis=0) / areas.sum(axis=0)
        return float(np.abs(held - 0.15).mean())

    spread = [error(split_pairs(pairs(40), "auto", seed, lambda found: areas)) for seed in range(10)]
    drawn = [error(split_pairs(pairs(40), "0.7/0.15/0.15", seed)) for seed in range(10)]
    assert np.mean(spread) < 0.6 * np.mean(drawn)


def test_seeds_give_different_splits_and_fractions_keep_the_old_draw() -> None:
    found = {str(keys(split_pairs(pairs(30), "auto", seed, lambda found: np.ones((30, 2), int)))) for seed in range(5)}
    assert len(found) == 5
    # As version 0.1.0 drew them: runs that name fractions stay reproducible.
    assert keys(split_pairs(pairs(7), "0.7/0.15/0.15", 0))[1:] == [["002"], ["004"]]


@pytest.fixture
def rare(tmp_path: Path, write_picture: Callable[..., Path]) -> Path:
    """16 images of Grass, of which three hold ten pixels of Roof."""
    data = tmp_path / "data"
    for index in range(16):
        write_picture(data / f"images/{index:02d}.png", (10 * index, 90, 90), (40, 36))
        mask = np.full((36, 40, 3), GREEN, np.uint8)
        if index in (3, 4, 5):
            mask[0, :10] = RED
        write_picture(data / f"masks/{index:02d}.png", mask)
    (data / "classes.yaml").write_text(CLASSES_YAML)
    return data


def settings_for(data: Path, out: str = "run", **more: object) -> FitSettings:
    return TrainSettings(data=data, out=data.parent / out, **more)  # type: ignore[arg-type]


def test_the_data_is_split_and_counted_before_training(rare: Path) -> None:
    """11 - 2 - 5: each part has ten pixels of Roof, and the rest of its 1,440 pixels for each image is Grass."""
    prepared = prepare_data(settings_for(rare))
    assert [len(part) for part in keys(prepared.split)] == [9, 2, 5]
    assert prepared.split.rule == "auto, classes spread by area, seed 0"
    assert prepared.parts == (
        "pixels per class  train (9 images)  validation (2 images)  test (5 images)",
        "Roof                   10 (0.08 %)            10 (0.35 %)      10 (0.14 %)",
        "Grass             12,950 (99.92 %)        2,870 (99.65 %)  7,190 (99.86 %)",
    )
    assert not [note for note in prepared.notes if "image holds" in note or "interval" in note]


def test_the_masks_alone_give_the_same_split(rare: Path) -> None:
    """So a model is scored and quantised on the images of the training, also without its run folder."""
    search, classes = find_pairs(rare), read_classes(rare / "classes.yaml")
    alone = split_pairs(search.pairs, "auto", 0, lambda found: mask_areas(found, classes))
    assert alone == prepare_data(settings_for(rare)).split


@pytest.mark.parametrize(
    ("train", "validation", "test", "notes"),
    [
        ([0, 1, 3], [4], [5, 6, 7, 8, 9], []),
        (
            [0, 1], [3], [4, 6, 7, 8, 9],
            ["no training image holds Roof; the network cannot learn it."],
        ),
        (
            [3, 4], [0], [5, 6, 7, 8, 9],
            ["no validation image holds Roof: it counts in no validation mIoU."],
        ),
        ([3, 4], [], [5, 6, 7, 8, 9], []),
        (
            [3, 4], [5], [6, 7, 8, 9],
            [
                "no test image holds Roof: it is not scored, and counts in no mean IoU of the report.",
                "4 test image(s) give scores without an interval, and no verdict on distillation; 5 or more are "
                "enough. Give more images to the test part with --split, or add images.",
            ],
        ),
    ],
)  # fmt: skip
def test_what_a_part_lacks_is_said(
    rare: Path, train: list[int], validation: list[int], test: list[int], notes: list[str]
) -> None:
    search, classes = find_pairs(rare), read_classes(rare / "classes.yaml")
    parts = [tuple(search.pairs[i] for i in part) for part in (train, validation, test)]
    assert count_parts(check_data(search, classes), Split("", *parts)).warnings() == notes


def test_a_class_that_is_not_scored_is_missed_in_training_alone(rare: Path) -> None:
    search, classes = find_pairs(rare), read_classes(rare / "classes.yaml")
    unscored = ClassMap(classes.names, classes.colors, void_colors=classes.void_colors, unscored=("Roof",))
    split = Split("", search.pairs[:3], search.pairs[6:7], search.pairs[7:12])
    assert count_parts(check_data(search, unscored), split).warnings() == [
        "no training image holds Roof; the network cannot learn it."
    ]


def begun(out: Path, data: Path, split: dict[str, list[str]], **config: object) -> RunFolder:
    """A run folder with its settings and its split, as an earlier version left it."""
    out.mkdir()
    (out / "config.yaml").write_text(yaml.safe_dump({"data": str(data), **config}))
    (out / "split.json").write_text(json.dumps({"rule": "0.7/0.15/0.15, seed 0", **split}))
    return RunFolder(out)


def of_numbers(train: range, validation: range, test: range) -> dict[str, list[str]]:
    parts = {"train": train, "validation": validation, "test": test}
    return {part: [f"{i:02d}" for i in numbers] for part, numbers in parts.items()}


OLD = of_numbers(range(11), range(11, 14), range(14, 16))


def test_a_run_that_has_begun_keeps_its_split(rare: Path) -> None:
    begun(rare.parent / "run", rare, OLD)
    split = prepare_data(settings_for(rare)).split
    assert keys(split) == list(OLD.values())
    assert split.rule == "0.7/0.15/0.15, seed 0"
    (rare / "images/15.png").unlink()
    (rare / "masks/15.png").unlink()
    with pytest.raises(SettingsError, match=r"split\.json names images that the data does not hold: 15"):
        prepare_data(settings_for(rare))


def test_sampled_training_images_stay(rare: Path) -> None:
    some = OLD | {"train": ["02", "05"]}
    begun(rare.parent / "run", rare, some)
    assert keys(prepare_data(settings_for(rare, limit_images=2)).split) == list(some.values())


def test_a_student_takes_the_split_of_its_teacher(rare: Path) -> None:
    """Of an earlier version, and although its own seed is another. Also for the cache of the teacher's logits."""
    teacher = begun(rare.parent / "teacher", rare, OLD).path
    learn = {"data": rare, "teacher": [str(teacher)], "seed": 7}
    for settings in (DistillSettings(**learn, out=rare.parent / "s"), CacheSettings(**learn)):
        prepared = prepare_data(settings)
        assert keys(prepared.split) == list(OLD.values())
        assert f"the split is that of {teacher}" in " ".join(prepared.notes)


def test_a_teacher_on_sampled_images_gives_the_rest_to_training(rare: Path) -> None:
    teacher = begun(rare.parent / "teacher", rare, OLD | {"train": ["01"]}, limit_images=1).path
    prepared = prepare_data(DistillSettings(data=rare, teacher=[str(teacher)], out=rare.parent / "s"))
    assert keys(prepared.split) == list(OLD.values())


def test_a_teacher_that_knows_test_images_is_named(rare: Path) -> None:
    """It was trained on 15 images; the student's own split holds 14 and 15 out, and 00, which is new."""
    teacher = begun(rare.parent / "teacher", rare, of_numbers(range(1, 16), range(0), range(0, 1))).path
    (rare.parent / "split.json").write_text(json.dumps(of_numbers(range(1, 12), range(12, 14), range(14, 16))))
    own = {"data": rare, "out": rare.parent / "s", "split": str(rare.parent / "split.json")}
    notes = prepare_data(DistillSettings(**own, teacher=[str(teacher)])).notes
    assert f"the teacher {teacher} was trained on 2 of the 2 test images" in " ".join(notes)
    first = teacher / "checkpoints" / "model.safetensors"
    notes = prepare_data(TrainSettings(**own, network=str(first))).notes
    assert f"the network to start from, {first}, was trained on 2 of the 2 test images" in " ".join(notes)
    begun(rare.parent / "other", rare.parent, of_numbers(range(1, 16), range(0), range(0, 1)))
    notes = prepare_data(DistillSettings(**own, teacher=[str(rare.parent / "other")])).notes
    assert "was trained on" not in " ".join(notes)  # images of the same names in another folder


def test_other_images_are_not_the_split_of_a_run(rare: Path) -> None:
    run = begun(rare.parent / "run", rare, OLD)
    assert run_split(run, find_pairs(rare).pairs) is not None
    assert run_split(run, pairs(16)) is None
    assert run_split(run, find_pairs(rare).pairs[:15]) is None
    assert run_split(RunFolder(rare.parent / "nothing"), find_pairs(rare).pairs) is None


@pytest.mark.parametrize("word", ["val", "valid", "Validation", "VAL"])
def test_a_split_file_may_call_validation_as_folders_do(rare: Path, word: str) -> None:
    pairs = find_pairs(rare).pairs
    (rare / "s.yaml").write_text(f"training: ['00', '01']\n{word}: ['02']\ntest: ['03']\nmade: by hand\n")
    split = split_pairs(pairs, str(rare / "s.yaml"))
    assert [pair.key for pair in split.train] == ["00", "01"]
    assert [pair.key for pair in split.validation] == ["02"] and [pair.key for pair in split.test] == ["03"]


@pytest.mark.parametrize("wrong", ["dev: ['02']", "holdout: {a: 1}", "validation: '02'", "val: 3"])
def test_other_parts_of_a_split_file_are_refused(rare: Path, wrong: str) -> None:
    (rare / "s.yaml").write_text(f"train: ['00', '01']\ntest: ['03']\n{wrong}\n")
    with pytest.raises(SettingsError, match=f"{wrong.partition(':')[0]} is no list of a part"):
        split_pairs(find_pairs(rare).pairs, str(rare / "s.yaml"))


def test_images_in_no_part_are_counted(rare: Path) -> None:
    (rare / "s.yaml").write_text("train: ['00', '03']\nval: ['04']\ntest: ['05', '01']\n")
    found = check_folder(CheckSettings(data=rare, split=str(rare / "s.yaml")))
    assert any("11 of 16 images are in no part of the split, and not used: 02, 06" in note for note in found.notes)

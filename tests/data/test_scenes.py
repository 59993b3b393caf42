from pathlib import Path

import numpy as np

from skystill.data import check_data, find_pairs, resolve_classes
from skystill.data.scenes import SCENE_CLASSES, paint_scene


def test_a_scene_is_a_function_of_its_seed() -> None:
    image, labels = paint_scene(96, 5)
    again, labels_again = paint_scene(96, 5)
    assert np.array_equal(image, again)
    assert np.array_equal(labels, labels_again)
    assert not np.array_equal(image, paint_scene(96, 6)[0])
    assert (image.shape, image.dtype, labels.shape, labels.dtype) == ((96, 96, 3), np.uint8, (96, 96), np.uint8)


def test_every_class_is_somewhere_and_looks_its_own() -> None:
    pairs = [paint_scene(256, seed) for seed in range(6)]
    colors = np.concatenate([image.reshape(-1, 3) for image, _ in pairs]).astype(float)
    labels = np.concatenate([labels.ravel() for _, labels in pairs])
    assert set(np.unique(labels)) == set(range(len(SCENE_CLASSES)))
    means = [colors[labels == label].mean(axis=0) for label in range(len(SCENE_CLASSES))]
    water, land, vegetation = means[4], means[1], means[3]
    assert water[2] > water[0]  # blue
    assert vegetation[1] > vegetation[0]  # green
    assert land[0] > land[2]  # sand


def test_written_scenes_are_a_good_data_set(scenes: Path) -> None:
    search = find_pairs(scenes)
    classes, notes = resolve_classes(scenes, None, search.pairs)
    check = check_data(search, classes)
    assert (len(check.records), check.problems, notes) == (12, (), ())
    assert classes.names == SCENE_CLASSES.names

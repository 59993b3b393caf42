import json
from pathlib import Path

import numpy as np
import pytest

from skystill.classes import DUBAI, ClassMap, classes_from, labels_from_colors, nearest_class, parse_color, read_classes
from skystill.errors import ClassesError


def test_dubai_has_the_colors_of_its_masks() -> None:
    assert DUBAI.names == ("Building", "Land", "Road", "Vegetation", "Water", "Unlabeled")
    assert DUBAI.to_dict()["classes"][2] == {"name": "Road", "color": "#6EC1E4"}
    assert DUBAI.scored.tolist() == [True] * 5 + [False]


def test_colors_go_to_labels_and_back() -> None:
    labels = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)
    back, unknown = labels_from_colors(DUBAI.paint(labels), DUBAI)
    assert back.tolist() == labels.tolist()
    assert back.dtype == np.uint8
    assert unknown == {}


def test_void_is_known_and_other_colors_are_counted() -> None:
    picture = np.array([[[0, 0, 0], [1, 2, 3], [1, 2, 3], [60, 16, 152]]], np.uint8)
    labels, unknown = labels_from_colors(picture, DUBAI)
    assert labels.tolist() == [[255, 255, 255, 0]]
    assert unknown == {(1, 2, 3): 2}


def test_nearest_class_is_by_distance_in_rgb() -> None:
    assert nearest_class((111, 190, 230), DUBAI) == ("Road", (110, 193, 228))


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_file_gives_what_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"classes{suffix}"
    path.write_text(json.dumps(DUBAI.to_dict()))  # JSON is YAML
    read = read_classes(path)
    assert (read.names, read.colors, read.void_colors, read.unscored) == (
        DUBAI.names, DUBAI.colors, DUBAI.void_colors, DUBAI.unscored,
    )  # fmt: skip


def test_titles_are_names_and_names_alone_mean_label_numbers() -> None:
    titled = classes_from({"classes": [{"title": "Water", "color": "#50E3C2"}]}, "f")
    assert (titled.names, titled.indexed) == (("Water",), False)
    bare = classes_from(["roof", "grass"], "f")
    assert (bare.names, bare.indexed, len(set(bare.colors))) == (("roof", "grass"), True, 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "holds no list of classes"),
        ([{"color": "#FF0000"}], "class 0 has no name"),
        ([{"name": "a", "color": "red"}], "is not a colour"),
        ([{"name": "a", "color": "#FF0000"}, {"name": "b", "color": "#FF0000"}], "gives the colour"),
        ([{"name": "a", "color": "#FF0000"}, {"name": "a", "color": "#FF0001"}], "gives the name a twice"),
        ([{"name": "a", "color": "#FF0000"}, {"name": "b"}], "class b has no color"),
    ],
)
def test_a_bad_file_is_refused_in_words(content: object, says: str) -> None:
    with pytest.raises(ClassesError, match=says):
        classes_from(content, "file.yaml")


def test_a_missing_file_names_the_built_in_ones(tmp_path: Path) -> None:
    with pytest.raises(ClassesError, match=r"none\.yaml is neither .* \(dubai\)"):
        read_classes(tmp_path / "none.yaml")


def test_a_color_is_hex_or_three_numbers() -> None:
    assert parse_color("#3C1098", "f") == parse_color([60, 16, 152], "f") == (60, 16, 152)
    with pytest.raises(ClassesError, match=r"f: \[60, 16, 300\] is not a colour"):
        parse_color([60, 16, 300], "f")


def test_a_class_map_needs_a_class() -> None:
    with pytest.raises(ClassesError, match="0 classes"):
        ClassMap((), ())

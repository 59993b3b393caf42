import json
from pathlib import Path

import numpy as np
import pytest

from skystill.classes import DUBAI, ClassMap, classes_from, match_names, parse_color, read_classes
from skystill.data.masks import labels_from_colors, nearest_class
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


def test_values_and_void_numbers_go_through_a_file_and_back() -> None:
    content = {"classes": [{"name": "a", "value": 1, "scored": False}, {"name": "b", "value": 900}], "void": [0, 7, -1]}
    read = classes_from(content, "f")
    assert (read.values, read.void_values, read.indexed, read.unscored) == ((1, 900), (0, 7, -1), True, ("a",))
    assert read.label_of_value == {0: 255, 7: 255, -1: 255, 255: 255, 1: 0, 900: 1}
    for void in ((0,), (0, 7), (7, 8, 9)):
        other = ClassMap(("a", "b"), ((1, 1, 1), (2, 2, 2)), "f", ((9, 9, 9),), values=(1, 2), void_values=void)
        assert classes_from(json.loads(json.dumps(other.to_dict())), "f") == other


def test_model_files_of_earlier_versions_keep_their_classes() -> None:
    old = {
        "classes": [{"name": "a", "color": "#D55E00"}, {"name": "b", "color": "#F0E442"}],
        "void": [],
        "indexed": True,
    }
    read = classes_from(old, "model.onnx")
    assert (read.names, read.indexed, read.values, read.to_dict()) == (("a", "b"), True, (), old)


@pytest.mark.parametrize("spelling", ["value", "index", "id"])
def test_public_spellings_and_an_ignored_class(spelling: str) -> None:
    content = {
        "encoding": "index (uint8 PNG)",
        "ignore_index": 0,
        "classes": [
            {spelling: 0, "name": "undefined", "colour": [0, 0, 0]},
            {spelling: 1, "name": "roof", "colour": [128, 0, 0]},
            {spelling: 2, "title": "grass", "color": "#008000", "shape": "polygon"},
        ],
    }
    read = classes_from(content, "f")
    assert (read.names, read.values, read.void_values, read.indexed) == (("roof", "grass"), (1, 2), (0,), True)
    assert read.void_colors == ((0, 0, 0),)
    plain = classes_from({"classes": ["undefined", "roof", "grass"], "ignore_index": 0}, "f")
    assert (plain.names, plain.values, plain.void_values) == (("roof", "grass"), (1, 2), (0,))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"classes": ["a", "b"], "ignore": 0}, "f: ignore is not understood"),
        ([{"name": "a", "colr": "#FF0000"}], "f: class a: colr is not understood"),
        (
            [{"name": "a", "trainId": 3}],
            "class a: trainId is not understood. Take it out, or use a key of these: name,",
        ),
        ({"classes": ["a", "b"], "void": [0]}, "lists the label 0 under void.*name: a, value: 1"),
        ([{"name": "a", "value": 1}, {"name": "b", "value": 1}], "gives the value 1 twice"),
        ([{"name": "a", "value": 1}, {"name": "b"}], "class b has no value, others have"),
        ([{"name": "a", "value": 1, "id": 2}, {"name": "b", "value": 3}], "which differ. Keep one, as value"),
        ([{"name": "a", "value": "1"}], "'1' is not a number of an index mask"),
        ([{"name": "a", "value": True}], "True is not a number"),
        ([{"name": "a", "value": 1.0}], "1.0 is not a number"),
        ([{"name": "a", "scored": "no"}], "scored is 'no'; write true or false"),
        ({"classes": ["a", "b"], "void": [9, 9, 9]}, 'one colour or three numbers. Write a colour as "#090909"'),
        ({"classes": ["a"], "ignore_index": 0}, "every class is void"),
        ({"classes": ["a", "b"], "ignore_index": "none"}, "ignore_index: 'none' is not a number"),
        ({"classes": ["a", "b"], "encoding": "polygons"}, "encoding 'polygons' is not understood"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(content: object, says: str) -> None:
    with pytest.raises(ClassesError, match=f"(?s){says}"):
        classes_from(content, "f")


@pytest.mark.parametrize(
    ("names", "known", "places"),
    [
        ("a b c", "a b c", [0, 1, 2]),
        ("A b", "a B", [0, 1]),
        ("c a x", "a b c", [2, 0, None]),
        ("Road road", "road Road", [1, 0]),
        ("Road x", "road ROAD", [None, None]),  # which of the two is meant?
        ("Road road", "ROAD", [None, None]),
        ("road Road", "road", [0, None]),
        ("", "a", []),
    ],
)
def test_classes_are_found_by_name(names: str, known: str, places: list[int | None]) -> None:
    assert match_names(names.split(), known.split()) == places


def test_255_classes_without_colours_have_colours_that_differ() -> None:
    classes = classes_from([f"c{number}" for number in range(255)], "f")
    assert len(classes) == len(set(classes.colors)) == 255
    assert classes.colors[:7] == classes_from([f"c{number}" for number in range(7)], "f").colors


@pytest.mark.parametrize("value", ["false", "no", 1, None, []])
def test_indexed_is_true_or_false(value: object) -> None:
    listed = [{"name": "a", "color": "#FF0000"}, {"name": "b", "color": "#00FF00"}]
    with pytest.raises(ClassesError, match="write true or false, without quotes"):
        classes_from({"classes": listed, "indexed": value}, "f")
    assert not classes_from({"classes": listed, "indexed": False}, "f").indexed

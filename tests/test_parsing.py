"""Broken and hostile text files: one message that names the file, and exit code 2, for every kind of file."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import typer

from skystill.classes import DUBAI, read_classes
from skystill.cli.options import use_config
from skystill.data.split import split_pairs
from skystill.errors import SettingsError, UserError
from skystill.model.file import open_session, read_info
from skystill.parsing import parse_json, read_csv, read_json, read_yaml
from skystill.predict import Predictor
from skystill.raster.layer import Layer
from skystill.raster.output import RasterOutput
from skystill.report import records
from skystill.run_folder import RunFolder
from tests.channel_model import INFO, write_model

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep mappings": b'{"a":' * 100_000,
    "deep blocks": "".join(f"{' ' * i}a:\n" for i in range(2_000)).encode(),
    "NaN": b'{"seed": NaN, "version": NaN, "train": NaN}',
    "infinite": b'{"seed": .inf, "version": .inf}',
    "huge integer": b'{"seed": ' + b"9" * 5_000 + b"}",
    "large integer": b'{"seed": 99999999999999999999999}',
    "twice": b'{"classes": [], "classes": []}',
    "twice in YAML": b"classes: []\nclasses: []\n",
    "not UTF-8": b'{"seed": "\xff\xfe\xfa"}',
    "UTF-16": '{"seed": 1}'.encode("utf-16"),
    "null bytes": b"\x00" * 200,
    "null in text": b'{"data": "a\\u0000b", "classes": "a\\u0000b"}',
    "lone surrogate": b'{"data": "\\ud800", "classes": "\\ud800"}',
    "list": b"[1, 2, 3]",
    "number": b"3",
    "text": b'"text"',
    "aliases": LAUGHS.encode(),
    "alias of itself": b"a: &a [*a]",
    "tag": b"!!python/object/apply:os.system ['touch /tmp/skystill-was-here']",
    "bad date": b"data: 2024-99-99",
    "bad float": b"seed: !!float ''",
    "key that is a list": b"? [a]\n: b",
    "binary": bytes(range(256)) * 4,
    "long text": b'{"' + b"x" * 1_000_000 + b'": [',
    "half": b'{"seed": 1, "da',
}


def read_config_option(folder: Path) -> object:
    from skystill.cli import app

    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    return use_config(typer.Context(command, info_name="train"), folder / "given.yaml")


def read_journal(folder: Path) -> object:
    output = RasterOutput([Layer("classes", folder / "out.tif", ("class",))], 1, 1, None, None, DUBAI)
    return output.begun_with()


def read_teacher_config(folder: Path) -> object:
    from skystill.train.teachers.loaders.loader import Origin
    from skystill.train.teachers.loaders.transformers import transformers_class_names

    return transformers_class_names(Origin(f"hf:{folder}", "hf", str(folder), {}))


def read_measured(folder: Path) -> object:
    from skystill.train.compress.budget import read_measured

    return read_measured(folder / "costs.json")


READERS: dict[str, Callable[[Path], object]] = {
    "classes.yaml": lambda folder: read_classes(folder / "classes.yaml"),
    "config.yaml": lambda folder: RunFolder(folder).read_config(),
    "my-split.json": lambda folder: split_pairs([], str(folder / "my-split.json")),
    "results.json": lambda folder: records.read_results(RunFolder(folder)),
    "split.json": lambda folder: records.read_split(RunFolder(folder)),
    "training.json": lambda folder: records.read_training(RunFolder(folder)),
    "teacher.json": lambda folder: records.read_teacher_scores(RunFolder(folder)),
    "study.json": lambda folder: records.read_study(RunFolder(folder)),
    "given.yaml": read_config_option,
    ".unfinished-out.tif/settings.json": read_journal,
    "config.json": read_teacher_config,
    "costs.json": read_measured,
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("name", READERS)
def test_every_file_is_named_in_one_message(name: str, broken: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(BROKEN[broken])
    with pytest.raises(UserError) as raised:
        READERS[name](tmp_path)
    said = str(raised.value)
    assert raised.value.exit_code == 2
    assert path.name in said or path.parent.name in said, said
    assert len(said) < 1_000 and said.count("\n") <= 1, said
    assert not Path("/tmp/skystill-was-here").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("flow.yaml", "[" + "[]," * 150_001 + "a]", "holds more than 300,000 values"),
        ("block.yaml", "-\n" * 300_001, "holds more than 300,000 values"),
        ("number.yaml", "seed: 1" + ":59" * 40_000, "has 120,001 characters, too many for a value"),
        ("wide.json", "[" + "{}," * 3_000_000 + "1]", "holds more than 3,000,000 lists and mappings"),
        ("blank.csv", "\n" * 1_000_001, "more than 1,000,000 rows"),
    ],
)
def test_more_than_memory_and_time_allow(name: str, content: str, said: str, tmp_path: Path) -> None:
    """Each takes over a gigabyte, or over a minute, if it is as large as its file may be."""
    (tmp_path / name).write_text(content)
    read = {".yaml": read_yaml, ".json": read_json, ".csv": read_csv}[Path(name).suffix]
    with pytest.raises(SettingsError, match=said):
        read(tmp_path / name, SettingsError)


JSON_VALUES = [text for text in BROKEN.values() if b"\x00" not in text and text.isascii()]


KEYS = ("classes", "tile_size", "overlap", "parameters", "input_spec", "scores")


@pytest.mark.parametrize(
    ("key", "broken"),
    [
        (key, name)
        for key in KEYS
        for name, text in BROKEN.items()
        if text in JSON_VALUES and not (text == b"3" and key in ("tile_size", "overlap", "parameters"))
    ],
)
def test_metadata_of_a_model_file(key: str, broken: str, tmp_path: Path) -> None:
    metadata = INFO.to_metadata() | {key: BROKEN[broken].decode()}
    path = write_model(tmp_path / "m.onnx", metadata)
    with pytest.raises(UserError) as raised:
        read_info(open_session(path), path)
    assert str(path) in str(raised.value) and len(str(raised.value)) < 1_000


@pytest.mark.parametrize("broken", [name for name in BROKEN if BROKEN[name] in JSON_VALUES])
def test_metadata_for_deepness(broken: str, tmp_path: Path) -> None:
    text = BROKEN[broken].decode()
    keys = ("class_names", "standardization_mean", "standardization_std", "resolution")
    path = write_model(tmp_path / "m.onnx", {"model_type": "Segmentor", **dict.fromkeys(keys, text)})
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    model.graph.node[0].op_type = "Identity"
    del model.graph.node[0].attribute[:]
    onnx.save(model, path)
    if broken == "list":  # three numbers, as it happens
        assert Predictor(path, classes=DUBAI).info.resolution_m is None
        return
    with pytest.raises(UserError) as raised:
        Predictor(path, classes=DUBAI)
    assert str(path) in str(raised.value) and len(str(raised.value)) < 1_000


@pytest.mark.parametrize(
    ("tile", "overlap"), [(0, 0), (-64, 8), (64, 64), (64, -2), (10**9, 128)],
)  # fmt: skip
def test_tiles_that_no_model_has(tile: int, overlap: int, tmp_path: Path) -> None:
    metadata = INFO.to_metadata() | {"tile_size": str(tile), "overlap": str(overlap)}
    path = write_model(tmp_path / "m.onnx", metadata)
    with pytest.raises(UserError, match=f"tiles of {tile} pixels that share {overlap}"):
        read_info(open_session(path), path)


def test_what_is_right_is_read(tmp_path: Path) -> None:
    refuse = SettingsError
    (tmp_path / "a").write_text('\ufeff{"a": [1, 2.5, true, null, "x"]}', encoding="utf-8")
    expected = {"a": [1, 2.5, True, None, "x"]}
    assert read_json(tmp_path / "a", refuse) == read_yaml(tmp_path / "a", refuse) == expected
    (tmp_path / "a").write_text("{a: [1, 2.5, yes, ~, x]}  # YAML that looks like JSON")
    assert read_yaml(tmp_path / "a", refuse) == expected
    (tmp_path / "a").write_text("a: &one [1, 2]\nb: *one\nc: [*one, *one]\n")
    assert read_yaml(tmp_path / "a", refuse) == {"a": [1, 2], "b": [1, 2], "c": [[1, 2], [1, 2]]}
    assert parse_json("[9223372036854775807, -9223372036854775808]") == [2**63 - 1, -(2**63)]
    (tmp_path / "a").write_text(json.dumps({"train": [f"Tile {i}/image_part_001" for i in range(100_000)]}))
    assert len(read_yaml(tmp_path / "a", refuse)["train"]) == 100_000
    depth = 90
    assert parse_json("[" * depth + "]" * depth) is not None


def test_large_files_and_what_is_no_file(tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate(2**34)  # 16 GB of nothing
    (tmp_path / "long.yaml").write_bytes(b"a: b\n" * 2_000_000)
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("big", "larger than"),
        ("long.yaml", "larger than 8 MB"),
        ("folder", "it is a folder or a device"),
        ("gone", "No such file"),
    ):
        with pytest.raises(SettingsError, match=words):
            read_yaml(tmp_path / name, SettingsError)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="it is a folder or a device"):
        read_yaml(tmp_path / "pipe", SettingsError)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("data: [1]", r"data is \[1\]"),
        ("teacher: []", "teacher is"),
        ("teacher: [null]", "teacher is"),
        ("seed: many", "seed is 'many'"),
        ("student: {a: 1}", "student is"),
        ("max_memory: 9e999", "max_memory"),
        ("1: a", "instead of settings with names"),
    ],
)
def test_settings_of_a_run_have_their_form(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=rf"config\.yaml is damaged: (?s:.*){words}"):
        RunFolder(tmp_path).read_config()


def test_a_setting_that_a_run_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1")
    config = RunFolder(tmp_path).read_config()
    assert config["seed"] == 1 and config.get("data") is None and "data" not in config
    with pytest.raises(UserError, match=r"config\.yaml is damaged: it has no data"):
        config["data"]


def test_messages_quote_a_part_only(tmp_path: Path) -> None:
    long = "x" * 100_000
    for content in (
        {"classes": [{"name": "a", "color": long}]},
        {"classes": [{"name": "a", "scored": long}]},
        {"classes": [{"name": long, "strange": 1}]},
        {"classes": [{"name": "a", "value": long}]},
        {"classes": [{"name": long}, {"name": long}]},
        {"classes": ["a"], long: 1},
        {"classes": ["a"], "encoding": long},
        {"classes": [[long]]},
    ):
        (tmp_path / "classes.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"classes\.json") as raised:
            read_classes(tmp_path / "classes.json")
        assert len(str(raised.value)) < 1_200


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("010", None), ("-07", None), ("00", None), ("1_000", None), ("1_2", None), ("1:30", None), ("1:30.5", None),
        ('"010"', "010"), ("'1_2'", "1_2"), ("08", "08"), ("0", 0), ("+3", 3), ("-12", -12), ("0x1F", 31),
        ("09:15", "09:15"), ("tile_1", "tile_1"), ("1.5", 1.5), ("!!str 010", "010"),
    ],
)  # fmt: skip
def test_numbers_that_yaml_takes_for_others_are_refused(tmp_path: Path, written: str, value: object) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"values:\n- 1\n- {written}\n")
    if value is None:
        with pytest.raises(SettingsError, match=f"{re.escape(written)} is the number .* put it in quotes"):
            read_yaml(file, SettingsError)
    else:
        assert read_yaml(file, SettingsError) == {"values": [1, value]}


def test_lists_of_a_settings_file_are_what_their_options_take(tmp_path: Path) -> None:
    """They were taken as Python writes them: "[3, 2]" is no list of bands, and no weights of classes."""
    from skystill.cli import app

    lists = "bands: [3, 2]\nclass_weights: [1, 2, 0.5]\nteacher_classes: [road, water]\nteacher: [a, b]\nclasses: null"
    (tmp_path / "given.yaml").write_text(lists + "\nteacher_weight: [2.0, 1]\nepochs: 3\nalpha: true\n")
    context = typer.Context(typer.main.get_command(app).commands["distill"])  # type: ignore[attr-defined]
    use_config(context, tmp_path / "given.yaml")
    assert context.default_map == {
        **{"bands": "3,2", "class_weights": "1,2,0.5", "teacher_classes": "road,water"},
        **{"teacher": ["a", "b"], "teacher_weight": [2.0, 1], "epochs": 3, "alpha": True},
    }

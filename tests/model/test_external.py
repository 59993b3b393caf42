"""ONNX files that name other files for their weights: only those in the same folder are opened."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import StringStringEntryProto, TensorProto, helper
from onnx.external_data_helper import convert_model_to_external_data

from skystill.classes import ClassMap
from skystill.errors import ModelFileError, SettingsError
from skystill.model.external import check_external_data, external_data, model_bytes, model_digest
from skystill.model.file import open_session
from skystill.model.trial import _state
from skystill.predict import Predictor
from skystill.train.teachers.origins import cache_key, files_digest, find_teachers

ABC = ClassMap(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
SIDE = ("images", TensorProto.FLOAT, ["N", 3, "H", "W"]), ("logits", TensorProto.FLOAT, ["N", 3, "H", "W"])


def outside(location: str) -> TensorProto:
    """A tensor of 9 float32 whose bytes are in another file."""
    tensor = TensorProto(
        name="weight", data_type=TensorProto.FLOAT, dims=[3, 3, 1, 1], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", "0"), ("length", "36")):
        tensor.external_data.append(StringStringEntryProto(key=key, value=value))
    return tensor


def graph_of(tensor: TensorProto, where: str = "initializer") -> onnx.GraphProto:
    nodes = [helper.make_node("Conv", ["images", "weight"], ["logits"])]
    if where == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["weight"], value=tensor))
    values = [helper.make_tensor_value_info(*side) for side in SIDE]
    return helper.make_graph(nodes, "g", values[:1], values[1:], [tensor] if where == "initializer" else [])


def saved(path: Path, graph: onnx.GraphProto) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_bytes(b"S" * 36)
    (tmp_path / "model/link").symlink_to(tmp_path / "secret")
    (tmp_path / "model/weights").write_bytes(np.ones(9, np.float32).tobytes())
    return tmp_path


@pytest.mark.parametrize("where", ["initializer", "constant"])
@pytest.mark.parametrize("location", ["../secret", "{here}/secret", "link", "./x/../../secret", "", "a\0b"])
def test_weights_from_elsewhere_are_refused(here: Path, location: str, where: str) -> None:
    path = saved(here / "model/a.onnx", graph_of(outside(location.format(here=here)), where))
    with pytest.raises(ModelFileError, match=r"a\.onnx takes weights from '.*', which is not in its folder"):
        open_session(path)
    with pytest.raises(ModelFileError, match="which is not in its folder"):
        find_teachers([str(path)], None, ABC)


def test_names_are_found_in_every_place_of_a_graph(tmp_path: Path) -> None:
    inner = helper.make_node(
        "If", ["c"], ["x"], then_branch=graph_of(outside("then")), else_branch=graph_of(outside("no"))
    )
    graph = helper.make_graph([inner], "g", [], [], [outside("own")])
    sparse = onnx.SparseTensorProto(values=outside("values"), indices=outside("indices"), dims=[3])
    graph.sparse_initializer.append(sparse)
    several = helper.make_node(
        "Op", [], ["y"], tensors=[outside("list")], graphs=[graph_of(outside("deep"), "constant")]
    )
    function = helper.make_function("d", "F", [], ["z"], [several], [helper.make_opsetid("", 17)])
    function.attribute_proto.append(helper.make_attribute("sparse", sparse))
    model = helper.make_model(graph, functions=[function])
    model.training_info.add().algorithm.CopyFrom(graph_of(outside("trained")))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    names = ["then", "no", "own", "values", "indices", "list", "deep", "trained"]
    assert sorted(external_data(tmp_path / "a.onnx")) == sorted([*names, "values", "indices"])


def test_two_names_of_one_tensor_and_a_value_before_its_key(tmp_path: Path) -> None:
    tensor = outside("first")
    tensor.external_data.append(StringStringEntryProto(key="location", value="second"))
    path = saved(tmp_path / "a.onnx", graph_of(tensor))
    assert sorted(external_data(path)) == ["first", "second"]
    plain = b"\x0a\x08location\x12\x05first"
    assert plain in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(plain, b"\x12\x05first\x0a\x08location"))
    assert sorted(external_data(path)) == ["first", "second"]
    path.write_bytes(b"\xfb\x06\xfc\x06" + path.read_bytes())  # an unknown group, which a parser skips
    assert onnx.load(path, load_external_data=False).graph.initializer[0].name == "weight"
    assert sorted(external_data(path)) == ["first", "second"]


def test_weights_beside_the_file_are_read(here: Path) -> None:
    path = saved(here / "model/a.onnx", graph_of(outside("weights")))
    assert external_data(path) == ["weights"]
    found = open_session(path).run(None, {"images": np.ones((1, 3, 2, 2), np.float32)})[0]
    assert (found == 3).all()
    model = onnx.load(path)
    convert_model_to_external_data(model, location="all.data", size_threshold=0)
    onnx.save(model, here / "model/b.onnx")
    assert external_data(here / "model/b.onnx") == ["all.data"]
    check_external_data(here / "model/b.onnx")


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 99, b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"PK\x03\x04", bytes(500)]
)
def test_files_of_other_kinds_name_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    assert external_data(tmp_path / "a.onnx") == []
    assert external_data(tmp_path / "b.onnx") == []


def test_a_model_is_another_one_when_only_its_weights_change(here: Path) -> None:
    """As after a second training and export: the same graph in the same bytes, and other weights beside it."""
    path, weights = saved(here / "model/a.onnx", graph_of(outside("weights"))), here / "model/weights"
    graph = path.read_bytes()
    assert model_bytes(path) == len(graph) + 36
    said = []
    for value in (1, 2):
        weights.write_bytes(np.full(9, value, np.float32).tobytes())
        both = hashlib.sha256(graph).digest() + hashlib.sha256(weights.read_bytes()).digest()
        assert model_digest(path) == hashlib.sha256(both).hexdigest()
        origin = find_teachers([str(path)], None, ABC).origins[0]
        said.append((cache_key(origin, [0, 1, 2], "whole"), files_digest(origin), Predictor(path, classes=ABC).digest))
    assert all(before != after for before, after in zip(*said, strict=True))
    weights.unlink()
    with pytest.raises(SettingsError, match=r"weights: no such file"):
        find_teachers([str(path)], None, ABC)


def test_a_model_in_one_file_has_the_digest_of_its_bytes(here: Path) -> None:
    inside = onnx.numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "weight")
    path = saved(here / "model/a.onnx", graph_of(inside))
    assert model_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model_bytes(path) == path.stat().st_size
    assert (
        files_digest(find_teachers([str(path)], None, ABC).origins[0])
        == hashlib.sha256(hashlib.sha256(path.read_bytes()).digest()).hexdigest()
    )


def test_a_link_to_a_model_takes_the_weights_beside_the_link(here: Path) -> None:
    """As ONNX Runtime does: what is compared is what is computed."""
    (here / "link").mkdir()
    (here / "link/a.onnx").symlink_to(saved(here / "model/a.onnx", graph_of(outside("weights"))))
    (here / "link/weights").write_bytes(np.full(9, 2, np.float32).tobytes())
    found = open_session(here / "link/a.onnx").run(None, {"images": np.ones((1, 3, 2, 2), np.float32)})[0]
    assert (found == 6).all()
    assert model_digest(here / "link/a.onnx") != model_digest(here / "model/a.onnx")
    (here / "link/weights").unlink()
    (here / "link/weights").symlink_to(here / "model/weights")  # both link to one folder, as caches of hubs do
    assert model_digest(here / "link/a.onnx") == model_digest(here / "model/a.onnx")
    (here / "link/weights").unlink()
    (here / "link/weights").symlink_to(here / "secret")
    with pytest.raises(ModelFileError, match="which is not in its folder"):
        model_digest(here / "link/a.onnx")


def test_a_model_whose_weights_changed_is_tried_again(here: Path) -> None:
    path = saved(here / "model/a.onnx", graph_of(outside("weights")))
    before = _state(path)
    (here / "model/weights").write_bytes(np.full(9, 2, np.float32).tobytes() + b"more")
    assert _state(path) != before

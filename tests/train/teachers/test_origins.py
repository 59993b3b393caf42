"""One test an origin of teachers, each with a real file made here; those that need more libraries: tests/foreign."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
import yaml
from onnx import TensorProto, helper
from torch import Tensor, nn

from skystill.classes import DUBAI, ClassMap
from skystill.data.scenes import paint_scene
from skystill.errors import (
    CheckpointError,
    ClassCountMismatch,
    ClassesError,
    RunFolderError,
    SettingsError,
    TeacherNotFinite,
)
from skystill.predict import Predictor
from skystill.raster.input_spec import Band, InputSpec
from skystill.run_folder import RunFolder
from skystill.train.libraries.state import read_state
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, write_network
from skystill.train.teachers.loaders.wrappers import FixedSize
from skystill.train.teachers.origins import cache_key, find_teachers
from skystill.train.teachers.teacher import Teacher
from tests.foreign_model import THREE, TWO, write_foreign

ABC = ClassMap(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
IMAGES = torch.from_numpy(np.stack([paint_scene(72, seed)[0] for seed in (1, 2)])).permute(0, 3, 1, 2)


def load(text: str, classes: ClassMap = ABC, own: str | None = None, trusted: bool = False) -> Teacher:
    (teacher,) = find_teachers([text], own, classes, trusted=trusted).load()
    return teacher


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.config.write_text(yaml.safe_dump({"network": "kite-small"}))
    torch.manual_seed(0)
    write_network(folder.weights, build_network("kite-small", 6), NetworkRecord("kite-small", DUBAI))
    return folder.path


def test_a_run(run: Path) -> None:
    teacher = load(str(run), DUBAI)
    assert teacher(IMAGES).shape == (2, 6, 72, 72)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    with pytest.raises(RunFolderError, match="is not a run folder"):
        load(str(run / "nowhere"))


def test_classes_are_mapped_by_name_and_what_is_missing_is_said(run: Path) -> None:
    everything = load(str(run), DUBAI)(IMAGES)
    names = ("water", "Bridge", "Building")
    data = ClassMap(names, ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
    found = find_teachers([str(run)], None, data)
    assert found.taught_labels == (0, 2)
    assert found.notes == ("no teacher for Bridge: learnt from labels alone.",)
    picked = [DUBAI.names.index("Water"), DUBAI.names.index("Building")]
    assert torch.equal(found.load()[0](IMAGES), everything[:, picked])
    with pytest.raises(ClassesError, match=r"0 of the data's classes \(a, b, c\) are known to the teacher, which has"):
        find_teachers([str(run)], None, ABC)


def onnx_file(path: Path, shape: list[Any], softmax: bool = False, dtype: int = TensorProto.FLOAT) -> Path:
    """A 1x1 convolution (3 to 3 channels), which opset and IR any runtime of the last years reads."""
    weight = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1) / 9
    nodes = [helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Conv", ["floats", "weight"], ["found" if softmax else "logits"]))
    if softmax:
        nodes.append(helper.make_node("Softmax", ["found"], ["logits"], axis=1))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", dtype, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], 3, *shape[2:]])],
        [helper.make_tensor("weight", TensorProto.FLOAT, weight.shape, weight.ravel())],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def convolved(images: Tensor) -> Tensor:
    return F.conv2d(images.float(), torch.arange(9.0).reshape(3, 3, 1, 1) / 9)


@pytest.mark.parametrize("softmax", [False, True])
def test_an_onnx_file(tmp_path: Path, softmax: bool) -> None:
    path = onnx_file(tmp_path / "t.onnx", ["N", 3, "H", "W"], softmax)
    found, expected = load(f"{path}")(IMAGES), convolved(IMAGES / 255)  # 0..1 unless told
    assert torch.allclose(found.softmax(dim=1), expected.softmax(dim=1), atol=1e-5)
    bytes_wanted = load(f"{path}?input=0..255")(IMAGES / 64)
    assert torch.allclose(bytes_wanted.softmax(dim=1), convolved(IMAGES / 64).softmax(dim=1), atol=1e-5)


def test_an_onnx_file_of_bytes_and_one_of_fixed_size(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "t.onnx", [1, 3, 32, 48], dtype=TensorProto.UINT8)
    for images in (IMAGES, IMAGES[:, :, :20, :20]):  # larger and smaller than its size
        assert torch.allclose(load(str(path))(images), convolved(images), atol=1e-4)


def test_tiles_of_a_fixed_size_keep_their_valid_centres() -> None:
    network = nn.Conv2d(3, 2, 9, padding=4)
    whole = network(IMAGES.float())
    tiled = FixedSize(network, 40, 40)(IMAGES.float())
    assert torch.allclose(tiled, whole, atol=1e-3)


def named(path: Path, text: str) -> Path:
    """The file of `onnx_file` with names of its classes in its metadata, as other programs write them."""
    model = onnx.load(onnx_file(path, ["N", 3, "H", "W"]))
    helper.set_model_props(model, {"class_names": text})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('{"0": "a", "1": "b", "2": "c"}', [0, 1, 2]),
        ('{"2": "c", "0": "a", "1": "b"}', [0, 1, 2]),  # the numbers say the channel, and not the order in the file
        ('{"0": "c", "1": "a", "2": "b"}', [1, 2, 0]),
        ('{"3": "c", "10": "b", "1": "a"}', [0, 2, 1]),  # as numbers, not as text
    ],
)
def test_names_of_classes_in_a_file_go_by_their_numbers(text: str, places: list[int], tmp_path: Path) -> None:
    path = named(tmp_path / "t.onnx", text)
    assert torch.allclose(load(str(path))(IMAGES), convolved(IMAGES / 255)[:, places], atol=1e-5)


def test_names_that_the_file_decides_are_told_and_no_name_is_there_twice(tmp_path: Path) -> None:
    path = named(tmp_path / "t.onnx", '{"0": "c", "1": "a", "2": "b"}')
    (note,) = find_teachers([str(path)], "a,b,c", ABC).notes
    assert note.startswith("--teacher-classes is not used") and note.endswith("in the file: c, a, b.")
    assert find_teachers([str(path)], "c,a,b", ABC).notes == ()
    with pytest.raises(ClassesError, match="its classes name a twice"):
        find_teachers([str(onnx_file(tmp_path / "u.onnx", ["N", 3, "H", "W"]))], "a,b,A", ABC)


@pytest.mark.parametrize(
    ("data", "own", "places", "taught"),
    [
        ("a,A,b", "A,b,a", [2, 0, 1], None),
        ("a,A,b", "a,x,b", [0, 2], (0, 2)),  # A is not a
        ("a,A,b,c", "c,A,b", [1, 2, 0], (1, 2, 3)),
        ("Á,b,c", "C,B,á", [2, 1, 0], None),
    ],
)
def test_classes_that_differ_in_case_alone_are_not_taught_by_one_channel(
    data: str, own: str, places: list[int], taught: tuple[int, ...] | None, tmp_path: Path
) -> None:
    names = tuple(data.split(","))
    classes = ClassMap(names, tuple((label, 0, 0) for label in range(len(names))))
    path = onnx_file(tmp_path / "t.onnx", ["N", 3, "H", "W"])
    teachers = find_teachers([str(path)], own, classes)
    assert teachers.taught_labels == taught
    assert torch.equal(teachers.load_one(0)(IMAGES), load(str(path), own="a,b,c")(IMAGES)[:, places])


def test_another_number_of_classes_is_said(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "t.onnx", ["N", 3, "H", "W"])
    with pytest.raises(ClassCountMismatch, match=r"gives 3 classes, not 6\. Name all its classes"):
        load(str(path), DUBAI)
    with pytest.raises(ClassCountMismatch, match="gives 3 classes, not 2"):
        load(str(path), own="a,b")
    assert torch.equal(load(str(path), own="c,x,b")(IMAGES), load(str(path))(IMAGES)[:, [2, 0]])
    assert "are taken to be the data's" in find_teachers([str(path)], None, ABC).notes[0]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


@pytest.mark.parametrize("free", [True, False])
def test_a_program_of_torch_export(tmp_path: Path, free: bool) -> None:
    network = Small().eval()
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if free else None
    program = torch.export.export(network, (torch.zeros(1, 3, 64, 64),), dynamic_shapes=(sizes,) if free else None)
    torch.export.save(program, tmp_path / "t.pt2")
    teacher = load(str(tmp_path / "t.pt2"), trusted=True)
    images = IMAGES[:, :, :64, :64]
    expected = F.interpolate(network(images / 255), size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(teacher(images), expected, atol=1e-4)
    assert teacher(IMAGES).shape == (2, 3, 72, 72)


def test_a_program_with_a_pickled_object_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.export.save(torch.export.export(Small().eval(), (torch.zeros(1, 3, 64, 64),)), tmp_path / "t.pt2")
    evil = io.BytesIO()
    torch.save({"x": Evil()}, evil)
    for name, content in (("weights/weight_9", evil.getvalue()), ("constants/opaque_obj_0", pickle.dumps(Evil()))):
        changed = tmp_path / "evil.pt2"
        changed.write_bytes((tmp_path / "t.pt2").read_bytes())
        with zipfile.ZipFile(changed, "a") as archive:
            archive.writestr(f"t/data/{name}", content)
        with pytest.raises(CheckpointError, match="could run code"):
            load(str(changed), trusted=True)
    assert not (tmp_path / "ran").exists()


def test_weights_that_need_unpickling_are_refused_and_wrappers_seen_through(tmp_path: Path) -> None:
    state = Small().state_dict()
    torch.save(
        {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3}, tmp_path / "l.ckpt"
    )
    assert read_state(tmp_path / "l.ckpt", "t").keys() == state.keys()
    torch.save(Small(), tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match=r"holds more than weights, and loading it could run code"):
        read_state(tmp_path / "whole.pth", "t")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(tmp_path / "cut.safetensors", "t")


@pytest.mark.parametrize(
    ("file", "size", "multiple", "answer"),
    [
        ({}, (61, 59), 1, "logits"),
        ({"multiple": 2}, (61, 59), 2, "logits"),
        ({"multiple": 32}, (61, 59), 32, "logits"),
        (
            {"reduction": 4},
            (61, 59),
            4,
            "logits",
        ),  # one answer for each square, which cover an image of such sides only
        ({"multiple": 8, "reduction": 4, "end": "Softmax"}, (70, 33), 8, "probabilities"),
        ({"end": "Softmax"}, (40, 40), 1, "probabilities"),
        ({"end": "Sigmoid"}, (61, 59), 1, "independent"),
        ({"end": "Sigmoid", "multiple": 4}, (9, 130), 4, "independent"),
        ({"shape": (1, 3, 64, 64), "end": "Sigmoid"}, (100, 70), 1, "independent"),
        ({"shape": ("n", "h", "w", 3), "multiple": 4}, (61, 59), 4, "logits"),  # as files made of Keras models
        ({"shape": (1, 64, 96, 3), "end": "Softmax"}, (70, 59), 1, "probabilities"),
        ({"channels": 1}, (61, 59), 1, "logits"),
        ({"channels": 1, "end": "Sigmoid", "multiple": 4}, (61, 59), 4, "independent"),
    ],
)
def test_a_file_teaches_what_it_predicts(
    file: dict[str, Any], size: tuple[int, int], multiple: int, answer: str, tmp_path: Path
) -> None:
    classes = TWO if "channels" in file else THREE
    path = write_foreign(tmp_path / "t.onnx", scale=255, **file)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    teacher = load(str(path), classes)
    assert (teacher.multiple, teacher.answer) == (multiple, answer)
    found = teacher(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    expected = Predictor(path, classes=classes, input_scale="0..1").probabilities(image)
    assert found.shape == expected.shape
    whole = [side // (squares := file.get("reduction", 1)) * squares for side in size]
    difference = np.abs(found.softmax(dim=0).numpy() - expected)
    assert difference[:, : whole[0] - squares, : whole[1] - squares].max() < 2e-3


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"shape": ("n", "h", "w", 4)}, "it cannot be run"),
        ({"shape": ("n", "h", "w", 3), "answers_last": False}, r"gives \(1, 97, 3, 131\)"),
        ({"answers_last": True}, r"gives \(1, 131, 97, 3\) for an image of 131 x 97 pixels"),
        ({"reduction": 64}, r"for each square of up to 32 x 32 pixels"),
        ({"multiple": 3}, "it cannot be run"),
    ],
)
def test_a_file_that_cannot_teach_is_refused(file: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=says):
        load(str(write_foreign(tmp_path / "t.onnx", **file)), THREE)


def test_kinds_that_are_not_known_and_files_that_are_missing(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"x")
    with pytest.raises(SettingsError, match=r"of a kind that is not known\. Known: a SkyStill run folder, \.onnx"):
        load(str(tmp_path / "model.tflite"))
    with pytest.raises(SettingsError, match=r"weights does not hold its network: write both as an ONNX file"):
        load(str(tmp_path / "unet.pth"))
    for text in ("none.onnx", "none.keras", "smp:Unet/resnet34?classes=6&weights=none.pth"):
        with pytest.raises(SettingsError, match="no such file"):
            load(text)
    with pytest.raises(SettingsError, match="say how many classes it has and where its weights are"):
        load("smp:Unet/resnet34")
    with pytest.raises(SettingsError, match=r"holds no config\.json"):
        load(f"hf:{tmp_path}")
    with pytest.raises(SettingsError, match=r"input is 0\.\.2; it is one of 0\.\.255"):
        load("x.onnx?input=0..2")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="ONNX Runtime cannot open it"):
        load(str(tmp_path / "broken.onnx"))


def test_the_key_tells_teachers_apart(run: Path, tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "t.onnx", ["N", 3, "H", "W"])

    def key(text: str, own: str | None = None) -> str:
        found = find_teachers([text], own, ABC)
        return cache_key(found.origins[0], found.channels[0], "how")

    before = key(str(path))
    assert before == key(str(path))
    assert len({before, key(f"{path}?input=0..255"), key(str(path), "c,b,a")}) == 3
    onnx_file(path, ["N", 3, "H", "W"], softmax=True)
    assert key(str(path)) != before


def test_a_teacher_whose_logits_are_not_finite_is_named(tmp_path: Path) -> None:
    """Its logits are logarithms: minus infinity where red or green is 0, which noise holds."""
    path = write_foreign(tmp_path / "masked.onnx", extra=(helper.make_node("Log", ["values"], ["ended"]),))
    with pytest.raises(
        TeacherNotFinite, match=r"masked.onnx\?input=0..255 gives .* on a first .* class 0, 1 \("
    ) as raised:
        load(f"{path}?input=0..255")
    assert raised.value.exit_code == 2


def test_a_band_that_the_student_is_not_fed_is_tried_on_the_range_of_its_other_bands(tmp_path: Path) -> None:
    """The powers of e of four bands of reflectance: they overflow from 89 on, as noise of 0 to 255 would be."""
    fed, given = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4, "h", "w"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "g", [fed], [given])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "e.onnx")
    names = ("nir", "red", "green", "blue")
    offered = InputSpec(tuple(Band(name, number) for number, name in enumerate(names, 1)), "float32")
    student = InputSpec((Band("red", 2, 0.1, 0.02, 0.0, 0.5), Band("blue", 4, 0.3, 0.04, 0.1, 1.2)), "float32")
    classes = ClassMap(names, tuple((i, i, i) for i in range(4)))
    text = f"{tmp_path / 'e.onnx'}?bands=red,green,blue,nir&input=values"
    (teacher,) = find_teachers([text], None, classes, student, offered).load()
    assert teacher.input_spec is not None
    red, green, blue, nir = teacher.input_spec.bands
    assert (red, blue) == student.bands
    for band, name, number in ((green, "green", 3), (nir, "nir", 1)):
        assert (band.name, band.number, band.low, band.high) == (name, number, 0.0, 1.2)
        assert (band.mean, band.std) == pytest.approx((0.2, 0.03))
    image = torch.rand(1, 4, 8, 8)
    assert torch.allclose(teacher(image), image.exp())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("input=values&sdt=2", "there is no option sdt for this kind; there are bands, divide, input, mean, std"),
        ("band=red,green,blue", "there is no option band "),
        ("classes=3&weights=x", "there is no option classes, weights "),
        ("input=values&divide=10000&divide=1", "an option stands there twice"),
        ("input=values&mean=", "mean=: 3 numbers, or one for all bands, were expected"),
        ("input=values&divide=", "divide=: one number was expected"),
        ("bands=&input=values", "bands="),
        ("input=", "input is ; it is one of"),
        ("input", "write options as"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(tmp_path: Path, options: str, said: str) -> None:
    path = onnx_file(tmp_path / "t.onnx", ["N", 3, "H", "W"])
    with pytest.raises(SettingsError) as raised:
        load(f"{path}?{options}")
    assert said in str(raised.value)

"""A model file from elsewhere is tried in a process of its own, with a limit on memory and time, before it is used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from skystill.digests import ONNX_TRAILER
from skystill.errors import ModelFileError, SettingsError
from skystill.model import trial
from skystill.model.bundled import bundled_model
from skystill.model.engine import open_engine
from skystill.model.measure import peak_rss_bytes
from skystill.model.trial import GIB, SECONDS, try_once
from skystill.train.teachers.loaders.onnx import OnnxNetwork
from tests.foreign_model import FREE, THREE, write_foreign
from tests.measured import run

Write = Callable[[Path], Path]


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECONDS, "100")
    monkeypatch.delenv(GIB, raising=False)


def write(path: Path, nodes: list[Any], constants: dict[str, Any]) -> Path:
    """A file that takes "picture" and gives "logits"."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_constant(path: Path, values: int = 2**33) -> Path:
    """Adds the sum of a constant of 32 GiB."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["constant"], value=one),
        helper.make_node("ReduceMax", ["constant"], ["largest"], keepdims=0),
        helper.make_node("Add", ["picture", "largest"], ["logits"]),
    ]
    return write(path, nodes, {"size": np.array([values], np.int64)})


def write_tiled(path: Path) -> Path:
    """Repeats the image a million times."""
    nodes = [
        helper.make_node("Tile", ["picture", "times"], ["many"]),
        helper.make_node("ReduceMean", ["many"], ["logits"], axes=[0], keepdims=1),
    ]
    return write(path, nodes, {"times": np.array([1_000_000, 1, 1, 1], np.int64)})


def write_loop(path: Path) -> Path:
    """Adds one, 2^62 times."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["before", "one"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.array(1, np.float32), "one")],
    )
    nodes = [helper.make_node("Loop", ["times", "yes", "picture"], ["logits"], body=body)]
    return write(path, nodes, {"times": np.int64(2**62), "yes": np.bool_(True)})


def write_counting(path: Path) -> Path:
    """Adds the sum of 100,000 zeros for each value of the image that is not 0: nothing for a black image."""
    nodes = [
        helper.make_node("Sign", ["picture"], ["signs"]),
        helper.make_node("ReduceSum", ["signs"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["count"], to=TensorProto.INT64),
        helper.make_node("Mul", ["count", "times"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["constant"]),
        helper.make_node("ReduceSum", ["constant"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["picture", "nothing"], ["logits"]),
    ]
    return write(path, nodes, {"times": np.array([100_000], np.int64)})


def write_growing(path: Path, times: int = 250) -> Path:
    """Adds the mean of all bands, which it repeats: 4 * `times` bytes for each value of the image."""
    nodes = [
        helper.make_node("Tile", ["picture", "times"], ["many"]),
        helper.make_node("ReduceMean", ["many"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Add", ["picture", "mean"], ["logits"]),
    ]
    return write(path, nodes, {"times": np.array([1, times, 1, 1], np.int64)})


HOSTILE: dict[str, tuple[Write, str]] = {
    "constant": (write_constant, "needs more than 1.25 GiB"),
    "tiled": (write_tiled, "needs more than 1.25 GiB"),
    "counting": (write_counting, "needs more than 1.25 GiB"),
    "loop": (write_loop, "did not answer within 3 s"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("use", ["predict", "teacher"])
def test_a_hostile_file_is_refused_by_name_and_takes_nothing(
    kind: str, use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = HOSTILE[kind]
    if kind == "loop":
        monkeypatch.setenv(SECONDS, "3")
    path = make(tmp_path / "m.onnx")
    assert path.stat().st_size < 500
    before = peak_rss_bytes()
    with pytest.raises(ModelFileError, match=words) as raised:
        open_engine(path, 1, classes=THREE) if use == "predict" else OnnxNetwork(path)
    assert str(path) in str(raised.value)
    assert "It is not used." in str(raised.value)
    assert peak_rss_bytes() - before < 100 * 2**20


def test_the_command_ends_with_2(tmp_path: Path) -> None:
    path = write_loop(tmp_path / "m.onnx")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "classes.yaml").write_text('classes:\n  - {name: a, color: "#000000"}\n  - {name: b, color: "#FFFFFF"}')
    code, text, peak = run(
        "predict", tmp_path / "a.png", "--model", path, "--classes", tmp_path / "classes.yaml", "--out",
        tmp_path / "out", **{SECONDS: "2"},
    )  # fmt: skip
    assert code == 2, text
    assert "did not answer within 2 s" in text
    assert "Traceback" not in text
    assert peak < 400 * 2**20
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    "shape", [FREE, ("n", "h", "w", 3), (1, 3, 256, 256), (1, 64, 64, 3), ("n", "c", "h", "w")], ids=str
)
@pytest.mark.parametrize("multiple", [1, 32])
def test_a_normal_file_passes_and_is_tried_once(
    shape: tuple[Any, ...], multiple: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_foreign(tmp_path / "m.onnx", shape, multiple=multiple)
    try_once(path)
    monkeypatch.setattr(trial, "_SCRIPT", tmp_path / "gone.py")
    try_once(path)
    write_foreign(path, shape, multiple=multiple, scale=2.0)  # another file of this name
    path.touch()
    with pytest.raises(ModelFileError, match="ended the process"):
        try_once(path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08" * 50])
def test_what_is_no_model_is_left_to_what_opens_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    try_once(tmp_path / "m.onnx")
    try_once(tmp_path / "missing.onnx")


def seal(path: Path) -> Path:
    """Write the digest of SkyStill's own files behind a file, as anybody can."""
    content = path.read_bytes()
    path.write_bytes(content + ONNX_TRAILER.of(content))
    return path


def test_the_bundled_model_is_not_tried_and_all_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError, match=r"needs more than 1\.25 GiB"):
        open_engine(seal(write_constant(tmp_path / "own.onnx")), 1, classes=THREE)
    sound = seal(write_foreign(tmp_path / "sound.onnx"))
    open_engine(sound, 1, classes=THREE)
    monkeypatch.setattr(trial, "_SCRIPT", tmp_path / "gone.py")
    try_once(bundled_model())
    damaged = seal(write_foreign(tmp_path / "damaged.onnx"))
    damaged.write_bytes(b"\x08\x08" + damaged.read_bytes())
    with pytest.raises(ModelFileError, match="is damaged"):
        try_once(damaged)


def test_a_file_of_our_own_that_runs_on_no_image_is_refused(tmp_path: Path) -> None:
    """What its trial would take is not known, and opening it does not run it."""
    nodes = [helper.make_node("Reshape", ["picture", "to"], ["logits"])]
    path = write(tmp_path / "m.onnx", nodes, {"to": np.array([1, 3, 7, 7], np.int64)})
    try_once(path)  # of another program: what opens it tries it, and says why
    model = onnx.load(path)
    helper.set_model_props(model, {"skystill_version": '"0.1.0"'})
    onnx.save(model, tmp_path / "own.onnx")
    with pytest.raises(ModelFileError, match="was tried on small images and runs on none"):
        try_once(tmp_path / "own.onnx")


def test_a_name_that_is_no_text_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "m.onnx")
    name = onnx.load(path).graph.output[0].name.encode()
    path.write_bytes(path.read_bytes().replace(name, b"\xee" * len(name)))
    with pytest.raises(ModelFileError, match=r"m\.onnx cannot be opened as an ONNX model"):
        open_engine(path, 1, classes=THREE)


def test_a_program_with_python_inside_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qgis-bin"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    try_once(write_foreign(tmp_path / "m.onnx"))
    assert not (tmp_path / "started").exists()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux measures the trial")
@pytest.mark.parametrize("is_sealed", [False, True])
def test_memory_that_grows_with_the_image_is_bounded_by_what_the_trial_took(is_sealed: bool, tmp_path: Path) -> None:
    path = write_growing(tmp_path / "m.onnx")
    engine = open_engine(seal(path) if is_sealed else path, 1, classes=THREE)
    assert engine.infer(np.zeros((3, 128, 128), np.uint8)).shape == (3, 128, 128)
    before = peak_rss_bytes()
    # 4 * 250 bytes for each of 3 * 832 * 832 values are 1.9 GiB.
    with pytest.raises(
        ModelFileError, match=r"needs about (1\.9|2\.0) GiB for an image of the shape \(1, 3, 832, 832\)"
    ):
        engine.infer(np.zeros((3, 832, 832), np.uint8))
    assert peak_rss_bytes() - before < 50 * 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux measures the trial")
def test_a_file_that_only_small_images_fit_is_used_for_them(tmp_path: Path) -> None:
    path = write_growing(tmp_path / "m.onnx", 600)  # 1.4 GiB for the larger image of the trial, 0.09 for the smaller
    engine = open_engine(path, 1, classes=THREE)
    assert engine.infer(np.zeros((3, 128, 128), np.uint8)).shape == (3, 128, 128)
    with pytest.raises(ModelFileError, match="--tile 512"):
        engine.infer(np.zeros((3, 832, 832), np.uint8))


def test_the_limits_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_constant(tmp_path / "m.onnx", 2**27)  # 0.5 GiB
    monkeypatch.setenv(GIB, "0.75")
    with pytest.raises(ModelFileError, match=r"needs more than 0\.75 GiB"):
        try_once(path)
    monkeypatch.setenv(GIB, "4")
    try_once(path)
    monkeypatch.setenv(SECONDS, "0")
    try_once(write_loop(tmp_path / "loop.onnx"))


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "many", "1e9"])
@pytest.mark.parametrize("variable", [GIB, SECONDS])
def test_a_limit_that_is_no_number_is_an_error(
    variable: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError, match=variable):
        try_once(write_foreign(tmp_path / "m.onnx"))


def test_a_python_file_in_the_working_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    try_once(write_foreign(tmp_path / "m.onnx"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").symlink_to("/proc/self/mem")
    with pytest.raises(ModelFileError, match=r"m\.onnx cannot be read"):
        open_engine(tmp_path / "m.onnx", 1, classes=THREE)

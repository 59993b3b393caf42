"""Model files of networks that are fed any bands: the same logits as torch in every data type, format and runtime."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from skystill.classes import DUBAI
from skystill.model.file import open_session, read_info
from skystill.model.quantize import quantize_model
from skystill.raster.input_spec import RGB, Band, InputSpec, spec_from
from skystill.train.compress.budget import measure_untrained
from skystill.train.compress.export import describe, export_network, multiply_adds_per_megapixel
from skystill.train.compress.formats import _export_for_deepness, _export_for_openvino
from skystill.train.compress.layer_times import layer_fractions
from skystill.train.networks.examples import noise_images
from skystill.train.networks.table import build_network
from tests.banded_rasters import spec_of

NIR_RED_GREEN = replace(RGB, bands=tuple(Band(name, n) for n, name in enumerate(("nir", "red", "green"), 1)))
SPECS = {
    "one float": spec_of("float32", 1), "four of 16 bits": spec_of("uint16", 4, ("red", "green", "blue", "nir")),
    "six bytes": spec_of("uint8", 6), "thirteen signed": spec_of("int16", 13), "three other bytes": NIR_RED_GREEN,
}  # fmt: skip


def trained_a_little(name: str, spec: InputSpec) -> nn.Module:
    torch.manual_seed(0)
    network = build_network(name, 6, spec)
    with torch.no_grad():
        for seed in range(3):
            network(noise_images(spec, 1, 96, 96, seed))
    return network.eval()


@pytest.mark.parametrize(
    ("name", "case"),
    [*(("two-level", case) for case in SPECS), ("kite-nano", "thirteen signed"), ("kite-nano", "one float")],
)
def test_the_file_gives_torchs_logits(name: str, case: str, tmp_path: Path) -> None:
    spec = SPECS[case]
    network, path = trained_a_little(name, spec), tmp_path / "model.onnx"
    image = noise_images(spec, 1, 50, 60, 9)[0].permute(1, 2, 0).numpy()
    export_network(network, describe(name, network, DUBAI), path, [image])
    session = open_session(path)
    for height, width, count in ((1, 1, 1), (75, 141, 1), (64, 64, 3)):
        images = noise_images(spec, count, height, width, 5)
        with torch.no_grad():
            expected = network(images).numpy()
        found = session.run(None, {"image": images.numpy()})[0]
        assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    assert read_info(session, path).input_spec == spec
    onnx.checker.check_model(path, full_check=True)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("DequantizeLinear") == spec.is_three_bytes
    assert kinds.count("Cast") == (not spec.is_three_bytes and spec.dtype != "float32")  # floats need none
    assert multiply_adds_per_megapixel(network) > 10**8


@pytest.mark.parametrize("case", ["four of 16 bits", "six bytes"])
def test_int8_files_answer_nearly_the_same(case: str, tmp_path: Path) -> None:
    spec = SPECS[case]
    network = trained_a_little("kite-nano", spec)
    export_network(network, describe("kite-nano", network, DUBAI), tmp_path / "float.onnx")
    noise = list(noise_images(spec, 3, 96, 96).permute(0, 2, 3, 1).numpy())
    quantize_model(tmp_path / "float.onnx", tmp_path / "int8.onnx", noise, lambda path: 0.0)
    images = {"image": noise_images(spec, 1, 96, 96, 7).numpy()}
    exact, rounded = (open_session(tmp_path / f"{n}.onnx").run(None, images)[0] for n in ("float", "int8"))
    assert 0 < np.abs(exact - rounded).max() < 0.3 * np.abs(exact).max()
    assert read_info(open_session(tmp_path / "int8.onnx"), tmp_path).input_spec == spec
    fractions = layer_fractions(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    assert 0.2 < sum(fractions.values()) <= 1


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("uint16", 0, 65535), ("int16", -32768, 32767)])
def test_deepness_feeds_every_value_as_it_is(dtype: str, low: int, high: int, tmp_path: Path) -> None:
    """Deepness divides by 255 in 64 bits and feeds 32 bits: the probabilities must be those of the values."""
    middle = (low + high) / 2
    bands = tuple(Band("", number, middle + number, (high - low) / 4, low, high) for number in (1, 2))
    spec = InputSpec(bands, dtype)
    network, path = trained_a_little("two-level", spec), tmp_path / "deepness.onnx"
    _export_for_deepness(network, describe("two-level", network, DUBAI), path)
    values = np.resize(np.arange(low, high + 1), (2, 512, 512)).astype(dtype)
    values[1] = values[1, ::-1]
    divided = (values.astype(np.float64) / 255).astype(np.float32)
    found = open_session(path).run(None, {"image": divided[None]})[0]
    with torch.no_grad():
        expected = torch.softmax(network(torch.from_numpy(values)[None]), dim=1).numpy()
    assert np.abs(found - expected).max() <= 1e-5
    stated = open_session(path).get_modelmeta().custom_metadata_map
    assert spec_from(json.loads(stated["input_spec"])) == spec and stated["tile_size"] == "512"


@pytest.mark.parametrize("case", ["four of 16 bits", "thirteen signed", "six bytes"])
def test_openvino_gives_torchs_logits(case: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    spec = SPECS[case]
    network = trained_a_little("two-level", spec)
    _export_for_openvino(network, describe("two-level", network, DUBAI), tmp_path / "m.xml")
    images = noise_images(spec, 1, 70, 90, 3)
    compiled = openvino.compile_model(tmp_path / "m.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = next(iter(compiled([images.numpy()]).values()))
    with torch.no_grad():
        expected = network(images).numpy()
    assert np.abs(found - expected).max() <= 1e-3 * max(1, np.abs(expected).max())


@pytest.mark.slow
def test_an_untrained_student_of_four_bands_is_measured() -> None:
    assert measure_untrained("kite-nano", DUBAI, spec_of("uint16", 4)).latency_ms_per_mp > 0

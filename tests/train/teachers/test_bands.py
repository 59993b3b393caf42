"""Teachers that are fed other bands than the student: with their images, with a cache, several, and what is refused."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from onnx import TensorProto
from PIL import Image
from torch import nn

from skystill.classes import ClassMap
from skystill.data import Pair, find_pairs
from skystill.data.unlabeled import ImageWindow, whole_images
from skystill.errors import SettingsError
from skystill.model.adapters import InputScale
from skystill.raster.input_spec import Band, InputSpec
from skystill.run_folder import RunFolder
from skystill.train.batches.batches import CropSampler, TrainBatches
from skystill.train.batches.images import labeled_images
from skystill.train.compress.export import describe, export_network
from skystill.train.loop.distiller import Distiller
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, write_network
from skystill.train.teachers.loaders.loader import Origin
from skystill.train.teachers.logit_cache import LogitCache
from skystill.train.teachers.origins import cache_key, find_teachers
from skystill.train.teachers.teacher import Teacher, combine
from skystill.train.teaching import Teaching
from tests.banded_rasters import pixels_of, spec_of, write_bands
from tests.foreign_model import write_foreign

AB = ClassMap(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), indexed=True)
NAMES = ("red", "green", "blue", "nir")
FOUR = spec_of("uint16", 4, NAMES)
THREE = replace(FOUR, bands=FOUR.bands[:3])
TWO = replace(FOUR, bands=(replace(FOUR.bands[3], mean=2500.0), FOUR.bands[0]))
CPU = torch.device("cpu")


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for seed in range(2):
        planes = pixels_of(FOUR, 60, 70, seed)
        planes[3, 10:20, :30] = 0  # no data for a network that is fed nir
        write_bands(tmp_path / f"images/{seed}.tif", planes, NAMES, nodata=0)
        Image.fromarray(np.full((60, 70), seed, np.uint8)).save(tmp_path / f"masks/{seed}.png")
    return list(find_pairs(tmp_path).pairs)


def pixelwise(spec: InputSpec, seed: int) -> Teacher:
    """A teacher whose logits of a pixel depend on this pixel alone, so that every crop of them can be checked."""
    torch.manual_seed(seed)
    scale = InputScale(1000.0, tuple(band.mean / 1000 for band in spec.bands), values=True)
    return Teacher(nn.Conv2d(len(spec), 3, 1), scale, input_spec=spec)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [8, 16])
def test_cached_and_online_logits_of_a_crop_are_equal(
    bits: int, symmetric: bool, pairs: list[Pair], tmp_path: Path
) -> None:
    teacher = pixelwise(TWO, 1)
    cache = LogitCache(tmp_path / "logits", "key", symmetric, bits, 1, TWO)
    cache.fill(whole_images(pairs), teacher, CPU)
    online = TrainBatches(CropSampler(labeled_images(pairs, AB, THREE, [TWO]), 32, 0.2, []), 8, 1).batch(0, 0)
    cached = TrainBatches(CropSampler(labeled_images(pairs, AB, THREE, [], [TWO]), 32, 0.2, [cache]), 8, 1).batch(0, 0)
    assert torch.equal(online.images.int(), cached.images.int())
    assert torch.equal(online.distill_valid, cached.distill_valid)
    assert 0 < (online.valid & ~online.distill_valid).sum() < 8 * 300
    expected = teacher(online.fed_to(teacher.input_spec))
    found = cached.teacher_logits[0].logits()
    spread = float(expected.max() - expected.min())
    assert (found - expected).abs().max() <= spread * (1 / 255 if bits == 8 else 1e-3)
    # what the teacher is fed is not what the student is fed: the bands, in the order of the teacher
    assert torch.equal(
        online.fed_to(TWO)[:, 1][online.distill_valid], online.teacher_images[:, 0][online.distill_valid]
    )
    assert (online.fed_to(TWO)[:, 0][online.valid & ~online.distill_valid] == 2500).all()


def test_two_teachers_of_different_bands_are_combined(pairs: list[Pair]) -> None:
    grey = InputSpec((Band("blue", 3, 3000.0, 900.0),), "uint16")
    teachers = [pixelwise(TWO, 1), pixelwise(FOUR, 2), pixelwise(grey, 3)]
    student = build_network("two-level", 3, FOUR)
    task = Distiller(student, teachers, teacher_weights=[1, 2, 1])
    task.compile(torch.optim.AdamW(student.parameters()), temperature=2.0)
    batch = TrainBatches(CropSampler(labeled_images(pairs, AB, FOUR, [TWO, grey]), 32, 0.2, []), 4, 1).batch(0, 0)
    found = task._teacher_logits(batch.to(task.fabric.device)).cpu()
    answers = [teacher.to(CPU)(batch.fed_to(teacher.input_spec)) for teacher in teachers]
    assert torch.allclose(found, combine(answers, [1, 2, 1], 2.0), atol=1e-4)
    losses = task.losses(batch.to(task.fabric.device))[0]
    assert all(bool(value.isfinite()) for value in losses.values())


def make_run(folder: Path, spec: InputSpec, name: str = "two-level") -> Path:
    run = RunFolder(folder)
    folder.mkdir()
    run.config.write_text(yaml.safe_dump({"network": name}))
    torch.manual_seed(0)
    network = build_network(name, 3, spec)
    write_network(run.weights, network, NetworkRecord(name, AB, input_spec=spec))
    export_network(network.eval(), describe(name, network, AB), folder / "model.onnx")
    return folder


def test_runs_and_their_files_know_what_they_are_fed(pairs: list[Pair], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", TWO)
    for text in (str(run), str(run / "model.onnx")):
        found = find_teachers([text], None, AB, FOUR, FOUR)
        assert found.origins[0].input_spec == TWO
        teacher = found.load()[0]
        images = torch.from_numpy(np.stack([pixels_of(TWO, 40, 50)]))
        expected = build_network("two-level", 3, TWO).eval()
        torch.manual_seed(0)
        expected = build_network("two-level", 3, TWO).eval()
        assert torch.allclose(teacher(images), expected(images), atol=1e-4)
        with pytest.raises(SettingsError, match=r"knows that it is fed nir, red as uint16; leave bands out"):
            find_teachers([f"{text}?bands=red,nir"], None, AB, FOUR, FOUR)
        assert Teaching(found, [], [], []).fed_otherwise(FOUR) == [TWO]
        assert Teaching(found, [], [], []).fed_otherwise(TWO) == []


FOREIGN: dict[str, tuple[str, InputSpec, str, Any]] = {
    "colours by default": ("", FOUR, "uint8", ["red", "green", "blue"]),
    "the student's own bands": ("?input=values", TWO, "uint16", ["nir", "red"]),
    "other bands by name": ("?input=values&bands=nir,green", TWO, "uint16", ["nir", "green"]),
    "other bands by number": ("?input=values&bands=2,4", TWO, "uint16", ["green", "nir"]),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_files_of_other_programs_are_fed_what_is_said(case: str, tmp_path: Path) -> None:
    options, student, dtype, names = FOREIGN[case]
    shape = ("n", len(names), "h", "w")
    path = write_foreign(tmp_path / "f.onnx", shape, bands=len(names), dtypes=(TensorProto.FLOAT, TensorProto.FLOAT))
    found = find_teachers([f"{path}{options}"], "a,b,c", AB, student, FOUR)
    spec = found.origins[0].input_spec
    assert (spec.dtype, list(spec.names)) == (dtype, names)
    values = np.stack([pixels_of(FOUR, 20, 30)[:2].repeat(2, 0)[: len(names)]]) % 250
    images = torch.from_numpy(values.astype(spec.kind))
    logits = found.load()[0](images)
    divided = 1 if "values" in options else 255
    assert torch.allclose(logits[0, 0], images[0, 0].float() / divided / 25, atol=1e-4)
    assert torch.allclose(logits[0, 1], images[0, 1].float() / divided / 25, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?bands=nir,red", "the images hold uint16, and it would be fed bytes"),
        ("?input=values&bands=swir,red", "the images have no band swir; they have red, green, blue, nir"),
        ("?input=values&bands=1,1", "a band stands there twice"), ("?input=values&bands=0", "the first band is 1"),
    ],
)  # fmt: skip
def test_bands_that_a_teacher_cannot_be_fed(options: str, message: str, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "f.onnx", ("n", 2, "h", "w"), bands=2)
    with pytest.raises(SettingsError, match=message):
        find_teachers([f"{path}{options}"], "a,b,c", AB, FOUR, FOUR)


def test_the_means_of_a_teachers_scale_fill_pixels_without_data(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "f.onnx", ("n", 2, "h", "w"), bands=2)
    text = f"{path}?input=values&bands=nir,red&divide=10000&mean=0.2,0.3&std=0.1,0.1"
    found = find_teachers([text], "a,b,c", AB, FOUR, FOUR)
    assert found.origins[0].input_spec.fill.tolist() == [2000, 3000]
    images = torch.tensor([2000, 3000], dtype=torch.uint16)[None, :, None, None].expand(1, 2, 8, 8)
    assert found.load()[0](images)[:, :2].abs().max() <= 1e-5


def test_keys_of_caches_differ_by_what_is_read(pairs: list[Pair], tmp_path: Path) -> None:
    window = whole_images(pairs)[0]
    other_fill = replace(TWO, bands=(replace(TWO.bands[0], mean=1.0), TWO.bands[1]))
    specs = (TWO, FOUR, replace(TWO, bands=TWO.bands[::-1]), other_fill)
    paths = {LogitCache(tmp_path, "key", input_spec=spec).path(window) for spec in specs}
    assert len(paths) == 4
    same = replace(TWO, bands=(replace(TWO.bands[0], std=1.0), TWO.bands[1]), resolution_m=3.0)
    assert LogitCache(tmp_path, "key", input_spec=same).path(window) == LogitCache(
        tmp_path, "key", input_spec=TWO
    ).path(window)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_logits_that_were_cached_for_colours_are_still_found(tmp_path: Path) -> None:
    """The keys were written before images could have other bands. The picture is 2 x 1 pixels, by the PNG standard."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0))
    content = chunk(b"IDAT", zlib.compress(bytes(range(7)), 0)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + content)
    cache = LogitCache(tmp_path, "key")
    assert cache.path(ImageWindow(tmp_path / "a.png")).stem == "0551c93c9397225e3a91612a"
    assert cache.path(ImageWindow(tmp_path / "a.png", (0, 1, 0, 2))).stem == "d16f4b85f1242de0a97bc929"
    (tmp_path / "w.onnx").write_bytes(b"weights")
    origin = Origin("x", "onnx", str(tmp_path / "w.onnx"), {"input": "0..1"})
    assert cache_key(origin, [0, 1], "how").startswith("9955fbd3232abfdd5d714f38")

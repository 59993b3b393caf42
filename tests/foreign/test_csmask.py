"""The cloud network of ukis-csmask, four bands of reflectance, teaches a student: a real network of another program.

Its weights come with its package. The scenes are drawn here. If the variable SKYSTILL_CSMASK_SCENES names a folder with
the package's own test scenes (landsat5.npz and others, of its repository), these are used, too.
"""

import json
import os
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin

from skystill import api
from skystill.classes import ClassMap
from skystill.data import read_image
from skystill.predict import Predictor
from skystill.raster.input_spec import Band, InputSpec
from skystill.report.metrics import confusion_counts
from skystill.run_folder import RunFolder
from skystill.train.teachers.origins import find_teachers
from skystill.train.teachers.teacher import Teacher

Planes = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
SIDE = 256
NETWORK = Path(str(files("ukis_csmask"))) / "model_4b_l1c.onnx"
MEAN, STD = json.loads(NETWORK.with_suffix(".json").read_text())["data"]["dataset_statistics"]["img"]
CLASSES = ClassMap(("background", "cloud", "shadow"), ((107, 142, 78), (240, 240, 240), (59, 59, 109)))
OPTIONS = f"mean={','.join(map(str, MEAN))}&std={','.join(map(str, STD))}"
TEACHER = f"{NETWORK}?bands=blue,green,red,nir&input=values&divide={{divisor}}&{OPTIONS}"
STORED = ("swir16", "nir", "red", "green", "blue")
"""The bands of the images, not in the order of the network, and one that it is not fed."""
GROUND = np.array([0.09, 0.10, 0.11, 0.28, 0.22])[:, None, None]  # of the bands of `STORED`, backwards
SHADED = np.array([0.55, 0.45, 0.40, 0.35, 0.35])[:, None, None]  # blue skylight reaches the shadow
CLOUD = np.array([0.62, 0.60, 0.60, 0.66, 0.40])[:, None, None]


def ripples(rng: np.random.Generator, step: int, count: int) -> npt.NDArray[np.float64]:
    """Smooth noise (count, H, W) that changes over `step` pixels."""
    around = SIDE // step + 2  # a border, where the resized noise is one-sided
    small = rng.normal(size=(count, around, around)).astype(np.float32)
    large = [np.asarray(Image.fromarray(one).resize((around * step,) * 2, Image.Resampling.BICUBIC)) for one in small]
    return np.stack(large)[:, step : step + SIDE, step : step + SIDE].astype(np.float64)


def draw_scene(seed: int) -> tuple[Planes, Labels]:
    """Draw puffy clouds with shadows over varied ground: reflectance (5, H, W) in the order of `STORED`, and labels."""
    rng = np.random.default_rng(seed)
    ground = 0.08 * ripples(rng, 32, 5) + 0.06 * ripples(rng, 8, 5) + rng.normal(0, 0.02, (5, SIDE, SIDE))
    image, labels = GROUND * (1 + (ground + ground.mean(axis=0)) / 2), np.zeros((SIDE, SIDE), np.uint8)
    puff = ripples(rng, 8, 1)[0] + ripples(rng, 4, 1)[0] / 2
    rows, columns = np.mgrid[:SIDE, :SIDE]
    clouds = [(*rng.uniform(30, SIDE - 30, 2), rng.uniform(14, 30)) for _ in range(6)]
    for label, shift in ((2, 26), (1, 0)):
        for row, column, radius in clouds:
            distance = np.hypot(rows - row - shift, columns - column - shift) / radius + 0.12 * puff
            cover = np.clip((1.25 - distance) / 0.5, 0, 1)
            image = image + cover * ((CLOUD * (1 + 0.12 * puff) if label == 1 else image * SHADED) - image)
            labels[distance < 1] = label
    return image[::-1].astype(np.float32), labels


def scenes() -> Iterator[tuple[str, Planes, Labels]]:
    """Yield name, reflectance in the order of `STORED`, and labels."""
    for seed in range(6):
        yield f"drawn{seed}", *draw_scene(seed)
    folder = os.environ.get("SKYSTILL_CSMASK_SCENES")
    for path in sorted(Path(folder).glob("*.npz")) if folder else []:
        with np.load(path) as stored:
            image, labels = stored["img"], np.array([2, 0, 0, 0, 1], np.uint8)[stored["msk"][:, :, 0]]
        for quarter in range(4):
            here = tuple(slice(SIDE * step, SIDE * (step + 1)) for step in divmod(quarter, 2))
            yield f"{path.stem}{quarter}", image[here][:, :, 4::-1].transpose(2, 0, 1), labels[here]


def write_scene(path: Path, planes: npt.NDArray[Any]) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", count=len(planes), height=SIDE, width=SIDE, dtype=planes.dtype, crs="EPSG:32633",
        transform=from_origin(500_000, 5_000_000, 30, 30),
    ) as file:  # fmt: skip
        file.write(planes)
        file.descriptions = STORED
    return path


@cache
def opened() -> ort.InferenceSession:
    return ort.InferenceSession(NETWORK, providers=["CPUExecutionProvider"])


def plain_logits(reflectance: Planes) -> Planes:
    """Run the network on (5, H, W) in the order of `STORED` with numpy and ONNX Runtime alone, in float32."""
    fed = reflectance[[4, 3, 2, 1]]
    fed = (fed - np.array(MEAN, np.float32)[:, None, None]) / np.array(STD, np.float32)[:, None, None]
    session = opened()
    return np.asarray(session.run(None, {session.get_inputs()[0].name: fed[None]})[0][0])


def load(divisor: int, offered: InputSpec, student: InputSpec | None = None) -> Teacher:
    text = TEACHER.format(divisor=divisor)
    (teacher,) = find_teachers([text], ",".join(CLASSES.names), CLASSES, student or offered, offered).load()
    return teacher


def spec_of(dtype: str, one: int, names: tuple[str, ...] = STORED) -> InputSpec:
    return InputSpec(tuple(Band(name, STORED.index(name) + 1, 0.3 * one, 0.2 * one, 0, one) for name in names), dtype)


def teach(teacher: Teacher, path: Path) -> Planes:
    assert teacher.input_spec is not None
    assert teacher.input_spec.names == ("blue", "green", "red", "nir")
    image = torch.from_numpy(read_image(path, teacher.input_spec))
    return np.asarray(teacher(image.permute(2, 0, 1)[None])[0].numpy())


def test_logits_are_those_of_plain_arithmetic(tmp_path: Path) -> None:
    reflectance, labels = draw_scene(0)
    expected = plain_logits(reflectance)
    counts = confusion_counts(labels, expected.argmax(axis=0).astype(np.uint8), 3)
    found = counts.diagonal() / counts.sum(axis=1)
    assert (found > [0.8, 0.95, 0.6]).all()  # it knows drawn clouds and shadows, so its logits mean something
    path = write_scene(tmp_path / "scene.tif", reflectance)
    offered = spec_of("float32", 1)
    for student in (("red", "green", "blue"), STORED):  # the teacher sees its four bands, whatever the student is fed
        teacher = load(1, offered, spec_of("float32", 1, student))
        assert np.abs(teach(teacher, path) - expected).max() < 1e-4


def test_integers_of_sixteen_bits_are_divided(tmp_path: Path) -> None:
    whole = np.rint(draw_scene(1)[0] * 10_000).astype(np.uint16)
    expected = plain_logits(whole.astype(np.float32) / np.float32(10_000))
    found = teach(load(10_000, spec_of("uint16", 10_000)), write_scene(tmp_path / "scene.tif", whole))
    assert np.abs(found - expected).max() < 1e-4
    assert not np.isfinite(plain_logits(whole.astype(np.float32))).all()  # it overflows on undivided values


def test_it_teaches_a_student_of_four_bands(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    truth: dict[str, tuple[Planes, Labels]] = {}
    for name, reflectance, labels in scenes():
        write_scene(data / "images" / f"{name}.tif", reflectance)
        Image.fromarray(labels).save(data / "masks" / f"{name}.png")
        truth[name] = (reflectance, labels)
    (data / "classes.yaml").write_text(json.dumps({"classes": [{"name": name} for name in CLASSES.names]}))
    folder = RunFolder(tmp_path / "student")
    api.distill(
        data=data, out=folder.path, bands="blue,green,red,nir", split="0.5/0.2/0.3", student="kite-nano",
        teacher=[TEACHER.format(divisor=1)], teacher_classes=",".join(CLASSES.names), epochs=1, crops_per_image=1,
        alone=False,
    )  # fmt: skip
    results = json.loads(folder.results.read_text())
    counts = np.zeros((3, 3), np.int64)
    for name in results["data"]["test_images"]:
        reflectance, labels = truth[name.split("/")[-1]]
        counts += confusion_counts(labels, plain_logits(reflectance).argmax(axis=0).astype(np.uint8), 3)
    assert json.loads(folder.teacher_scores.read_text())["scores"]["confusion"] == counts.tolist()
    assert results["models"]["student"]["scores"]["images"] == len(results["data"]["test_images"]) >= 2
    iou = counts.diagonal() / (counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal())
    page = folder.report.read_text()
    student = results["models"]["student"]["scores"]["per_class"]["iou"]
    assert "<th></th><th>Teacher</th><th>Distilled student</th>" in page
    for label, name in enumerate(CLASSES.names):
        assert f"<td>IoU {name}, %</td><td>{100 * iou[label]:.1f}</td><td>{100 * student[label]:.1f}</td>" in page
    assert f"reached {100 * iou.mean():.1f} %" in results["verdict"][0]
    fed = Predictor(folder.model).info.input_spec
    assert (fed.names, fed.dtype) == (("blue", "green", "red", "nir"), "float32")

"""A network of another program teaches: the cloud network of ukis-csmask, four bands of reflectance.

    python benchmarks/clouds.py --scenes DIR --package DIR --out runs/clouds

DIR of `--scenes` holds landsat5.npz, landsat7.npz and sentinel2.npz, the test scenes in the repository
dlr-eoc/ukis-csmask. DIR of `--package` is the unpacked or installed package ukis_csmask 1.0.0, with its networks. Each
scene of 512 x 512 pixels becomes four images: two to train on, one for validation, one for the test. The script
compares the teacher's logits with plain ONNX Runtime and numpy, distils, and prints the scores of teacher and students.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import rasterio
import torch
import yaml
from PIL import Image
from rasterio.transform import from_origin

from skystill import api
from skystill.classes import ClassMap
from skystill.data import find_pairs, read_image, split_pairs
from skystill.raster.input_spec import Band, InputSpec
from skystill.report.metrics import Evaluation, evaluate
from skystill.report.records import read_results, read_teacher_scores
from skystill.run_folder import RunFolder
from skystill.train.teachers.origins import find_teachers

SCENES = ("landsat5", "landsat7", "sentinel2")
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
LABELS = np.array([2, 0, 0, 0, 1], np.uint8)
"""From the masks' shadow, land, snow, water and cloud to background, cloud and shadow, as in the package's own test."""
CLASSES = ClassMap(("background", "cloud", "shadow"), ((107, 142, 78), (240, 240, 240), (59, 59, 109)))
PARTS = ("train", "validation", "test", "train")
"""The part of each quarter of a scene: above left, above right, below left, below right."""
_SIDE = 256
Planes = npt.NDArray[np.float32]


def main() -> None:
    """Write the data, compare logits, distil, print scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--level", default="l1c", choices=["l1c", "l2a"], help="which network of the package")
    parser.add_argument("--bands", default="blue,green,red,nir", help="bands of the student, or all")
    parser.add_argument("--integers", action="store_true", help="images of 16 bits: reflectance * 10,000, rounded")
    parser.add_argument("--student", default="kite")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    data, network = chosen.out / "data", chosen.package / f"model_4b_{chosen.level}.onnx"
    if not data.exists():
        write_data(chosen.scenes, data, chosen.integers)
    teacher = teacher_text(network, chosen.integers)
    own = compare_logits(teacher, network, data, chosen.integers)
    print_own_network(own)
    folder = api.distill(
        data=data, out=chosen.out / f"{chosen.student}-{chosen.seed}", split=str(data / "split.yaml"),
        bands=chosen.bands, teacher=[teacher], teacher_classes=",".join(CLASSES.names), teacher_mode="cached",
        student=chosen.student, epochs=chosen.epochs, seed=chosen.seed, crop=128,
    )  # fmt: skip
    print_scores(folder)


def write_data(scenes: Path, data: Path, integers: bool) -> None:
    """Write the quarters of the scenes as GeoTIFFs with named bands, their masks, the classes and the split."""
    (data / "images").mkdir(parents=True)
    (data / "masks").mkdir()
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for scene in SCENES:
        with np.load(scenes / f"{scene}.npz") as stored:
            reflectance, labels = stored["img"].transpose(2, 0, 1), LABELS[stored["msk"][:, :, 0]]
        values = np.rint(reflectance * 10_000).astype(np.uint16) if integers else reflectance
        for quarter, part in enumerate(PARTS):
            top, left = (_SIDE * step for step in divmod(quarter, 2))
            here, name = np.s_[top : top + _SIDE, left : left + _SIDE], f"{scene}-{quarter}"
            write_geotiff(data / "images" / f"{name}.tif", values[:, *here], (top, left))
            Image.fromarray(labels[here]).save(data / "masks" / f"{name}.png")
            parts[part].append(name)
    named = zip(CLASSES.names, CLASSES.colors, strict=True)
    entries = [{"name": name, "value": value, "color": list(color)} for value, (name, color) in enumerate(named)]
    (data / "classes.yaml").write_text(yaml.safe_dump({"classes": entries}))
    (data / "split.yaml").write_text(yaml.safe_dump(parts))


def write_geotiff(path: Path, planes: npt.NDArray[np.generic], start: tuple[int, int]) -> None:
    """Write planes (B, H, W) in an arbitrary grid of 30 m, the resolution that the network was trained for."""
    count, height, width = planes.shape
    place = from_origin(500_000 + 30 * start[1], 5_000_000 - 30 * start[0], 30, 30)
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=planes.dtype, crs="EPSG:32633",
        transform=place, compress="deflate",
    ) as file:  # fmt: skip
        file.write(planes)
        file.descriptions = BANDS[:count]


def statistics(network: Path) -> tuple[list[float], list[float]]:
    """Return the means and standard deviations of reflectance that the file beside the network gives."""
    mean, std = json.loads(network.with_suffix(".json").read_text())["data"]["dataset_statistics"]["img"]
    return mean, std


def teacher_text(network: Path, integers: bool) -> str:
    """Return the teacher as it is written after --teacher."""
    mean, std = (",".join(f"{number:.9g}" for number in numbers) for numbers in statistics(network))
    return f"{network}?bands=blue,green,red,nir&input=values&divide={10_000 if integers else 1}&mean={mean}&std={std}"


def compare_logits(text: str, network: Path, data: Path, integers: bool) -> Evaluation:
    """Print how far the teacher's logits are from plain arithmetic, and evaluate the latter on the test images."""
    pairs = find_pairs(data).pairs
    one = 10_000 if integers else 1
    bands = tuple(Band(name, number, 0.2 * one, 0.2 * one, 0, one) for number, name in enumerate(BANDS, 1))
    offered = InputSpec(bands, "uint16" if integers else "float32")
    (teacher,) = find_teachers([text], ",".join(CLASSES.names), CLASSES, offered, offered).load()
    spec = teacher.input_spec or offered
    session = ort.InferenceSession(network)
    answers: dict[str, Planes] = {}
    farthest = rounded = largest = 0.0
    for pair in pairs:
        image = read_image(pair.image, spec)
        fed = plain_input(network, pair.image, integers)
        answers[pair.key] = answer = plain_logits(session, fed)
        found = teacher(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
        farthest = max(farthest, float(np.abs(found - answer).max()))
        larger = plain_logits(session, np.nextafter(fed, np.float32(np.inf)))
        rounded = max(rounded, float(np.abs(larger - answer).max()))
        largest = max(largest, float(np.abs(answer).max()))
    print(f"teacher against plain arithmetic on {len(pairs)} images: {farthest:.2g} of logits up to {largest:.3g}")
    print(f"plain arithmetic, inputs larger by the smallest step of float32: {rounded:.2g}")
    test = split_pairs(pairs, str(data / "split.yaml"), 0).test
    images = ((pair.key, pair.key, np.asarray(Image.open(pair.mask))) for pair in test)
    return evaluate(lambda key: probabilities(answers[key]), images, CLASSES)


def plain_input(network: Path, image: Path, integers: bool) -> Planes:
    """Return what the package would feed: the first four bands as reflectance, minus the mean, by the deviation."""
    with rasterio.open(image) as file:
        reflectance = file.read([1, 2, 3, 4]).astype(np.float32) / np.float32(10_000 if integers else 1)
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in statistics(network))
    return np.asarray((reflectance - mean) / std)


def plain_logits(session: ort.InferenceSession, fed: Planes) -> Planes:
    """Run the network on (4, H, W) with ONNX Runtime alone."""
    return np.asarray(session.run(None, {session.get_inputs()[0].name: fed[None]})[0][0])


def probabilities(logits: Planes) -> Planes:
    """Return the softmax of logits (C, H, W)."""
    powers = np.exp(logits - logits.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))


def print_own_network(own: Evaluation) -> None:
    """Print the scores of plain arithmetic, to hold beside the teacher's in the report."""
    scores = own.scores()
    each = ", ".join(f"{100 * (value or 0):.2f}" for value in scores.per_class.iou)
    print(f"plain arithmetic on the test images: mIoU {100 * (scores.miou or 0):.2f} ({each})")


def print_scores(folder: RunFolder) -> None:
    """Print the table of docs/results/clouds.md."""
    results, teacher = read_results(folder), read_teacher_scores(folder)
    print(f"| | mIoU | {' | '.join(CLASSES.names)} | pixel accuracy |\n|---|---:|{'---:|' * len(CLASSES)}---:|")
    rows = {"teacher": teacher.scores} if teacher else {}
    rows |= {role: model.scores for role, model in results.models.items()}
    for role, scores in rows.items():
        cells = [scores.miou, *scores.per_class.iou, scores.pixel_accuracy]
        print(f"| {role} | {' | '.join(f'{100 * (cell or 0):.1f}' for cell in cells)} |")


if __name__ == "__main__":
    main()

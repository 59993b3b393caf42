"""A map of which only a tenth is labelled: what distilling on the rest gains, on tiles of Tokyo, three seeds.

    python benchmarks/half_labelled.py --data TOKYO --out runs/half            # make the map, train, then score
    python benchmarks/half_labelled.py --data TOKYO --out runs/half --score

The map is one sparse GeoTIFF with all tiles at their places (`georef.json`, to the next multiple of 512 m), and a
GeoPackage with the outlines of what the masks hold, an `area` and a `split`. The area covers TILES of the training
tiles, which the seed draws until all classes are in them, two validation tiles, and all test tiles. Everything else is
ground without labels, the tiles that never had any included. For each seed:

  teacher    `lite0`, ImageNet weights, trained in the area
  alone      the student, trained in the area
  distilled  the same number of steps; half of each batch comes from the ground without labels, where only the teacher
             teaches

Scores are those of the test tiles. Settings that are not named here are the defaults. The script prints mIoU for each
seed and the difference with a 95 % interval over tiles, and writes half_labelled.json. Runs that were stopped are
resumed. OMP_NUM_THREADS sets the number of cores that a training uses.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import rasterio.features
import shapely
import yaml
from dubai_runs import arm_folder, evaluated, finish, interval, percents, points, scored_part, summary, without_teacher
from PIL import Image
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window

from skystill.report.metrics import Evaluation, compare
from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings, TrainSettings

SIDE, METRES, CRS = 1024, 0.5, "EPSG:32654"
TILES, VALIDATION = 5, 2
STEP = SIDE * METRES


def main() -> None:
    """Make the maps, train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/half"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--student", default="swift-small")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--crops", type=int, default=64, help="crops of each labelled tile and epoch")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--score", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    for seed in [] if chosen.score else chosen.seeds:
        train(chosen, make_map(chosen.data, chosen.out / f"map-{seed}", seed), seed)
    score(chosen.out, chosen.seeds)


def train(chosen: argparse.Namespace, data: Path, seed: int) -> None:
    """Train the teacher and both students of a seed."""
    shared = {"data": data, "seed": seed, "crops_per_image": chosen.crops, "precision": chosen.precision}
    teacher, student = (arm_folder(chosen.out, arm, seed) for arm in ("teacher", "distilled"))
    finish(TrainSettings(**shared, out=teacher, network="lite0", freeze=2, epochs=chosen.epochs // 2))
    distilled = DistillSettings(
        **shared, out=student, teacher=[str(teacher)], student=chosen.student, epochs=chosen.epochs,
        teacher_mode="cached", unlabeled=data, alone=False,
    )  # fmt: skip
    finish(without_teacher(distilled, arm_folder(chosen.out, "alone", seed)))
    finish(distilled)


def make_map(data: Path, folder: Path, seed: int) -> Path:
    """Write the map of a seed, unless it is there already."""
    if (folder / "classes.yaml").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    places, split = read_json(data / "georef.json"), read_json(data / "split.json")
    west = min(place["easting"] for place in places.values())
    north = max(place["northing"] for place in places.values())
    cells = {
        name: (round((north - place["northing"]) / STEP), round((place["easting"] - west) / STEP))
        for name, place in places.items()
    }
    if len(set(cells.values())) < len(cells):
        raise SystemExit("two tiles have one place")
    images = {path.stem: path for path in [*(data / "images").iterdir(), *(data / "unlabelled").iterdir()]}
    masks = {path.stem: np.asarray(Image.open(path)) for path in sorted((data / "masks").iterdir())}
    transform = from_origin(west, north, METRES, METRES)
    write_raster(folder / "ortho.tif", {cells[name]: path for name, path in images.items()}, transform)
    names = {one["index"]: one["name"] for one in read_json(data / "classes.json")["classes"] if one["index"]}
    drawn = draw_tiles(split, masks, names, seed)
    write_layers(folder / "labels.gpkg", {cells[name]: masks[name] for name in drawn}, names, transform)
    boxes = {part: [box_of(cells[name], transform) for name in drawn if name in split[part]] for part in split}
    parts = [part for part, found in boxes.items() for _ in found]
    every = np.array([one for found in boxes.values() for one in found], object)
    write(folder / "labels.gpkg", "area", every, "kind", parts)
    write(folder / "labels.gpkg", "split", every, "split", parts)
    rules = [{"name": name, "from": {"layer": "cover", "field": "kind", "values": [name]}} for name in names.values()]
    (folder / "classes.yaml").write_text(yaml.safe_dump({"classes": rules}, sort_keys=False))
    return folder


def draw_tiles(
    split: dict[str, list[str]], masks: dict[str, np.ndarray], names: dict[int, str], seed: int
) -> list[str]:
    """Return the tiles with labels: training and validation tiles that a seed draws, and all test tiles."""
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        training = [str(name) for name in rng.choice(split["train"], TILES, replace=False)]
        if set(names) <= set(np.unique([masks[name] for name in training]).tolist()):
            held = [str(name) for name in rng.choice(split["validation"], VALIDATION, replace=False)]
            return [*training, *held, *split["test"]]
    raise SystemExit(f"no {TILES} tiles hold all classes")


def write_raster(path: Path, tiles: dict[tuple[int, int], Path], transform: Affine) -> None:
    """Write pictures into one sparse raster, with 0 for no data and 1 for the darkest colour."""
    rows, columns = (1 + max(cell[axis] for cell in tiles) for axis in (0, 1))
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "interleave": "pixel",
               "sparse_ok": True, "nodata": 0, "photometric": "rgb"}  # fmt: skip
    with rasterio.open(path, "w", driver="GTiff", width=columns * SIDE, height=rows * SIDE, count=3, dtype="uint8",
                       crs=CRS, transform=transform, **options) as file:  # fmt: skip
        for (row, column), picture in sorted(tiles.items()):
            pixels = np.maximum(np.asarray(Image.open(picture).convert("RGB")), 1).transpose(2, 0, 1)
            file.write(pixels, window=Window(column * SIDE, row * SIDE, SIDE, SIDE))


def write_layers(
    path: Path, masks: dict[tuple[int, int], np.ndarray], names: dict[int, str], transform: Affine
) -> None:
    """Write the outlines of all classes, along the edges of pixels."""
    shapes: list[shapely.Geometry] = []
    kinds: list[str] = []
    for (row, column), mask in sorted(masks.items()):
        place = transform * Affine.translation(column * SIDE, row * SIDE)
        for outline, label in rasterio.features.shapes(mask, mask > 0, transform=place):
            shapes.append(shapely.geometry.shape(outline))
            kinds.append(names[int(label)])
    write(path, "cover", np.array(shapes, object), "kind", kinds)


def write(path: Path, layer: str, shapes: np.ndarray, field: str, values: list[str]) -> None:
    """Write or append a layer of polygons with one attribute."""
    pyogrio.raw.write(path, shapely.to_wkb(shapes), [np.array(values, object)], [field], layer=layer, crs=CRS,
                      driver="GPKG", geometry_type="Polygon", append=path.exists())  # fmt: skip


def box_of(cell: tuple[int, int], transform: Affine) -> shapely.Polygon:
    """Return the outline of a tile."""
    west, north = transform * (cell[1] * SIDE, cell[0] * SIDE)
    return shapely.box(west, north - STEP, west + STEP, north)


def read_json(path: Path) -> dict:
    """Read a file of the data set."""
    return json.loads(path.read_text(encoding="utf-8"))


def score(out: Path, seeds: list[int]) -> None:
    """Score every finished run on the test tiles, and print differences."""
    found: dict[str, list[Evaluation]] = {"teacher": [], "alone": [], "distilled": []}
    done = [seed for seed in seeds if all(RunFolder(arm_folder(out, arm, seed)).model.exists() for arm in found)]
    for seed in done:
        test, classes = scored_part(out / f"map-{seed}", "auto")
        for arm, evaluations in found.items():
            evaluations.append(evaluated(RunFolder(arm_folder(out, arm, seed)).model, test, classes))
    if not done:
        return
    for arm, evaluations in found.items():
        print(f"{arm}: {percents([one.scores().miou for one in evaluations], ', ')}")
    difference = compare(found["distilled"], found["alone"])
    print(f"distilled minus alone: {points(difference)}, 95 % interval {interval(difference)}")
    models = {arm: asdict(summary(evaluations)) for arm, evaluations in found.items()}
    write_json(out / "half_labelled.json", {"seeds": done, "models": models, "difference": asdict(difference)})


if __name__ == "__main__":
    main()

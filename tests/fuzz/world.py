"""The sound files that are damaged: a small world with one file of every kind that the commands open.

    in/data/      images with masks, classes.yaml          in/studies/one   a study with its database
    in/maps/      rasters with features that label them
    in/rasters/   one raster of each kind                   in/logits/       cached logits
    in/models/    model files, one of another program       in/begun/        a prediction that was stopped
    in/runs/      teacher, student                          in/archive/      what a cluster predicted
    in/*.yaml ... settings, splits, palettes

A command may write below out/ and tmp/, and nowhere else.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint

from skystill.data.scenes import write_scene, write_scene_classes
from skystill.progress import Event, Progress
from skystill.run_folder import write_json
from tests.foreign_model import write_foreign
from tests.maps import box, write_classes, write_layer, write_raster

TRAINING = ("--epochs=1", "--crop=32", "--batch-size=2", "--crops-per-image=1", "--split=0.5/0.2/0.3", "--seed=0")
NETWORK = "unet?channels=4&depth=2"
_SIDE = 40


def skystill(*arguments: object) -> int:
    """Run the command line in this process, as `main` of the package does, and return its exit code."""
    from skystill.cli.commands import main

    before, sys.argv = sys.argv, ["skystill", *map(str, arguments)]
    try:
        main()
    except SystemExit as ended:
        code = ended.code
        return code if isinstance(code, int) else 0 if code is None else 1
    finally:
        sys.argv = before
    return 0


def make_world(root: Path) -> Path:
    """Make all sound files below `root` and return the folder. It takes about 15 seconds."""
    inside = root / "in"
    for name in ("data", "rasters", "models", "runs", "studies"):
        (inside / name).mkdir(parents=True)
    for name in ("out", "tmp"):
        (root / name).mkdir(exist_ok=True)
    with _away_from(root):
        _make_data(inside / "data")
        _make_tiffs(inside / "tiffs")
        _make_maps(inside / "maps")
        make_rasters(inside / "rasters")
        _make_runs(inside)
        _make_models(inside)
        _make_settings(inside)
        _stop_a_prediction(inside)
        _make_study(inside)
        _make_archive(root)
    return root


@contextlib.contextmanager
def _away_from(root: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(root)
    try:
        yield
    finally:
        os.chdir(before)


def _make_data(folder: Path) -> None:
    write_scene_classes(folder)
    for index in range(6):
        write_scene(folder, index, _SIDE, seed=3)
    _list_data(folder)


def _list_data(folder: Path) -> None:
    """Write the images and masks of a data set as catalogues: CSV, Parquet and STAC."""
    parts = ["train", "train", "train", "validation", "test", "test"]
    files = [(f"images/scene_{index:03d}.jpg", f"masks/scene_{index:03d}.png") for index in range(len(parts))]
    rows = [f"{image},{mask},{part}" for (image, mask), part in zip(files, parts, strict=True)]
    (folder / "list.csv").write_text("\n".join(["image,labels,split", *rows, ""]))
    columns = zip(*(row.split(",") for row in rows), strict=True)
    table = pyarrow.table(dict(zip(("image", "labels", "split"), map(list, columns), strict=True)))
    pyarrow.parquet.write_table(table, folder / "list.parquet")
    items = []
    for index, (image, mask) in enumerate(files):
        about = {"type": "Feature", "stac_version": "1.0.0", "id": f"i{index}", "geometry": None, "properties": {}}
        items.append({**about, "links": [], "assets": {"image": {"href": image, "roles": ["data"]}}})
        source = {"rel": "source", "href": f"https://example.org/i{index}", "label:assets": ["image"]}
        items[-1]["links"] = [{"rel": "self", "href": source["href"]}]
        labels = {"labels": {"href": mask, "roles": ["labels"]}}
        kind = {"label:type": "raster", "split": parts[index]}
        items.append({**about, "id": f"l{index}", "links": [source], "assets": labels, "properties": kind})
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}, indent=1))


def _make_tiffs(folder: Path) -> None:
    """Write a data set of four bands in 16 bits, with masks of numbers and a colour table."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index in range(4):
        _write_tiff(folder / f"images/{index}.tif", _pixels(4, "uint16"), nodata=0)
        with rasterio.open(folder / f"masks/{index}.tif", "w", **_profile(1, nodata=0)) as file:
            file.write(_pixels(1) % 4)
            file.write_colormap(1, {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)})
    (folder / "classes.yaml").write_text(
        "classes:\n  - {name: red, color: '#FF0000', value: 1}\n  - {name: green, color: '#00FF00', value: 2}\n"
        "  - {name: blue, color: '#0000FF', value: 3}\nignore_index: [0]\nbands: [red, green, blue, nir]\n"
    )


def _make_maps(folder: Path) -> None:
    """Write a map with the features in each kind of file, and its layers area and split beside them."""
    for suffix in (".gpkg", ".geojson", ".fgb", ".shp"):
        root = folder / suffix[1:]
        transform = write_raster(root / "ortho.tif", 520, 520, values=np.ones((3, 520, 520), np.uint8), compress="lzw")
        boxes = [
            box(transform, top, top + 30, left, left + 20) for top in range(0, 500, 90) for left in range(0, 500, 70)
        ]
        write_layer(root / f"labels{suffix}", boxes, kind=[*"abc"] * (len(boxes) // 3), height=[2.5] * len(boxes))
        halves = [box(transform, 0, 520, 0, 256), box(transform, 0, 520, 256, 520)]
        write_layer(root / "area.geojson", [box(transform, 0, 400, 0, 520)])
        write_layer(root / "split.geojson", halves, split=["train", "test"])
        write_classes(
            root,
            {"land": "rest", "roof": "{field: kind, values: [a, b]}", "tree": "{field: kind, values: [c], buffer: 2}"},
        )


def _pixels(bands: int, dtype: str = "uint8", side: int = 48) -> npt.NDArray[Any]:
    high = {"uint8": 256, "uint16": 4000, "int16": 3000, "float32": 1000}[dtype]
    return np.random.default_rng(7).integers(0, high, (bands, side, side)).astype(dtype)


def make_rasters(folder: Path) -> None:
    """Write one raster of each kind: pictures, GeoTIFFs with files beside them, VRTs, other formats of GDAL."""
    picture = Image.fromarray(_pixels(3).transpose(1, 2, 0))
    for name in ("photo.jpg", "photo.png", "photo.bmp", "photo.webp", "photo.gif"):
        picture.save(folder / name)
    picture.save(folder / "slow.jpg", progressive=True)
    picture.save(folder / "turned.jpg", exif=_exif(6))
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png", transparency=3)
    picture.convert("L").save(folder / "grey.png")
    Image.fromarray(_pixels(1, "uint16")[0]).save(folder / "deep.png")
    _write_tiff(folder / "scene.tif", _pixels(3), tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    with rasterio.open(folder / "scene.tif", "r+") as file:
        file.build_overviews([2, 4])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(folder / "beside.tif", "w", **_profile(3)) as file:
        file.write(_pixels(3))
        file.write_mask(np.full((48, 48), 255, np.uint8))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(folder / "beside.tif", "r+") as file:
        file.build_overviews([2])
    (folder / "beside.tfw").write_text("0.5\n0\n0\n-0.5\n500000\n4000000\n")
    (folder / "beside.tif.aux.xml").write_text(
        '<PAMDataset><Metadata><MDI key="a">1</MDI></Metadata><PAMRasterBand band="1"><NoDataValue>3</NoDataValue>'
        "<Description>red</Description></PAMRasterBand></PAMDataset>"
    )
    _write_tiff(folder / "deep.tif", _pixels(4, "uint16"), nodata=0, tiled=True, blockxsize=16, blockysize=16)
    _write_tiff(folder / "float.tif", _pixels(1, "float32"), nodata=float("nan"))
    _write_tiff(folder / "jpeg.tif", _pixels(3), compress="jpeg", photometric="ycbcr")
    _write_tiff(folder / "lzw.tif", _pixels(3), compress="lzw", predictor=2, interleave="pixel")
    with rasterio.open(folder / "points.tif", "w", **_profile(3, crs=None, transform=None)) as file:
        file.write(_pixels(3))
        corners = ((0, 0, 10, 50), (0, 48, 10.01, 50), (48, 0, 10, 49.99))
        file.gcps = [GroundControlPoint(row, column, x, y) for row, column, x, y in corners], "EPSG:4326"
    (folder / "part.vrt").write_text(
        '<VRTDataset rasterXSize="48" rasterYSize="48"><SRS>EPSG:32640</SRS>'
        "<GeoTransform>500000, 0.5, 0, 4000000, 0, -0.5</GeoTransform>"
        + "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">scene.tif'
            f'</SourceFilename><SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="48" ySize="48"/>'
            '<DstRect xOff="0" yOff="0" xSize="48" ySize="48"/></SimpleSource></VRTRasterBand>'
            for band in (1, 2, 3)
        )
        + "</VRTDataset>"
    )
    rows = "\n".join(" ".join(map(str, row)) for row in _pixels(1)[0].tolist())
    (folder / "grid.asc").write_text(
        f"ncols 48\nnrows 48\nxllcorner 0\nyllcorner 0\ncellsize 1\nNODATA_value 9\n{rows}\n"
    )
    for name, driver in (("scene.img", "HFA"), ("scene.dat", "ENVI"), ("scene.jp2", "JP2OpenJPEG")):
        with rasterio.open(folder / name, "w", **{**_profile(3), "driver": driver}) as file:
            file.write(_pixels(3))


def _profile(bands: int, dtype: str = "uint8", **more: object) -> dict[str, Any]:
    grid = {"crs": "EPSG:32640", "transform": rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)}
    profile = {"driver": "GTiff", "width": 48, "height": 48, "count": bands, "dtype": dtype, **grid, **more}
    return {key: value for key, value in profile.items() if value is not None}


def _write_tiff(path: Path, planes: npt.NDArray[Any], **more: object) -> None:
    with rasterio.open(path, "w", **_profile(len(planes), str(planes.dtype), **more)) as file:
        file.write(planes)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def _run(*arguments: object) -> None:
    code = skystill(*arguments)
    if code:
        raise RuntimeError(f"skystill {' '.join(map(str, arguments))} ended with {code}")


def _make_runs(inside: Path) -> None:
    data, runs = inside / "data", inside / "runs"
    _run("train", "--data", data, "--out", runs / "teacher", "--network", NETWORK, "--no-report", *TRAINING)
    _run(
        "distill", "--data", data, "--teacher", runs / "teacher", "--student", NETWORK, "--out", runs / "student",
        "--no-report", "--no-alone", *TRAINING,
    )  # fmt: skip
    _run("cache", "--data", data, "--teacher", runs / "teacher", "--cache", inside / "logits", "--split=0.5/0.2/0.3")


def _make_models(inside: Path) -> None:
    from skystill.data.read import read_image
    from skystill.model.choice import write_choice
    from skystill.model.measure import ComparedCost
    from skystill.model.quantize import quantize_model

    models, student = inside / "models", inside / "runs/student"
    shutil.copy(student / "student.onnx", models / "student.onnx")
    write_foreign(models / "other.onnx", metadata={"class_names": '{"0": "red", "1": "green", "2": "dark"}'})
    images = [read_image(path) for path in sorted((inside / "data/images").iterdir())]
    quantize_model(models / "student.onnx", models / "int8.onnx", images, lambda path: 1.0)
    _run("export", student, "--format=openvino", "--out", models / "other.xml")
    cost = ComparedCost(
        size_bytes=9000, network="kite", precision="int8", parameters=5000, multiply_adds_per_megapixel=10**6,
        latency_ms_per_mp=9.0, latency_spread_ms_per_mp=(8.0, 10.0), threads=1, runtime="onnxruntime",
        peak_rss_bytes=90_000_000, tile_pixels=65_536, path="kite.onnx", latency_ms_per_mp_1_thread=9.0,
        latency_spread_ms_per_mp_1_thread=(8.0, 10.0), peak_fraction=0.1,
    )  # fmt: skip
    write_json(models / "measured.json", {"models": [asdict(cost)]})
    write_choice(models / "student.onnx", [cost, replace(cost, runtime="openvino", latency_ms_per_mp_1_thread=9.5)])


def _make_settings(inside: Path) -> None:
    keys = [f"scene_{index:03d}" for index in range(6)]
    (inside / "split.yaml").write_text(f"train: {keys[:3]}\nvalidation: [{keys[3]}]\ntest: {keys[4:]}\n")
    (inside / "settings.yaml").write_text(
        "epochs: 1\ncrop: 32\nbatch_size: 2\nstudent_loss: ce\nseed: 1\nlearning_rate: 0.001\nsplit: 0.5/0.2/0.3\n"
    )
    (inside / "grid.yaml").write_text("crs: EPSG:32640\nresolution: 0.5\norder: first\n")
    (inside / "cluster.yaml").write_text(
        "cluster: dask_jobqueue.SLURMCluster\noptions: {cores: 2, memory: 2GB}\nworkers: {minimum: 0, maximum: 9}\n"
    )
    (inside / "palette.yaml").write_text(
        "classes:\n  - {name: red, color: '#FF0000', value: 1}\n  - {name: green, color: [0, 255, 0], value: 2}\n"
        "  - {name: dark, color: '#000000', value: 3}\nvoid: ['#0000FF']\nignore_index: [0]\n"
    )
    (inside / "palette.json").write_text(
        '{"classes": [{"title": "red", "color": "#FF0000"}, {"title": "green", "color": "#00FF00"}, '
        '{"title": "dark", "color": "#000000"}]}'
    )


class _Stopped(BaseException):
    """Stops a prediction in the middle of it."""


def _stop_a_prediction(inside: Path) -> None:
    from skystill import api

    rows = 4

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.done > 0:
            nonlocal rows
            rows -= 1
            if not rows:
                raise _Stopped

    _write_tiff(inside / "rasters/long.tif", np.tile(_pixels(3), (1, 8, 1)), height=384)
    with contextlib.suppress(_Stopped):
        api.predict(
            inputs=[str(inside / "rasters/long.tif")], out=inside / "begun/long.tif", tile=64, overlap=0, threads=1,
            model=inside / "models/student.onnx", confidence=True, on_progress=stop,
        )  # fmt: skip
    if not list((inside / "begun").glob(".unfinished-*/*.unit")):
        raise RuntimeError("the prediction left no journal")


def _make_study(inside: Path) -> None:
    import optuna

    folder = inside / "studies/one"
    folder.mkdir()
    study = optuna.create_study(storage=f"sqlite:///{folder}/study.db", study_name="one", direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=0.5, params={}, distributions={}))


def _make_archive(root: Path) -> None:
    """Write the manifest of a cluster that predicted a picture. Its paths are those of the copy below out/."""
    from skystill.cluster.manifest import Done, Manifest
    from skystill.cluster.tasks import file_state, source_state

    copy = root / "out/copy"
    photo = (root / "in/rasters/photo.png", "--model", root / "in/models/student.onnx", "--out", copy)
    if skystill("predict", *photo, "--dask=nowhere") != 2:  # it begins the manifest, and finds no cluster
        raise RuntimeError("the archive found a cluster")
    with contextlib.closing(Manifest(copy / ".skystill/manifest.sqlite")) as manifest:
        ((number, source, target),) = manifest.inputs("waiting")
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(target)
        done = Done(48 * 48, 100, "0" * 64, 0.5, "here")
        manifest.add_whole(number, done)
        manifest.finish_input(number, source_state(source), file_state(target), done)
        manifest.tell(state="ended", began=1.7e9, updated=1.7e9, workers=2)
    copy.rename(root / "in/archive")

"""What is damaged, and the commands that open it: one line per kind of file in docs/opening.md, and more.

Commands are written with {in} (the sound files), {out} (where the command may write), {file} (the damaged file) and
{copy} (a copy of a folder below {out}, which holds the damaged file), for commands that write into what they read.
"""

from dataclasses import dataclass

from tests.fuzz.world import NETWORK, TRAINING

Command = tuple[str, ...]

_MODEL = ("--model", "{in}/models/student.onnx")
_PREDICTIONS: tuple[Command, ...] = (
    ("predict", "{file}", *_MODEL, "--out", "{out}/x.tif", "--tile=64", "--overlap=0", "--threads=1"),
    ("predict", "{file}", "{in}/rasters/photo.png", *_MODEL, "--out", "{out}/x", "--threads=2"),
    ("predict", "{file}", *_MODEL, "--out", "{out}/x.png", "--areas", "--overlay", "--confidence"),
    ("predict", "{file}", *_MODEL, "--out", "{out}/x.tif", "--vector=geojson", "--cog", "--min-area=9px", "--smooth=3"),
    ("predict", "{file}", *_MODEL, "--out", "{out}/x.tif", "--mode=blend", "--views=2", "--probabilities"),
    ("predict", "{file}", *_MODEL, "--out", "{out}/x.tif", "--resolution=1", "--max-memory=400MB"),
    ("predict", "{file}", *_MODEL, "--out", "{out}/x.tif", "--bands=3,2,1", "--overlay", "--show=1"),
)  # fmt: skip
_ALL = _PREDICTIONS[:1]
_LISTED: Command = ("predict", "{file}", *_MODEL, "--out", "{out}/x", "--threads=1")
_MOSAIC: Command = ("predict", "{in}/rasters/scene.tif", "{in}/rasters/beside.tif", *_MODEL, "--out", "{out}/x.tif",
                    "--mosaic", "{file}", "--threads=1")  # fmt: skip
_CHECK: Command = ("data", "check", "{in}/data")
_CHECK_TIFFS: Command = ("data", "check", "{in}/tiffs", "--bands=all")
_TRAIN: Command = ("train", "--data", "{in}/data", "--network", NETWORK, "--out", "{out}/t", "--no-report", *TRAINING)
_TEACHER = (
    "distill",
    "--data",
    "{in}/data",
    "--student",
    NETWORK,
    "--out",
    "{out}/d",
    "--no-report",
    "--no-alone",
    *TRAINING,
)
_CACHE = ("cache", "--data", "{in}/data", "--cache", "{out}/cache", "--split=0.5/0.2/0.3", "--cache-symmetry=none")
_SHORT = ("--epochs=1", "--crop=32", "--batch-size=2", "--crops-per-image=1", "--limit-images=2", "--split=0.5/0.2/0.3")
_USES: tuple[Command, ...] = (
    ("predict", "{in}/rasters/photo.png", "--model", "{file}", "--out", "{out}/x.png", "--threads=1"),
    ("predict", "{in}/rasters/scene.tif", "--model", "{file}", "--out", "{out}/x.tif", "--areas", "--vector=geojson"),
)


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Args:
        name: in words.
        file: what is damaged, below the folder of sound files. A pattern stands for its first match.
        form: a key of `FORMS`, or "bytes".
        commands: the commands that open it, from which one is chosen.
        weight: how often it is chosen, compared with others.
        copied: a folder that is copied below {out} first, because the command writes into it.
        is_tried: whether model files are tried in a process of their own, which takes a second.
    """

    name: str
    file: str
    form: str
    commands: tuple[Command, ...]
    weight: float = 10
    copied: str = ""
    is_tried: bool = False


def _rasters() -> list[Kind]:
    forms = {"tif": "tiff", "png": "png", "jpg": "jpeg"}
    names = {
        "photo.jpg": 12, "slow.jpg": 5, "turned.jpg": 5, "photo.png": 10, "palette.png": 6, "grey.png": 4,
        "deep.png": 4, "photo.bmp": 5, "photo.webp": 5, "photo.gif": 5, "scene.tif": 16, "beside.tif": 6,
        "deep.tif": 8, "float.tif": 6, "jpeg.tif": 6, "lzw.tif": 6, "points.tif": 6, "part.vrt": 12, "grid.asc": 6,
        "scene.img": 5,
        "scene.dat": 4,
        "scene.jp2": 5,
    }  # fmt: skip
    kinds = [
        Kind(f"raster {name}", f"rasters/{name}", forms.get(name.split(".")[1], "bytes"), _PREDICTIONS, weight)
        for name, weight in names.items()
    ]
    beside = {
        "beside.tif.ovr": "beside.tif", "beside.tif.msk": "beside.tif", "beside.tif.aux.xml": "beside.tif",
        "beside.tfw": "beside.tif", "scene.hdr": "scene.dat",
    }  # fmt: skip
    for name, main in beside.items():
        form = "tiff" if name.endswith((".ovr", ".msk")) else "bytes"
        commands = tuple(tuple(word.replace("{file}", "{in}/rasters/" + main) for word in one) for one in _PREDICTIONS)
        kinds.append(Kind(f"beside a raster: {name}", f"rasters/{name}", form, commands, 6))
    folder = ("predict", "{in}/rasters", *_MODEL, "--out", "{out}/all", "--threads=1")
    kinds.append(Kind("raster in a folder", "rasters/photo.png", "png", (folder,), 2))
    unlabeled = (*_TEACHER, "--teacher", "{in}/runs/teacher", "--unlabeled", "{in}/rasters")
    kinds.append(Kind("unlabelled raster", "rasters/scene.tif", "tiff", (unlabeled,), 0.3))
    return kinds


def _data() -> list[Kind]:
    checks = (_CHECK,)
    tiffs = (_CHECK_TIFFS, ("data", "check", "{in}/tiffs"))
    by_palette = (
        ("predict", "{in}/rasters/photo.png", "--model", "{in}/models/other.onnx", "--classes", "{file}",
         "--out", "{out}/x.tif", "--areas", "--overlay", "--vector=geojson", "--threads=1"),
        ("data", "check", "{in}/data", "--classes", "{file}"),
    )  # fmt: skip
    return [
        Kind("image of the data", "data/images/scene_001.jpg", "jpeg", checks, 12),
        Kind("mask of the data", "data/masks/scene_001.png", "png", checks, 16),
        Kind("GeoTIFF of the data", "tiffs/images/1.tif", "tiff", tiffs, 14),
        Kind("mask in GeoTIFF", "tiffs/masks/1.tif", "tiff", tiffs, 14),
        Kind("classes of the data", "data/classes.yaml", "text", checks, 20),
        Kind("classes with values", "tiffs/classes.yaml", "text", tiffs, 16),
        Kind("palette in YAML", "palette.yaml", "text", by_palette, 16),
        Kind("palette in JSON", "palette.json", "text", by_palette, 12),
        Kind("split", "split.yaml", "text", (("data", "check", "{in}/data", "--split", "{file}"),), 14),
        Kind("settings", "settings.yaml", "text", (
            ("train", "--config", "{file}", "--data", "{in}/data", "--network", NETWORK, "--out", "{out}/t",
             "--no-report"),
        ), 8),
        Kind("classes to train on", "data/classes.yaml", "text", (_TRAIN,), 3),
    ]  # fmt: skip


def _maps() -> list[Kind]:
    checks: tuple[Command, ...] = (("data", "check", "{copy}"), ("data", "check", "{copy}", "--split=blocks:250/10"))
    files = {"gpkg/labels.gpkg": 8, "geojson/labels.geojson": 8, "fgb/labels.fgb": 5, "shp/labels.shp": 5,
             "shp/labels.dbf": 3, "shp/labels.prj": 3, "gpkg/area.geojson": 3, "gpkg/split.geojson": 3}  # fmt: skip
    kinds = [
        Kind(f"features of a map: {name}", f"maps/{name}", "bytes", checks, weight, f"maps/{name.split('/')[0]}")
        for name, weight in files.items()
    ]
    return [*kinds, Kind("classes of a map", "maps/fgb/classes.yaml", "text", checks, 10, "maps/fgb")]


def _models() -> list[Kind]:
    quantize = (
        "quantize",
        "{file}",
        "--data",
        "{in}/data",
        "--out",
        "{out}/q.onnx",
        "--split=0.5/0.2/0.3",
        "--images=2",
    )
    taught = tuple((*one, "--teacher", "{file}") for one in (_CACHE, _TEACHER))
    recorded = ("predict", "{in}/rasters/photo.png", "--model", "{in}/models/student.onnx", "--out", "{out}/x.png")
    budget = (*_TEACHER, "--teacher", "{in}/runs/teacher", "--measured", "{file}", "--max-size=20KB")
    return [
        Kind("model file", "models/student.onnx", "onnx", _USES, 24),
        Kind("INT8 model file", "models/int8.onnx", "onnx", _USES, 16),
        Kind("model file of another program", "models/other.onnx", "onnx", _USES, 16, is_tried=True),
        Kind("model file, OpenVINO runs it", "models/student.onnx", "onnx",
             tuple((*one, "--runtime=openvino") for one in _USES), 8),
        Kind("model file to quantise", "models/student.onnx", "onnx", (quantize,), 0.7),
        Kind("model file to measure", "models/student.onnx", "onnx",
             (("measure", "{file}", "--save", "{out}/m.json"),), 0.7),
        Kind("model for OpenVINO", "models/other.xml", "bytes", _USES, 3),
        Kind("runtime to use", "models/student.onnx.runtime.json", "text", (recorded,), 8),
        Kind("measurements", "models/measured.json", "text", (budget,), 3),
        Kind("teacher in ONNX", "models/other.onnx", "onnx", taught, 8, is_tried=True),
        Kind("teacher's classes", "palette.yaml", "text", (
            (*_CACHE, "--teacher", "{in}/models/other.onnx", "--teacher-classes", "{file}"),), 5),
        Kind("weights to start from", "runs/teacher/checkpoints/model.safetensors", "safetensors", (
            ("train", "--data", "{in}/data", "--network", "{file}", "--out", "{out}/t", "--no-report", *TRAINING),
        ), 10),
    ]  # fmt: skip


def _runs() -> list[Kind]:
    export: Command = ("export", "{copy}", "--out", "{out}/e.onnx")
    deepness: Command = ("export", "{copy}", "--out", "{out}/e.onnx", "--format=deepness")
    evaluate: Command = ("evaluate", "{copy}")
    resume: Command = (
        "distill", "--data", "{in}/data", "--teacher", "{in}/runs/teacher", "--student", NETWORK, "--out", "{copy}",
        "--resume",        "--no-report", "--no-alone", *TRAINING,
    )  # fmt: skip
    longer = tuple("--epochs=2" if word == "--epochs=1" else word for word in resume)
    prune: Command = (
        "prune",
        "{copy}",
        "--data",
        "{in}/data",
        "--out",
        "{out}/p",
        "--max-size=5KB",
        "--no-report",
        *TRAINING,
    )
    as_teacher: Command = (*_CACHE, "--teacher", "{copy}")
    cached = (*_TEACHER, "--teacher", "{in}/runs/teacher", "--teacher-mode=cached", "--cache", "{copy}")
    again = (
        "predict", "{in}/rasters/long.tif", "--model", "{in}/models/student.onnx", "--out", "{copy}/long.tif",
        "--tile=64", "--overlap=0", "--threads=1", "--confidence", "--resume",
    )  # fmt: skip
    tune: Command = (
        "tune",
        "--data",
        "{in}/data",
        "--teacher",
        "{in}/runs/teacher",
        "--out",
        "{copy}",
        "--trials=1",
        "--cache",
        "{out}/cache",
        *_SHORT,
    )
    run, most = "runs/student", (as_teacher, as_teacher, as_teacher, resume)
    return [
        Kind("settings of a run", f"{run}/config.yaml", "text", (*most, as_teacher, as_teacher), 20, run),
        Kind("weights to prune", f"{run}/checkpoints/model.safetensors", "safetensors", (prune,), 0.5, run),
        Kind("split of a run", f"{run}/split.json", "text", (resume, resume, evaluate), 5, run),
        Kind("training record of a run", f"{run}/training.json", "text", (resume, resume, evaluate), 3, run),
        Kind("results of a run", f"{run}/results.json", "text", (export, deepness), 1.5, run),
        Kind("weights to export", f"{run}/checkpoints/model.safetensors", "safetensors", (export,), 1, run),
        Kind("metrics of a run", f"{run}/metrics.csv", "table", (resume, longer), 5, run),
        Kind("weights of a run", f"{run}/checkpoints/model.safetensors", "safetensors", most, 20, run),
        Kind("checkpoint of a run", f"{run}/checkpoints/resume.pt", "checkpoint", (resume, resume, longer), 14, run),
        Kind("model file of a run", f"{run}/student.onnx", "onnx", (evaluate, resume), 0.7, run),
        Kind("cached logits", "logits/*/*.safetensors", "safetensors", (cached,), 6, "logits"),
        Kind("journal of a prediction", "begun/.unfinished-long.tif/*.unit", "sealed", (again,), 14, "begun"),
        Kind("settings of a journal", "begun/.unfinished-long.tif/settings.json", "text", (again,), 12, "begun"),
        Kind("raster of a journal", "begun/.unfinished-long.tif/*.tif", "tiff", (again,), 5, "begun"),
        Kind("database of a study", "studies/one/study.db", "bytes", (tune,), 4, "studies/one"),
    ]


def _lists() -> list[Kind]:
    photo: Command = ("predict", "{in}/rasters/photo.png", *_MODEL)
    archive: tuple[Command, ...] = (
        (*photo, "--out", "{copy}", "--dask=nowhere"),
        ("status", "{copy}", "--html", "{out}/s.html"),
        (*photo, "--out", "{copy}", "--dask=nowhere", "--stac"),
    )
    return [
        Kind("manifest of an archive", "archive/.skystill/manifest.sqlite", "sqlite", archive, 8, "archive"),
        Kind("cluster to start", "cluster.yaml", "text", ((*photo, "--out", "{out}/x", "--dask-config", "{file}"),), 5),
        Kind("images listed in CSV", "data/list.csv", "table", (("data", "check", "{file}"), _LISTED), 6),
        Kind("images listed in Parquet", "data/list.parquet", "bytes", (("data", "check", "{file}"), _LISTED), 6),
        Kind("images listed in STAC", "data/items.json", "text",
             (("data", "check", "{file}"), _LISTED, (*_LISTED, "--asset=image")), 6),
        Kind("grid of a mosaic", "grid.yaml", "text", (_MOSAIC,), 8),
    ]  # fmt: skip


KINDS: tuple[Kind, ...] = (*_rasters(), *_data(), *_models(), *_runs())
MAP_KINDS = (*_maps(), *_lists())
"""Files of maps, lists of images, and files of archives. Seeds below 0 draw them, so that the cases of all other seeds
stay what they are."""

TEXTS: tuple[tuple[Command, str], ...] = (
    ((*_USES[0][:2], *_MODEL, "--out", "{out}/x.tif", "--bands"), "1,2,3"),
    ((*_USES[0][:2], *_MODEL, "--out", "{out}/x.tif", "--scale"), "0,255"),
    ((*_USES[0][:2], *_MODEL, "--out", "{out}/x.tif", "--min-area"), "20px"),
    ((*_USES[0][:2], *_MODEL, "--out", "{out}/x.tif", "--max-memory"), "300MB"),
    ((*_USES[0][:2], *_MODEL, "--out", "{out}/x.tif", "--resolution"), "0.5"),
    ((*_USES[0][:2], *_MODEL, "--out", "{out}/x.tif", "--tile"), "64"),
    ((*_USES[0][:2], *_MODEL, "--out", "{out}/x.tif", "--vector=geojson", "--square"), "Building,Road"),
    ((*_USES[0][:2], *_MODEL, "--out", "{out}/x.tif", "--vector=geojson", "--simplify"), "2px"),
    ((*_USES[0][:2], *_MODEL, "--out", "{out}/x.tif", "--overlay", "--show"), "3,2,1"),
    ((*_USES[0][:2], "--model", "{in}/models/other.onnx", "--out", "{out}/x.tif", "--input"),
     "values?divide=10000&mean=0.2,0.3,0.1&std=0.1,0.1,1"),
    ((*_USES[0][:2], "--model", "{in}/models/other.onnx", "--out", "{out}/x.tif", "--classes"), "dubai"),
    (("predict", *_MODEL, "--out", "{out}/x", "--threads=1", "--"), "{in}/rasters/ph*.png"),
    (("data", "check", "{in}/data", "--split"), "0.5/0.2/0.3"),
    (("data", "check", "{in}/data", "--bands"), "red,green,blue"),
    (("data", "check", "{in}/data", "--classes"), "dubai"),
    (("data", "check"), "{in}/data"),
    ((*_TRAIN, "--network"), "unet?channels=4&depth=2"),
    ((*_TRAIN, "--learning-rate"), "0.001"),
    ((*_TRAIN, "--limit-images"), "2"),
    ((*_CACHE, "--teacher"), "{in}/models/other.onnx?input=0..1"),
    ((*_CACHE, "--teacher"), "torchvision:fcn?classes=3&weights={in}/palette.yaml"),
    ((*_CACHE, "--teacher"), "smp:UNET/resnet18?classes=3&weights={in}/palette.yaml"),
    ((*_CACHE, "--teacher"), "hf:{in}/runs/teacher"),
    ((*_CACHE, "--teacher", "{in}/models/other.onnx", "--teacher-classes"), "red,green,dark"),
    ((*_CACHE, "--teacher", "{in}/runs/teacher", "--share"), "1/2"),
    ((*_TEACHER, "--teacher", "{in}/runs/teacher", "--distillation-loss"), "kl+0.5*pkd"),
    ((*_TEACHER, "--teacher", "{in}/runs/teacher", "--max-latency"), "40ms/MP"),
    ((*_TEACHER, "--teacher", "{in}/runs/teacher", "--student-layer"), "encoder.0"),
    (("export", "{in}/runs/student", "--out"), "{out}/x.onnx"),
    (("tune", "--data", "{in}/data", "--teacher", "{in}/runs/teacher", "--out", "{out}/s",
      "--trials=1", "--cache", "{out}/cache", *_SHORT, "--storage"), "sqlite:///{out}/s.db"),
)  # fmt: skip
"""Options that are given as text: the command up to the text, and a sound text."""

"""What is opened (docs/opening.md), compared with the loaders of teachers and with every call in the code."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from skystill.train.teachers.loaders.table import LOADERS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/skystill"
PAGE = (ROOT / "docs/opening.md").read_text(encoding="utf-8")

OPENERS = frozenset(
    {
        "rasterio.open", "DatasetReader", "MemoryFile", "Image.open", "JpegImagePlugin.JpegImageFile",
        "TiffImagePlugin.ImageFileDirectory_v2", "ElementTree.fromstring", "ElementTree.parse", "yaml.parse",
        "json.load", "json.loads", "csv.reader", "ParquetFile", "safe_open", "load_file", "torch.load",
        "torch.export.load", "zipfile.ZipFile",
        "ort.InferenceSession", "onnx.load", "openvino.compile_model", "keras.saving.load_model",
        "transformers.AutoModelForSemanticSegmentation.from_pretrained", "mmap.mmap", "np.frombuffer", "np.fromfile",
        "ast.literal_eval", "optuna.create_study", "optuna.load_study", "pyogrio.raw.read", "pyogrio.read_info",
        "pyogrio.list_layers", "sqlite3.connect", "ctypes.CDLL",
    }
)  # fmt: skip
"""Calls that read a file or text of others. One that is used must be in the table."""

ALIASES = {"onnxruntime.InferenceSession": "ort.InferenceSession", "core.compile_model": "openvino.compile_model"}

FORBIDDEN = re.compile(
    r"^(pickle|dill|cloudpickle|joblib|marshal|shelve|cv2|tifffile|imageio|h5py|tarfile)\.|^eval$|^exec$|^__import__$|"
    r"^np\.(load|memmap|loadtxt|genfromtxt)$|^yaml\.(load|unsafe_load|full_load)$|^torch\.(jit|hub|package)\.|"
    r"^(os\.system|os\.popen)$|register_custom_ops_library|enable_unsafe_deserialization"
)
"""Calls that can run what a file holds, or that open any kind of file by its content."""


@cache
def calls() -> tuple[tuple[Path, str, ast.Call], ...]:
    """Every call in the package: file, name of what is called, and the call."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                found.append((path.relative_to(PACKAGE), ALIASES.get(name, name), node))
    return tuple(found)


def called(name: str) -> Iterator[tuple[Path, ast.Call]]:
    found = [(path, node) for path, one, node in calls() if one == name]
    assert found, name
    yield from found


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(cells: Iterable[str]) -> list[str]:
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def missing_loaders(loaders: Iterable[str]) -> set[str]:
    return set(loaders) ^ set(named(row[0] for row in rows("Teachers")))


def test_every_loader_has_a_line() -> None:
    assert not missing_loaders(LOADERS)
    assert missing_loaders([*LOADERS, "tflite"]) == {"tflite"}
    assert missing_loaders(set(LOADERS) - {"hf"}) == {"hf"}


def test_every_suffix_of_a_loader_is_in_its_line() -> None:
    lines = {loader: row for row in rows("Teachers") for loader in named(row[:1])}
    for name, loader in LOADERS.items():
        assert set(loader.suffixes) <= set(named(lines[name][1:2])), name


def test_every_opener_in_the_code_is_in_the_table_and_the_other_way_round() -> None:
    listed = set(named(row[2] for row in rows("Teachers")))
    listed |= set(
        named(row[1] for heading in ("Rasters, images and masks", "Everything else") for row in rows(heading))
    )
    used = {name for _, name, _ in calls()} & OPENERS
    assert used == listed - {".safetensors"}


def test_nothing_is_opened_in_a_way_that_can_run_it() -> None:
    assert [(str(path), name) for path, name, _ in calls() if FORBIDDEN.search(name)] == []
    for bad in (
        "pickle.loads",
        "eval",
        "np.load",
        "yaml.load",
        "torch.jit.load",
        "cv2.imread",
        "options.register_custom_ops_library",
    ):
        assert FORBIDDEN.search(bad), bad
    for good in ("network.eval", "np.frombuffer", "yaml.safe_load", "pyogrio.raw.write"):
        assert not FORBIDDEN.search(good), good


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("torch.load", "weights_only", "True"),
        ("Image.open", "formats", "PICTURE_FORMATS"),
        ("DatasetReader", "driver", "list(drivers)"),
        ("keras.saving.load_model", "safe_mode", "True"),
        ("keras.saving.load_model", "compile", "False"),
        ("transformers.AutoModelForSemanticSegmentation.from_pretrained", "use_safetensors", "True"),
        ("transformers.AutoModelForSemanticSegmentation.from_pretrained", "trust_remote_code", "False"),
        ("transformers.AutoModelForSemanticSegmentation.from_pretrained", "local_files_only", "True"),
    ],
)
def test_the_mode_is_that_of_the_table(name: str, argument: str, value: str) -> None:
    for path, node in called(name):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert given.get(argument) == value, (path, node.lineno)


def test_vectors_are_opened_in_one_place_after_a_look_at_their_content() -> None:
    readers = {(str(path), name) for path, name, _ in calls() if re.search(r"^pyogrio\..*(read|list_layers)", name)}
    assert {path for path, _ in readers} == {"data/vectors.py"}
    assert {name for _, name in readers} <= OPENERS
    source = (PACKAGE / "data/vectors.py").read_text(encoding="utf-8")
    opened = source.split("def list_layers")[1].split("\ndef ")[0]  # a Layer comes from here only
    assert opened.index("check_vector(path)") < opened.index("pyogrio.list_layers")
    (looked,) = (node for path, node in called("sqlite3.connect") if str(path) == "data/vector_files.py")
    assert "mode=ro" in ast.unparse(looked.args[0])


def test_rasters_are_opened_in_one_place() -> None:
    assert {str(path) for path, _ in called("DatasetReader")} == {"raster/opening.py"}
    for path, node in called("rasterio.open"):
        assert [ast.unparse(value) for value in node.args[1:]] == ["'w'"], (path, node.lineno)
        assert "driver" in {keyword.arg for keyword in node.keywords}, (path, node.lineno)

"""The walls of the house: what imports what, how large a room may be, what the package shows to the outside."""

import ast
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
import yaml

from skystill.cli import app

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/skystill"


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_everything_outside_train_loads_no_torch() -> None:
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    outside = sorted(name for name in names if not name.startswith("skystill.train"))
    assert {"skystill", "skystill.cli.commands", "skystill.predict.polygons"} < set(outside) < set(names)
    done = python(
        f"import importlib, sys\nfor name in {outside}:\n    importlib.import_module(name)\n"
        "    heavy = {'torch', 'lightning_fabric', 'torchmetrics'} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)\n"
    )
    assert done.returncode == 0, done.stderr


def test_help_needs_nothing_heavy() -> None:
    done = python(
        "import sys; sys.argv = ['skystill', '--help']\nimport skystill.cli.commands\n"
        "try: skystill.cli.commands.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'onnxruntime', 'rasterio', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^[^\w-]*([a-z]+) ", done.stdout, re.MULTILINE))
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert commands and commands <= listed
    assert {"data", "train", "distill", "evaluate", "demo", "networks", "predict"} <= commands


# ---- contracts of import-linter


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package with the project's own contracts."""
    shutil.copytree(PACKAGE, tmp_path / "src/skystill", ignore=shutil.ignore_patterns("__pycache__", "*.onnx"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(house: Path) -> tuple[int, str]:
    """Exit code and output of lint-imports on a copy."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"],
        cwd=house, env=os.environ | {"PYTHONPATH": str(house / "src"), "COLUMNS": "200"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_package_keeps_its_contracts(house: Path) -> None:
    code, said = lint_imports(house)
    assert code == 0, said
    assert re.search(r"Contracts: [2-9] kept, 0 broken", said)


@pytest.mark.parametrize(
    ("module", "content", "broken"),
    [
        # torch outside of train, also where it is imported inside a function, and through a part of torch
        ("predict/extra.py", "import torch\n", r"skystill\.predict\.extra (is not allowed to import|->) torch"),
        (
            "cli/extra.py",
            "def run():\n    import torch.nn\n",
            r"skystill\.cli\.extra (is not allowed to import|->) torch",
        ),
        ("settings/extra.py", "from lightning_fabric import Fabric\n", r"skystill\.settings\.extra .*lightning_fabric"),
        ("report/extra/__init__.py", "import torch_pruning\n", r"skystill\.report\.extra .*torch_pruning"),
        # a room that has no place in the layers
        ("extra.py", "", r"not listed as layers:\s+- skystill\.extra"),
        ("utils/__init__.py", "", r"not listed as layers:\s+- skystill\.utils"),
        # upwards
        (
            "raster/extra.py",
            "from skystill.predict import Predictor\n",
            r"skystill\.raster\.extra -> skystill\.predict",
        ),
        ("model/extra.py", "import skystill.report.metrics\n", r"skystill\.model\.extra -> skystill\.report\.metrics"),
        ("train/extra.py", "from skystill.cli import app\n", r"skystill\.train\.extra -> skystill\.cli"),
    ],
)
def test_a_module_that_breaks_a_contract_is_named(house: Path, module: str, content: str, broken: str) -> None:
    path = house / "src/skystill" / module
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    code, said = lint_imports(house)
    assert code == 1, said
    assert re.search(broken, said), said


def test_a_module_that_breaks_none_is_let_in(house: Path) -> None:
    (house / "src/skystill" / "train/extra.py").write_text("import torch\nfrom skystill.predict import Predictor\n")
    code, said = lint_imports(house)
    assert code == 0, said


# ---- sizes


def functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Name, lines from the first decorator to the end, and parameters without self and cls, of each function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            begins = min(line.lineno for line in (node, *node.decorator_list))
            given = node.args
            parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            own = [one for one in (*parameters, given.vararg, given.kwarg) if one and one.arg not in ("self", "cls")]
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - begins + 1, len(own)


SOURCES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def test_functions_are_measured_from_the_decorator_to_the_end() -> None:
    source = (
        "class A:\n    @property\n    @cache\n    def one(self):\n        return 1\n\n"
        "    @classmethod\n    def two(cls, a, /, b, *c, d=1, **e):\n        async def three(x): pass\n"
    )
    assert list(functions(source)) == [("one", 4, 0), ("two", 3, 5), ("three", 1, 1)]


def test_files_are_short() -> None:
    lengths = {name: len(source.splitlines()) for name, source in SOURCES.items()}
    assert len(lengths) > 50
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}
    assert statistics.median(lengths.values()) <= 160


def too_large(is_so: Callable[[int, int], bool]) -> list[str]:
    found = [(path, *one) for path, source in SOURCES.items() for one in functions(source)]
    assert len(found) > 500
    return [
        f"{path}: {name}, {lines} lines, {given} parameters"
        for path, name, lines, given in found
        if is_so(lines, given)
    ]


def test_functions_are_short() -> None:
    assert too_large(lambda lines, parameters: lines > 60) == []


def test_functions_take_few_parameters() -> None:
    assert too_large(lambda lines, parameters: parameters > 7) == []


# ---- what the package shows


def test_the_public_face_is_exact() -> None:
    import skystill
    import skystill.train

    assert skystill.__all__ == ["__version__", "predict_dataarray"]
    assert not hasattr(skystill, "predict_rasters")
    assert skystill.train.__all__ == ["Distiller", "Supervised"]


def test_the_readme_names_the_two_commands_on_its_first_screen() -> None:
    first = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40])
    assert "make demo" in first
    assert "make test" in first
    assert "docs/images/" in first


def test_the_constraints_pin_every_direct_requirement() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [name for group in groups for name in group if not name.startswith("skystill[")]  # an extra of our own
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert len(wanted) > 20
    assert [name for name in (re.split(r"[^\w.-]", w)[0].lower() for w in wanted) if name not in pinned] == []


def test_settings_docstrings_are_help() -> None:
    from skystill.settings import DemoSettings, DistillSettings, EvaluateSettings, TrainSettings

    for kind in (TrainSettings, DistillSettings, EvaluateSettings, DemoSettings):
        assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_settings_go_through_yaml_and_back() -> None:
    from skystill.settings import DistillSettings

    settings = DistillSettings(data=Path("d"), out=Path("o"), teacher=["t", "u"], alpha=0.25, student="kite")
    again = DistillSettings(**yaml.safe_load(yaml.safe_dump(settings.to_config())))
    assert again == settings
    assert (again.data, again.teacher, again.alpha, again.student) == (Path("d"), ["t", "u"], 0.25, "kite")

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_package_and_its_command_loads_no_torch() -> None:
    done = python(
        "import skystill, skystill.cli.commands, skystill.report.results, skystill.report.page, skystill.cli.demo, sys;"
        "heavy = {'torch', 'lightning_fabric', 'torchmetrics'} & set(sys.modules); assert not heavy, heavy"
    )
    assert done.returncode == 0, done.stderr


def test_help_needs_nothing_heavy() -> None:
    done = python(
        "import sys; sys.argv = ['skystill', '--help']\nimport skystill.cli.commands\n"
        "try: skystill.cli.commands.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'onnxruntime', 'rasterio', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    assert done.returncode == 0, done.stderr
    for verb in ("data", "train", "distill", "evaluate", "demo", "networks"):
        assert verb in done.stdout


def test_the_public_face_is_exact() -> None:
    import skystill.train

    assert skystill.__all__ == ["__version__"]
    assert skystill.train.__all__ == ["Distiller", "Supervised"]


def test_the_readme_names_the_two_commands_on_its_first_screen() -> None:
    first = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40])
    assert "make demo" in first
    assert "make test" in first
    assert "docs/images/" in first


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/results.md"]
)
def test_links_to_files_are_alive(name: str) -> None:
    import re

    page = ROOT / name
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_constraints_pin_every_direct_requirement() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [name for group in groups for name in group]
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert [name for name in (w.split(">")[0].lower() for w in wanted) if name not in pinned] == []


def test_settings_docstrings_are_help() -> None:
    from skystill.settings import DemoSettings, DistillSettings, EvaluateSettings, TrainSettings

    for kind in (TrainSettings, DistillSettings, EvaluateSettings, DemoSettings):
        assert [name for name, field in kind.model_fields.items() if not field.description] == []
    assert yaml.safe_dump(DistillSettings(data=Path("d"), out=Path("o"), teacher=Path("t")).to_config())

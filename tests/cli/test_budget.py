import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from skystill.data.scenes import SCENE_CLASSES
from skystill.errors import DataError, SettingsError
from skystill.progress import ignore_progress
from skystill.raster.input_spec import RGB
from skystill.settings import DistillSettings
from skystill.train.compress import budget as budget_module
from skystill.train.compress.budget import Budget, choose_student
from skystill.train.networks.table import FAMILY, build_network
from skystill.train.runs import within_budget
from tests.cli.conftest import TINY, Done
from tests.model_cost import cost

Cli = Callable[..., Done]


def figures(path: Path) -> Path:
    """As `skystill measure --save` writes them: each student ten times as slow as the one before."""
    costs = [
        asdict(cost(network=name, precision=precision, latency_ms_per_mp=float(10**rank), peak_rss_bytes=100_000_000,
                    size_bytes=50_000 * (rank + 1)))
        for rank, name in enumerate(FAMILY) for precision in ("int8", "float32")
    ]  # fmt: skip
    path.write_text(json.dumps({"models": costs}))
    return path


def choose(tmp_path: Path, **budget: str) -> DistillSettings:
    settings = DistillSettings(
        data=tmp_path,
        out=tmp_path,
        teacher=["t"],
        measured=figures(tmp_path / "m.json"),
        **budget,  # type: ignore[arg-type]
    )
    return choose_student(settings, SCENE_CLASSES, RGB, ignore_progress)


def test_the_most_capable_that_fits_is_taken(tmp_path: Path) -> None:
    assert choose(tmp_path, max_latency="1500ms/MP").student == "kite"
    assert choose(tmp_path, max_latency="1000").student == "kite"
    assert choose(tmp_path, max_latency="1000000ms").student == "lite"
    assert choose(tmp_path, max_latency="100000ms").student == "swift"
    assert choose(tmp_path, max_size="170KB", max_latency="5000ms/MP").student == "kite-small"


def test_figures_of_another_runtime_do_not_count(tmp_path: Path) -> None:
    """`measure --choose` writes both, and `predict` takes ONNX Runtime."""
    costs = [
        asdict(cost(network="kite", precision="int8", latency_ms_per_mp=latency, runtime=runtime))
        for latency, runtime in ((80.0, "onnxruntime"), (40.0, "openvino"))
    ]
    (tmp_path / "m.json").write_text(json.dumps({"models": costs}))
    settings = DistillSettings(
        data=tmp_path, out=tmp_path, teacher=["t"], measured=tmp_path / "m.json", max_latency="50ms/MP"
    )
    with pytest.raises(SettingsError, match=r"kite needs .*80"):
        choose_student(settings, SCENE_CLASSES, RGB, ignore_progress)


@pytest.mark.parametrize("name", ["latency_ms_per_mp", "peak_rss_bytes", "size_bytes"])
@pytest.mark.parametrize("value", ["12", None, True, [1]])
def test_figures_that_are_no_numbers_are_refused(name: str, value: object, tmp_path: Path) -> None:
    costs = [{**asdict(cost(network="kite", precision="int8")), name: value}]
    (tmp_path / "m.json").write_text(json.dumps({"models": costs}))
    with pytest.raises(DataError, match=f"{name} is .*, not a number"):
        budget_module.read_measured(tmp_path / "m.json")


def test_figures_of_lite_alone_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skystill.train.networks.imagenet.find_spec", lambda name: None)
    costs = [asdict(cost(network="lite", precision="int8"))]
    (tmp_path / "m.json").write_text(json.dumps({"models": costs}))
    settings = DistillSettings(data=tmp_path, out=tmp_path, teacher=["t"], measured=tmp_path / "m.json", max_size="9MB")
    with pytest.raises(SettingsError, match="no figures of a student that can be trained here"):
        choose_student(settings, SCENE_CLASSES, RGB, ignore_progress)


def test_lite_is_left_out_without_the_package_of_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skystill.train.networks.imagenet.find_spec", lambda name: None)
    assert choose(tmp_path, max_latency="1000000ms").student == "swift"
    settings = DistillSettings(
        data=tmp_path, out=tmp_path, teacher=["t"], measured=tmp_path / "m.json", max_size="1MB", from_scratch=True
    )
    assert choose_student(settings, SCENE_CLASSES, RGB, ignore_progress).student == "lite"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"logger": ["wandb"]}, "--logger wandb"),
        ({"teacher_weight": [1.0, 2.0]}, "1 teacher.s., but 2 --teacher-weight"),
        ({"mix": "cutmix", "batch_size": 1}, "is too small for that"),
    ],
)
def test_settings_are_checked_before_anything_is_measured(
    wrong: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is not even data here."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings = {"data": tmp_path / "none", "out": tmp_path / "run", "teacher": ["t"], "max_latency": "20"}
    with pytest.raises(SettingsError, match=said):
        within_budget(DistillSettings.model_validate(settings | wrong))


def test_what_the_nearest_needs_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nearest, kite-nano needs 100.0 MB of memory instead of 60"):
        choose(tmp_path, max_memory="60MB")
    (tmp_path / "m.json").write_text("{}")
    settings = DistillSettings(data=tmp_path, out=tmp_path, teacher=["t"], measured=tmp_path / "m.json", max_size="1MB")
    with pytest.raises(DataError, match=r"m.json holds no figures of skystill measure --save"):
        choose_student(settings, SCENE_CLASSES, RGB, ignore_progress)


def test_a_budget_names_what_is_broken() -> None:
    found = cost(latency_ms_per_mp=30.0, peak_rss_bytes=150_000_000, size_bytes=90_000)
    assert Budget(30.0, 150_000_000, 90_000).violations(found) == []
    assert Budget(20.0, None, 80_000).violations(found) == [
        "30.0 ms per megapixel instead of 20", "90.0 kB of file instead of 80",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_distilled_student_keeps_its_size(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = (
        "kite?channels=(16,)&blocks=(1,)",
        "kite?channels=(24,)&blocks=(1,)",
    )  # quick to export
    monkeypatch.setattr(budget_module, "FAMILY", two)
    shared = [f"--data={scenes}", f"--teacher={teacher}", "--epochs=1", "--no-alone", "--no-report", *TINY]
    done = skystill("distill", *shared, f"--out={tmp_path / 's'}", "--max-size=25KB", "--max-memory=2GB")
    assert done.code == 0, done.err
    config = yaml.safe_load((tmp_path / "s/config.yaml").read_text())
    assert config["student"] == two[0] and config["max_size"] == 25_000
    assert "the budget is kept" in done.err
    assert (tmp_path / "s/student-int8.onnx").stat().st_size <= 25_000
    again = skystill("distill", *shared, f"--out={tmp_path / 's'}", "--max-size=25KB", "--max-memory=2GB", "--resume")
    assert again.code == done.code, again.err
    done = skystill("distill", *shared, f"--out={tmp_path / 'no'}", "--max-latency=wide")
    assert done.code == 2 and "40ms/MP" in done.err


def test_the_nearest_is_the_one_that_exceeds_the_budget_least(tmp_path: Path) -> None:
    costs = [
        asdict(cost(network=name, precision="int8", latency_ms_per_mp=latency, runtime="onnxruntime"))
        for name, latency in (("kite", 90.0), ("kite-tiny", 40.04), ("kite-nano", 75.0))
    ]
    (tmp_path / "m.json").write_text(json.dumps({"models": costs}))

    def choose_within(limit: str) -> DistillSettings:
        measured = tmp_path / "m.json"
        settings = DistillSettings(data=tmp_path, out=tmp_path, teacher=["t"], measured=measured, max_latency=limit)
        return choose_student(settings, SCENE_CLASSES, RGB, ignore_progress)

    with pytest.raises(SettingsError, match=r"kite-tiny needs 40\.1 ms per megapixel instead of 40") as refused:
        choose_within("40ms/MP")
    assert "Allow that much" in str(refused.value)
    assert choose_within("40.1ms/MP").student == "kite-tiny"


@pytest.mark.parametrize("name", ["kite-tiny", "swift-small", "lite"])
def test_an_untrained_student_has_the_file_of_a_trained_one(name: str) -> None:
    """What is zero before a training, such as the biases of BatchNorm, is left out of an exported file."""

    def size(network: nn.Module) -> int:
        with budget_module.int8_file(name, network, SCENE_CLASSES) as (_, made):
            return made.stat().st_size

    network = build_network(name, len(SCENE_CLASSES), RGB).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(2):
        network(255 * torch.rand(2, 3, 64, 64)).square().mean().backward()
        optimizer.step()
    untrained = budget_module._without_zeros(build_network(name, len(SCENE_CLASSES), RGB))
    assert size(untrained) == pytest.approx(size(network.eval()), rel=2e-3)

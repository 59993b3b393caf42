from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from skystill.model.file import open_session, read_info
from skystill.train.networks.table import count_parameters
from skystill.train.networks.weights import read_network
from tests.cli.conftest import TINY, Done

Cli = Callable[..., Done]
pytestmark = pytest.mark.slow


def test_prune_keeps_its_budget_and_goes_on(scenes: Path, tmp_path: Path, skystill: Cli) -> None:
    """A real run of the smallest network: measured, cut, distilled from what it was, quantised, measured again."""
    shared = [f"--data={scenes}", "--epochs=1", "--no-report", *TINY]
    whole = tmp_path / "whole"
    done = skystill("train", *shared, f"--out={whole}", "--network=kite?channels=(32,)&blocks=(1,)")
    assert done.code == 0, done.err
    out = tmp_path / "pruned"
    flags = [whole, *shared, f"--out={out}", "--max-size=45KB"]
    done = skystill("prune", *flags)
    assert done.code == 0, done.err
    assert "too much" in done.err and "weights: the budget is kept" in done.err
    before, (after, about) = read_network(whole / "checkpoints/model.safetensors")[0], read_network(
        out / "checkpoints/model.safetensors"
    )  # fmt: skip
    assert count_parameters(after) < count_parameters(before) and about.network.startswith("pruned kite")
    assert yaml.safe_load((out / "config.yaml").read_text())["teacher"] == [str(whole)]
    info = read_info(open_session(out / "student.onnx"), out / "student.onnx")
    assert info.parameters == count_parameters(after) and info.network.startswith("pruned kite")
    assert "\nthe budget is kept" in done.err  # measured after training, not only while it was pruned
    assert (out / "student-int8.onnx").stat().st_size <= 45_000

    again = skystill("prune", *flags)
    assert again.code == 2 and "holds a run" in again.err
    again = skystill("prune", *flags, "--resume", "--max-size=44KB")
    assert again.code == 2 and "with another run or budget" in again.err
    again = skystill("prune", whole, *shared, f"--out={tmp_path / 'no'}")
    assert again.code == 2 and "say what the pruned network may cost" in again.err
    assert not (tmp_path / "no").exists()

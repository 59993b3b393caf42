"""Runs that begin with weights of the package."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from skystill.train.networks.shipped import shipped_file
from skystill.train.networks.weights import read_record
from tests.cli.conftest import TINY, Done

FIRST = "levels.0.0.0.0.weight"


@pytest.mark.slow
def test_a_run_that_begins_with_them(scenes: Path, tmp_path: Path, skystill: Callable[..., Done]) -> None:
    out = tmp_path / "t"
    flags = ["train", f"--data={scenes}", f"--out={out}", "--network=swift-small?weights=dubai", "--no-report", *TINY]
    refused = skystill(*flags, "--epochs=1", "--from-scratch")
    assert refused.code == 2 and "swift-small?weights=dubai has weights" in refused.err
    done = skystill(*flags, "--epochs=2", "--freeze=1")
    assert done.code == 0, done.err
    weights = out / "checkpoints/model.safetensors"
    record, trained = read_record(weights), load_file(weights)
    assert record.network == "swift-small" and not record.pretrained
    assert torch.equal(trained[FIRST], load_file(shipped_file("swift-small", "dubai"))[FIRST].float())  # frozen
    again = skystill(*flags, "--epochs=2", "--freeze=1", "--resume")
    assert again.code == 0 and load_file(weights).keys() == trained.keys()


@pytest.mark.slow
def test_a_distillation_that_begins_with_them_compares_with_a_student_that_does_too(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Callable[..., Done]
) -> None:
    out = tmp_path / "s"
    flags = ["distill", f"--data={scenes}", f"--teacher={teacher}", "--student=swift-small?weights=dubai", *TINY]
    done = skystill(*flags, f"--out={out}", "--epochs=1", "--feature-epochs=1")
    assert done.code == 0, done.err
    assert "network: swift-small?weights=dubai" in (out / "alone/config.yaml").read_text()

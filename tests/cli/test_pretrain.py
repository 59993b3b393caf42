import re
from collections.abc import Callable
from pathlib import Path

import pytest

from skystill.report.records import read_results
from skystill.run_folder import RunFolder
from tests.cli.conftest import TINY, Done, process

Cli = Callable[..., Done]


@pytest.mark.slow
def test_a_student_is_pretrained_and_a_training_starts_from_it(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli
) -> None:
    student = "swift?channels=(8,8,16)&blocks=(0,1,1)&up_blocks=(1,1)"
    flags = [f"--teacher={teacher}", f"--data={scenes}", "--crop=64", "--batch-size=2", "--crops-per-image=1", TINY[3]]
    done = skystill("pretrain", *flags, f"--student={student}", f"--out={tmp_path / 'p'}", "--epochs=2")
    assert done.code == 0, done.err
    assert "6 image(s) and windows to learn from, 6 held out" in done.err
    assert re.findall(r": epoch +(\d)  loss", done.err) == ["1", "2"]
    assert "mIoU" not in done.err
    again = skystill("pretrain", *flags, f"--student={student}", f"--out={tmp_path / 'p'}", "--epochs=2", "--resume")
    assert again.code == 0, again.err
    weights = tmp_path / "p/checkpoints/model.safetensors"
    train = ["train", f"--data={scenes}", f"--network={weights}", f"--out={tmp_path / 't'}", "--epochs=1"]
    done = skystill(*train, "--no-report", *TINY)
    assert done.code == 0, done.err


@pytest.mark.slow
def test_a_distillation_that_begins_with_the_features_of_its_teacher(
    scenes: Path, teacher: Path, tmp_path: Path
) -> None:
    """The report says what the student alone had instead, which trained as long."""
    out, student = tmp_path / "s", "swift?channels=(8,8,16)&blocks=(0,1,1)&up_blocks=(1,1)"
    shared = [f"--data={scenes}", f"--teacher={teacher}", "--crop=64", "--crops-per-image=2", TINY[3], "--seed=3"]
    fitted = ["distill", *shared, "--batch-size=4", "--epochs=3"]
    done = process(*fitted, f"--student={student}", f"--out={out}", "--feature-epochs=2")
    assert done.code == 0, done.err
    assert re.findall(r" learns from .*: epoch +(\d)  loss", done.err) == ["1", "2"]
    assert "start from it" not in done.out
    line = r"in 2 passes .*; the student alone was given (\d+) epochs on labels instead of 3, for the same time"
    said = re.search(line, done.out.replace("\n", " "))
    assert said is not None and int(said[1]) >= 3
    assert len((out / "alone/metrics.csv").read_text().splitlines()) == 1 + int(said[1])
    results = read_results(RunFolder(out))
    assert {role: one.training.feature_epochs for role, one in results.models.items()} == {
        "teacher": 0, "student": 2, "alone": 0
    }  # fmt: skip

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import TINY, Done

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

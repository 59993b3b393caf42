"""A teacher that must be trusted: the commands refuse it, and hand the user's word on to the processes they start."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.cli.conftest import TINY, Done

pytestmark = pytest.mark.slow


class Small(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


@pytest.fixture
def program(scenes: Path, tmp_path: Path) -> Path:
    from skystill.data.scenes import SCENE_CLASSES

    sizes = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    made = torch.export.export(Small(len(SCENE_CLASSES)), (torch.zeros(1, 3, 64, 64),), dynamic_shapes=sizes)
    torch.export.save(made, tmp_path / "t.pt2")
    return tmp_path / "t.pt2"


def test_a_program_is_loaded_only_with_the_users_word(
    skystill: Callable[..., Done], scenes: Path, program: Path, tmp_path: Path
) -> None:
    data = ["--data", scenes, "--teacher", program, "--no-trust-teacher"]
    commands = {
        "distill": ["--out", tmp_path / "s", "--epochs=1", *TINY],
        "cache": ["--cache", tmp_path / "c", "--split=0.5/0.1/0.4"],
    }
    for verb, flags in commands.items():
        done = skystill(verb, *data, *flags)
        assert done.code == 2 and "can run code" in done.err + done.out, (verb, done)
        assert "Traceback" not in done.err
    trusted = ["--trust-teacher" if flag == "--no-trust-teacher" else flag for flag in data]
    for mode in ("online", "cached"):  # cached fills the cache in a process of its own
        flags = ["--out", tmp_path / mode, "--epochs=1", "--student=two-level", "--no-alone", "--no-report", *TINY]
        done = skystill("distill", *trusted, f"--teacher-mode={mode}", *flags)
        assert done.code == 0, (mode, done)
        assert "trust_teacher: true" in (tmp_path / mode / "config.yaml").read_text()

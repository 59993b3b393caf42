"""`skystill cache` on several machines: each does its share of the images."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Done

Cli = Callable[..., Done]
pytestmark = pytest.mark.slow


def fill(skystill: Cli, scenes: Path, teacher: Path, cache: Path, *flags: str) -> Done:
    return skystill(
        "cache", "--data", scenes, "--teacher", teacher / "model.onnx", "--cache", cache, "--split=0.5/0.1/0.4", *flags
    )


def logits(cache: Path) -> dict[str, bytes]:
    return {str(path.relative_to(cache)): path.read_bytes() for path in cache.rglob("*.safetensors")}


def test_the_shares_together_are_the_whole_and_no_image_is_done_twice(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli
) -> None:
    for name, share in (("whole", "1/1"), ("first", "1/2"), ("second", "2/2")):
        done = fill(skystill, scenes, teacher, tmp_path / name, f"--share={share}")
        assert done.code == 0, done.err
    whole, first, second = (logits(tmp_path / name) for name in ("whole", "first", "second"))
    assert (len(whole), len(first), len(second)) == (6, 3, 3)
    assert not first.keys() & second.keys()
    assert first | second == whole  # to the byte

    fill(skystill, scenes, teacher, tmp_path / "default")
    assert logits(tmp_path / "default") == whole


def test_shares_fill_one_folder_and_what_is_there_stays(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli
) -> None:
    cache = tmp_path / "logits"

    def written() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}

    sizes = []
    before: dict[str, int] = {}
    for share in ("1/4", "1/2", "2/4", "1/1", "2/2"):
        done = fill(skystill, scenes, teacher, cache, f"--share={share}")
        assert done.code == 0, done.err
        now = written()
        assert before.items() <= now.items()
        sizes.append(len(now) - len(before))
        before = now
    # of images 0 to 5: 0 and 4; of 0, 2 and 4 the second; 1 and 5; of all, the fourth; nothing
    assert sizes == [2, 1, 2, 1, 0]


@pytest.mark.parametrize("share", ["0/2", "3/2", "0/0", "1/0", "-1/2", "1", "half", "1/2/3", "1.5/2"])
def test_a_share_that_cannot_be_is_refused(
    share: str, scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli
) -> None:
    done = fill(skystill, scenes, teacher, tmp_path / "logits", f"--share={share}")
    assert done.code == 2
    assert f"--share {share}: " in " ".join(done.err.split())
    assert not (tmp_path / "logits").exists()

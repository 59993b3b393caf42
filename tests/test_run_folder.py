import errno
import os
from pathlib import Path

import pytest

from skystill.errors import DiskFull, RunFolderError
from skystill.raster.steps import remove_parts
from skystill.run_folder import RunFolder, hold_output, write_json, write_table, written_whole


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with written_whole(path) as part:
        part.write_text("hello")
        assert part.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "hello"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with written_whole(path) as part:
            part.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with written_whole(tmp_path / "a.txt") as part:
            part.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFull, match=r"a\.txt: No space left on device\. Make room"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_real_full_disk(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def fail() -> None:
        with written_whole(tmp_path / "a.txt") as part:
            part.symlink_to("/dev/full")
            part.write_text("x" * 100_000)

    with pytest.raises(DiskFull, match="No space left on device"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_run_begins_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start({"seed": 1}, resume=False)
    with pytest.raises(RunFolderError, match=r"holds a run\. Go on with it by --resume"):
        folder.start({"seed": 1}, resume=False)
    folder.start({"seed": 1}, resume=True)
    folder.start({"seed": 1, "logger": ["mlflow"]}, resume=True)  # and without it, if its server is gone
    with pytest.raises(RunFolderError, match="seed was 1, is now 2"):
        folder.start({"seed": 2}, resume=True)


def test_a_run_of_an_earlier_version_goes_on_without_later_settings(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").start({"epochs": 3}, resume=False)
    RunFolder(tmp_path / "run").start({"epochs": 3, "fit_masks": False, "later": None}, resume=True)
    with pytest.raises(RunFolderError, match="fit_masks was None, is now True"):
        RunFolder(tmp_path / "run").start({"epochs": 3, "fit_masks": True}, resume=True)


def test_a_resume_before_the_beginning_begins(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start({"seed": 1}, resume=True)
    assert folder.read_config() == {"seed": 1}


def test_a_strangers_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunFolderError, match="is not empty and holds no run"):
        RunFolder(tmp_path).start({}, resume=False)


def test_leftovers_of_a_killed_run_go(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start({"seed": 1}, resume=False)
    left = tmp_path / "checkpoints" / ".part-1-resume.pt"
    left.parent.mkdir()
    left.write_bytes(b"half")
    folder.start({"seed": 1}, resume=True)
    assert not left.exists()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked(), pytest.raises(RunFolderError, match="is in use"), RunFolder(tmp_path).locked():
        pass
    with RunFolder(tmp_path).locked():
        pass


def test_damaged_files_name_themselves(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        folder.read_config()
    folder.config.write_text("{")
    with pytest.raises(RunFolderError, match=r"config\.yaml is damaged"):
        folder.read_config()
    with pytest.raises(RunFolderError, match=r"results\.json is missing"):
        folder.read_json(folder.results)
    folder.results.write_text("{")
    with pytest.raises(RunFolderError, match=r"results\.json is damaged"):
        folder.read_json(folder.results)


def test_tables_and_json(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "a.csv").read_text().splitlines() == ["epoch,loss", "1,0.5", "2,0.25"]
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path) -> None:
    for name in (".part-12-page.html", ".part-12-page.html.txt", ".part-x-page.html", ".part-12-other.html"):
        (tmp_path / name).write_text("half")
    with hold_output(tmp_path / "page.html"):
        assert not (tmp_path / ".part-12-page.html").exists()
    left = {path.name for path in tmp_path.iterdir()}
    assert {".part-12-page.html.txt", ".part-x-page.html", ".part-12-other.html"} <= left


def test_two_threads_may_write_one_file_and_its_parts_are_left_alone(tmp_path: Path) -> None:
    """As the style of a.tif and of a.png, which are predicted at the same time."""
    path = tmp_path / "a.qml"
    with written_whole(path) as one, written_whole(path) as other:
        assert one != other and one.suffix == path.suffix
        one.write_text("same")
        other.write_text("same")
        remove_parts(tmp_path, {"a.tif"}, shared={"a.qml"})
        assert one.exists() and other.exists()
        os.utime(one, (0, 0))
        remove_parts(tmp_path, {"a.tif"}, shared={"a.qml"})
        assert not one.exists() and other.exists()
        one.write_text("same")
    assert path.read_text() == "same" and [entry.name for entry in tmp_path.iterdir()] == ["a.qml"]

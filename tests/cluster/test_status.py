"""What `skystill status` and `--dry-run` say."""

import contextlib
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from typer.testing import CliRunner

from skystill.api import count_ahead, predict, status
from skystill.cli import app
from skystill.cluster.archive import _compare_with_disk
from skystill.cluster.manifest import Done, Manifest
from skystill.cluster.status import read_status
from skystill.cluster.tasks import file_state, source_state
from skystill.errors import DataError, RunFolderError, SettingsError
from skystill.predict.ahead import Ahead
from skystill.progress import ignore_progress
from tests.cluster.archives import small_tiles, write_raster


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A manifest worked out by hand: 2 of 5 inputs done, 1 failed, 1 begun of which half is done, 1 not opened."""
    out = tmp_path / "out"
    (out / ".skystill").mkdir(parents=True)
    manifest = Manifest(out / ".skystill/manifest.sqlite")
    manifest.add_inputs([(f"/in/{name}.tif", out / f"{name}.tif") for name in ("a", "b", "c", "d", "e")])
    for number in (1, 2):
        done = Done(3_000_000, 1000, "0" * 64, 2.0, "host-1")
        manifest.add_whole(number, done)
        manifest.finish_input(number, "s", "t", done)
    for _ in range(3):
        manifest.fail_input(3, "/in/c.tif: it is no raster <&>", ours=False, most=3)
    manifest.begin_input(4, 6_000_000, 4)
    manifest.add_pieces(4, "units", [(0, 2, 3_000_000), (2, 4, 3_000_000)])
    manifest.finish_piece(manifest.waiting_pieces()[0].id, Done(3_000_000, 10, "1" * 64, 1.0, "host-2"))
    manifest.tell(
        state="running", began=10_000.0, updated=10_100.0, workers=2, dashboard="http://127.0.0.1:8787/status"
    )
    manifest.close()
    base = sqlite3.connect(out / ".skystill/manifest.sqlite")
    base.execute("update pieces set ended = 10050 where ended is not null")
    base.commit()
    base.close()
    return out


def test_status_is_what_the_manifest_says(manifest: Path) -> None:
    found = read_status(manifest, now=10_110.0)
    assert (found.total, found.done, found.failed) == (5, 2, 1)
    assert found.inputs == {"done": 2, "failed": 1, "begun": 1, "waiting": 1}
    assert found.pixels == 9_000_000
    # Three inputs were opened, of 12 megapixels together: the fourth is taken to have 4. The failed one counts nothing.
    assert found.total_pixels == 16_000_000
    assert found.rate == 9_000_000 / 100 and found.seconds_left == 7_000_000 / 90_000
    assert found.state == "running" and read_status(manifest, now=10_221.0).state == "silent"
    assert found.problems == (("/in/c.tif", "/in/c.tif: it is no raster <&>"),) and found.problem_count == 1
    assert found.hosts == (("host-1", 2, 6_000_000, 4.0), ("host-2", 1, 3_000_000, 1.0))


def test_pieces_and_windows(manifest: Path, tmp_path: Path) -> None:
    """Windows of a mosaic are counted where the folder is that of a mosaic."""
    assert read_status(manifest).pieces == (1, 2) and read_status(manifest).windows is None
    (manifest / ".skystill").rename(tmp_path / "moved")
    (tmp_path / "out/.mosaic-mosaic").mkdir()
    (tmp_path / "moved").rename(tmp_path / "out/.mosaic-mosaic/.skystill")
    runner = CliRunner()
    assert read_status(manifest).windows == (0, 0)
    assert (
        "windows of the mosaic: none yet; the inputs come first" in runner.invoke(app, ["status", str(manifest)]).output
    )
    file = Manifest(tmp_path / "out/.mosaic-mosaic/.skystill/manifest.sqlite")
    file.tell(windows=40, windows_done=10, windows_rate=0.5, updated=time.time())
    file.close()
    found = read_status(manifest)
    assert (found.windows, found.seconds_left) == ((10, 40), 60.0)
    done = runner.invoke(app, ["status", str(manifest), "--html", str(tmp_path / "status.html")])
    assert {
        "pieces of large inputs: 1 of 2 done",
        "windows of the mosaic: 10 of 40 done, about 1 min 00 s left",
    } <= set(done.output.splitlines()), done.output
    assert "<b>10</b>of 40 windows" in (tmp_path / "status.html").read_text()


def test_status_while_the_manifest_is_written(manifest: Path) -> None:
    """The command may be in the middle of a change, or was killed there."""
    path = manifest / ".skystill/manifest.sqlite"
    writing = sqlite3.connect(path)
    writing.execute("update inputs set state = 'failed'")
    assert read_status(manifest).done == 2
    writing.rollback()
    writing.close()


def test_no_status_and_a_damaged_manifest(tmp_path: Path, manifest: Path) -> None:
    with pytest.raises(RunFolderError, match="is no output of a skystill predict on a cluster"):
        status(out=tmp_path)
    (manifest / ".skystill/manifest.sqlite").write_bytes(b"SQLite format 3\0" + b"damaged" * 1000)
    with pytest.raises(
        RunFolderError, match=r"manifest\.sqlite is damaged .*Delete it, and run the same command again"
    ):
        status(out=manifest)


@pytest.mark.parametrize(
    "damage",
    [
        "alter table about rename to x; create view about as with recursive n(i) as (select 1 union all select i + 1 "
        "from n) select i name, i value from n",
        "create trigger t after update on inputs begin delete from inputs; end",
        "drop table pieces",
        "drop index pieces_by_end",
        "alter table inputs add column x as (source || source)",
        "update pieces set pixels = 'many'",
        "update pieces set pixels = -1",
        "update inputs set pixels = 9223372036854775807",
        "update inputs set error = cast(x'ff' as text)",
        "update inputs set state = 3.5",
        "update pieces set seconds = 9e999",
        "update about set value = '[1]' where name = 'began'",
        "update about set value = '1e300' where name = 'updated'",
        "update about set value = 'no JSON' where name = 'workers'",
        "update about set value = '\"javascript:alert(1)\"' where name = 'dashboard'",
        "update about set value = '{}' where name = 'state'",
        "insert into about values ('windows', '-1')",
        "insert into about values ('windows_done', '\"many\"')",
        "update about set value = '2' where name = 'version'",
        "update about set value = x'ff'",
        "update about set value = '" + "[" * 100_000 + "'",
        "drop table about; create table about (name, value as (hex(zeroblob(500000000))))",
        "create virtual table t using fts5(x)",
    ],
)
def test_a_manifest_of_another_form_is_refused(manifest: Path, damage: str) -> None:
    path = manifest / ".skystill/manifest.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.executescript(damage)
    with pytest.raises(RunFolderError, match=r"manifest\.sqlite (is damaged|was written by another version)"):
        status(out=manifest)


def test_the_command_prints_it(manifest: Path) -> None:
    done = CliRunner().invoke(app, ["status", str(manifest)])
    assert done.exit_code == 0, done.output
    for line in (
        "inputs: 2 of 5 done, 1 failed, 1 begun",
        "megapixels: 9.0 of about 16.0 (56 %)",
        "rate: 0.09 MP/s",
        "dashboard of Dask: http://127.0.0.1:8787/status",
        "  - /in/c.tif: it is no raster <&>",
    ):
        assert line in done.output.splitlines(), done.output


def test_the_page_is_one_file(manifest: Path, tmp_path: Path) -> None:
    page = tmp_path / "status.html"
    with pytest.raises(SettingsError, match=r"manifest\.sqlite does not end in \.html"):
        status(out=manifest, html=manifest / ".skystill/manifest.sqlite")
    status(out=manifest, html=page)
    text = page.read_text()
    assert "it is no raster &lt;&amp;&gt;" in text and "src=" not in text and "<script" not in text
    assert "<b>2</b>of 5 inputs done" in text and "<b>56.2 %</b>" in text and "prefers-color-scheme: dark" in text


def test_a_large_archive_needs_no_memory_in_the_manifest(tmp_path: Path) -> None:
    """Names that are asked for page by page, and a name that is no UTF-8."""
    manifest = Manifest(tmp_path / "manifest.sqlite")
    names = [f"/in/{number:05d}.tif" for number in range(2_500)] + ["/in/\udcff.tif"]
    manifest.add_inputs([(name, Path(name)) for name in names])
    found, last = [], 0
    while page := manifest.inputs("waiting", last):
        assert len(page) <= 1000
        found.extend(source for _, source, _ in page)
        last = page[-1][0]
    assert found == names
    manifest.add_inputs([(name, Path(name)) for name in names[:10]])  # the others are no longer named
    assert len(manifest.inputs("waiting")) == 10
    manifest.close()


def test_results_of_inputs_that_are_no_longer_named_stay_unless_another_takes_their_place(tmp_path: Path) -> None:
    """As of a nightly delivery: sources of yesterday may be gone, or damaged, and a sheet may have the same name."""
    manifest = Manifest(tmp_path / "manifest.sqlite")
    results = {name: tmp_path / f"{name}.tif" for name in ("sheet", "other")}
    done = Done(10, 10, "0" * 64, 1.0, "host")

    def deliver(day: str) -> list[tuple[int, str, str]]:
        named = {tmp_path / day / f"{name}.tif": results[name] for name in results if (day, name) != ("day2", "other")}
        manifest.add_inputs((str(source), target) for source, target in named.items())
        _compare_with_disk(manifest, lambda target: [target.with_suffix(".csv")], ignore_progress)
        waiting = manifest.inputs("waiting")
        for number, source, target in waiting:
            Path(target).write_text(source)
            Path(target).with_suffix(".csv").touch()
            manifest.add_whole(number, done)
            manifest.finish_input(number, source_state(source), file_state(target), done)
        return waiting

    assert len(deliver("day1")) == 2
    manifest.note_damage(2, "a part cannot be read")
    assert [source for _, source, _ in deliver("day2")] == [str(tmp_path / "day2/sheet.tif")]
    assert deliver("day2") == [] and results["sheet"].read_text().endswith("day2/sheet.tif")
    assert manifest.counts()["done"][0] == 2
    results["other"].unlink()
    assert deliver("day2") == []
    assert (manifest.failed_count(), manifest.failed_count(named=True), manifest.failed(9, named=True)) == (1, 0, [])
    assert len(deliver("day1")) == 2
    results["other"].with_suffix(".csv").unlink()
    assert [source for _, source, _ in deliver("day1")] == [str(tmp_path / "day1/other.tif")]
    manifest.close()


def test_the_state_of_a_source_holds_the_files_beside_it(tmp_path: Path) -> None:
    source = tmp_path / "sheet.png"
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(source)
    states = [source_state(str(source))]
    source.with_suffix(".pgw").write_text("0.3\n0\n0\n-0.3\n330000\n2785000\n")
    states.append(source_state(str(source)))
    source.with_suffix(".pgw").write_text("0.3\n0\n0\n-0.3\n3300000\n2785000\n")  # the place was wrong
    states.append(source_state(str(source)))
    assert len(set(states)) == 3
    copy = source.with_name("copy")
    shutil.copy2(source, copy)
    copy.replace(source)  # another inode, as another machine may see
    rasterio.open(tmp_path / "sheet.png.ovr", "w", driver="GTiff", height=4, width=5, count=3, dtype="uint8").close()
    assert source_state(str(source)) == states[-1]


def test_pieces_whose_units_are_not_in_the_journal_are_forgotten(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "manifest.sqlite")
    manifest.add_inputs([("/in/a.tif", Path("/out/a.tif"))])
    manifest.begin_input(1, 1000, 10)
    manifest.add_pieces(1, "units", [(0, 4, 400), (4, 8, 400), (8, 10, 200)])
    for piece in manifest.waiting_pieces()[:2]:
        manifest.finish_piece(piece.id, Done(400, 10, "0" * 64, 1.0, "host"))
    assert (manifest.piece_pixels(1), manifest.open_pieces(1)) == (800, {"units"})
    manifest.try_again()  # the command was killed, and begins again
    manifest.keep_pieces(1, [(5, 6), (8, 10)])  # somebody deleted the entry of unit 5
    assert (manifest.piece_pixels(1), manifest.open_pieces(1)) == (400, set())
    manifest.close()


# ---- what it will cost


def test_hours_of_workers() -> None:
    ahead = Ahead(inputs=10, opened=10, megapixels=7_200, read_bytes=0, written_bytes=0, megapixels_per_second=2.0)
    assert ahead.hours() == 1.0 and ahead.hours(10) == 0.1


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_dry_run_counts_and_measures_and_writes_no_result(
    tmp_path: Path, request: pytest.FixtureRequest, on_cluster: bool
) -> None:
    write_raster(tmp_path / "in/a.tif", 300, 400)
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(tmp_path / "in/b.png")
    sizes = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    where: dict[str, Any] = {"dask": request.getfixturevalue("address")} if on_cluster else {}
    given = {"inputs": [str(tmp_path / "in")], "model": small_tiles(tmp_path), "out": tmp_path / "out", **where}
    found = count_ahead(**given)
    assert (found.inputs, found.opened, found.read_bytes) == (2, 2, sizes)
    assert found.megapixels == pytest.approx((300 * 400 + 50 * 60) / 1e6)
    assert found.megapixels_per_second > 0 and found.written_bytes > 0
    assert not (tmp_path / "out").exists()
    predict(**given)  # it is no beginning that is in the way


def test_a_dry_run_of_what_the_command_would_refuse(tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_bytes(b"no raster")
    with pytest.raises(DataError, match="none of the inputs can be opened"):
        count_ahead(inputs=[str(tmp_path / "bad.tif")], model=small_tiles(tmp_path), out=tmp_path / "out")


def test_the_command_prints_what_it_will_cost(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", 300, 400)
    command = [
        "predict",
        str(tmp_path / "a.tif"),
        "--model",
        str(small_tiles(tmp_path)),
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, [*command, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert {"inputs: 1", "megapixels: 0.1"} <= set(done.output.splitlines()), done.output
    assert "1,000 workers: " in done.output and not (tmp_path / "out").exists()

"""Runs cases in a worker process, watches its time, and keeps a record of what failed.

python -m tests.fuzz.harness --first 0 --count 1500 --out FOLDER [--world FOLDER]
"""

import argparse
import collections
import json
import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
WALL_SECONDS = 240.0
"""A case that has not ended by then hangs. It is more than the limit on CPU time, so that a busy machine fails none."""


@dataclass
class Tally:
    """What was tried, and what failed.

    Args:
        kinds: number of cases of each kind.
        codes: number of cases that ended with each exit code.
        failures: the records of those that failed.
        slowest, largest: CPU seconds and peak memory in bytes of the worst case.
    """

    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    codes: collections.Counter[int] = field(default_factory=collections.Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0
    cpu: collections.Counter[str] = field(default_factory=collections.Counter)
    out: Path | None = None
    """Where each failure is written at once; it is printed, too."""

    @property
    def tried(self) -> int:
        return self.kinds.total()

    def add(self, begun: dict[str, Any], ended: dict[str, Any]) -> None:
        """Count a case."""
        self.kinds[begun["kind"]] += 1
        self.codes[ended["code"]] += 1
        self.cpu[begun["kind"]] += ended["cpu"]
        self.slowest, self.largest = max(self.slowest, ended["cpu"]), max(self.largest, ended["peak"])
        if ended["problems"]:
            self.failures.append(begun | ended)
        if self.out is not None and ended["cpu"] > 1:
            sys.stderr.write(
                f"{begun['begun']} {begun['kind']}: {begun['damage']}: {ended['cpu']:.1f} s {begun['command'][:2]}\n"
            )
        if self.out is not None and self.tried % 100 == 0:
            sys.stderr.write(f"{self.describe()}\n")
        if ended["problems"] and self.out is not None:
            _write_failure(begun, ended, self.out)

    def describe(self) -> str:
        """Say it in one line."""
        return (
            f"fuzz: {self.tried:,} damaged inputs of {len(self.kinds)} kinds tried, {len(self.failures)} failures "
            f"(exit code 0: {self.codes[0]:,}, 2: {self.codes[2]:,}; at most {self.slowest:.1f} s and "
            f"{self.largest / 1e6:,.0f} MB)"
        )


def run_cases(world: Path, first: int, count: int, tally: Tally, until: float = float("inf")) -> Tally:
    """Run the cases of `count` seeds from `first` on, or fewer where the time `until` of the monotonic clock comes."""
    seed, last = first, first + count
    while seed < last and time.monotonic() < until:
        for begun, ended in _worker(world, seed, last - seed):
            tally.add(begun, ended)
            seed = begun["begun"] + 1
            if time.monotonic() >= until:
                break
    return tally


def _worker(world: Path, first: int, count: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the records of the cases of one worker process, until it has done all or died."""
    renew(world)
    command = [sys.executable, "-m", "tests.fuzz.worker", str(world), str(first), str(count)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(world),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    begun: dict[str, Any] | None = None
    words, hung = "", False
    try:
        for line in _lines(process.stdout):
            hung = line is None
            record = json.loads(line) if line and line.startswith(b"{") else None
            if record is None:
                words += (line or b"").decode(errors="replace") + "\n"
            elif "begun" in record:
                begun = record
            elif begun is not None:
                yield begun, record
                begun = None
        if begun is not None:
            problem = f"it ended the process ({process.wait()})" if not hung else f"it hung for {WALL_SECONDS:.0f} s"
            said = (world / "tmp.said").read_text(errors="replace")[-2000:] + words[-4000:]
            yield begun, {"code": 1, "cpu": 0.0, "peak": 0, "problems": [problem], "said": said}
        elif process.wait():
            raise RuntimeError(f"the worker failed by itself: {words[-3000:]}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
        process.stdout.close()


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield the lines of a process until it ends, and None if it says nothing for too long."""
    rest = b""
    while True:
        ready, _, _ = select.select([stream], [], [], WALL_SECONDS)
        read = os.read(stream.fileno(), 2**16) if ready else b""
        *lines, rest = (rest + read).split(b"\n")
        yield from lines
        if not ready:
            yield None
        if not read:
            return


def renew(world: Path) -> None:
    """Put all sound files in their places."""
    for name in ("in", "out", "tmp"):
        shutil.rmtree(world / name, ignore_errors=True)
    shutil.copytree(world / "sound", world / "in", symlinks=True)
    (world / "out").mkdir()
    (world / "tmp").mkdir()


def environment(world: Path) -> dict[str, str]:
    """Return the environment of workers: one thread, temporary files in the world, the code of this checkout."""
    return {
        **os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(world / "tmp"), "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "200",
        "MPLCONFIGDIR": str(world / "home"), "HOME": str(world / "home"), "GDAL_PAM_ENABLED": "NO", "NO_COLOR": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH")))),
    }  # fmt: skip


def prepare(world: Path) -> Path:
    """Make the sound files, in a process of its own, and keep a copy of them."""
    for name in ("home", "tmp"):
        (world / name).mkdir(parents=True, exist_ok=True)
    code = (
        "import sys; from pathlib import Path; from tests.fuzz.world import make_world; make_world(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(world)],
        cwd=ROOT,
        env=environment(world),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the sound files could not be made: {done.stderr[-3000:]}")
    shutil.copytree(world / "in", world / "sound", symlinks=True)
    return world


def _write_failure(begun: dict[str, Any], ended: dict[str, Any], out: Path) -> None:
    """Print a failure, and write it into a file with the command that repeats it."""
    line = f"{begun['begun']} {begun['kind']}: {begun['damage']}: {'; '.join(ended['problems'])}"
    again = f"python -m tests.fuzz.harness --first {begun['begun']} --count 1 --out {out}"
    command = shlex.join(["skystill", *begun["command"]])
    out.mkdir(parents=True, exist_ok=True)
    text = f"{line}\n\nagain: {again}\nwhich runs: {command}\n\n{ended['said']}\n"
    (out / f"{begun['begun']}.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
    sys.stdout.write(line.encode("ascii", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run cases, and print what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--world", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        world = given.world or Path(scratch) / "world"
        if not (world / "sound").is_dir():
            prepare(world)
        tally = run_cases(world, given.first, given.count, Tally(out=given.out))
    for kind, cpu in tally.cpu.most_common(12):
        sys.stdout.write(f"{cpu:7.1f} s for {tally.kinds[kind]} of {kind}\n")
    sys.stdout.write(f"{tally.describe()}\n")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())

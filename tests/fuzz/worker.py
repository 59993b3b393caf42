"""A process that runs one case after the other through the command line, and reports on each.

    python -m tests.fuzz.worker WORLD FIRST COUNT

Before and after each case it writes a line of JSON. So the process that started it knows the case that it died of.
"""

import contextlib
import faulthandler
import gc
import hashlib
import json
import os
import random
import resource
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.cases import Case, make_case, mend
from tests.fuzz.kinds import KINDS, MAP_KINDS
from tests.fuzz.world import skystill

MOST_BYTES = 1_500_000_000
MOST_SECONDS = 30.0
_MACHINE_BYTES = 6 * 2**30
"""What a process may take at all: this protects the machine, and not the promise."""
_DIGESTED = 2**22
_FORBIDDEN = ("Traceback (most recent call last)", "internal error")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_OF_LIBRARIES = ("torchinductor",)  # which torch makes where it is imported
_CHANGES = {
    "os.remove": 1,
    "os.rename": 2,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.symlink": 2,
    "os.link": 2,
    "os.truncate": 1,
}

State = dict[str, tuple[int, int, int, str]]


@dataclass
class Outcome:
    """What a case did.

    Args:
        seed: its seed.
        problems: what it should not have done; empty if all is well.
        code: its exit code.
        cpu: seconds of CPU time, of the processes that it started, too.
        peak: its peak memory in bytes.
        said: the end of what it printed.
    """

    seed: int
    problems: list[str] = field(default_factory=list)
    code: int = 0
    cpu: float = 0.0
    peak: int = 0
    said: str = ""


class Watch:
    """Notes every file that Python code opens for writing, makes, moves or removes outside the given folders."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = (*allowed, "/dev/", "/proc/self/")
        self.on = False
        self.found: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
            self._note("open", arguments[0])
        elif event in _CHANGES and not any(
            isinstance(one, int) and one >= 0 for one in arguments
        ):  # beside a folder's number
            for path in arguments[: _CHANGES[event]]:
                self._note(event, path)

    def _note(self, event: str, path: object) -> None:
        if isinstance(path, str | bytes):
            name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links are not followed
            if not name.startswith(self._allowed):
                self.found.append(f"{event} {name}")


def snapshot(folder: Path) -> State:
    """Name, size, time, mode and digest of every file below a folder."""
    found: State = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)  # noqa: PTH118 - thousands of times
            status = os.lstat(path)
            digest = ""
            if stat.S_ISREG(status.st_mode) and status.st_size < _DIGESTED:
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
            size, changed = (0, 0) if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
            found[path] = (size, changed, status.st_mode, digest)
    return found


def run_case(case: Case, seed: int, world: Path, watch: Watch) -> Outcome:
    """Run the command of a case, and look at what it did."""
    os.environ["SKYSTILL_TRIAL_SECONDS"] = "25" if case.is_tried else "0"
    before = snapshot(world / "in")
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    _reset_peak()
    began = _cpu()
    with _captured(world / "tmp.said") as said:
        watch.on = True
        try:
            code = skystill(*case.command)
        finally:
            watch.on = False
    outcome = Outcome(seed, code=code, cpu=_cpu() - began, peak=_peak())
    text = said.read_text(errors="replace")
    outcome.said = text[-2000:]
    outcome.problems = [f"exit code {code}"] if code not in (0, 2) else []
    outcome.problems += [f"it printed {words!r}" for words in _FORBIDDEN if words in text]
    after = snapshot(world / "in")
    outcome.problems += [
        f"changed: {name}" for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    ]
    outcome.problems += watch.found
    watch.found = []
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    outcome.peak = max(outcome.peak, child if child > children else 0)
    outcome.problems += [f"peak memory {outcome.peak:,} bytes"] if outcome.peak > MOST_BYTES else []
    outcome.problems += [f"{outcome.cpu:.0f} s of CPU time"] if outcome.cpu > MOST_SECONDS else []
    if _left_behind(world):  # what is in a cycle goes only now; each time would take longer than the commands
        gc.collect()
    left = _left_behind(world)
    outcome.problems += [f"left behind: {path}" for path in left]
    return outcome


def _left_behind(world: Path) -> list[Path]:
    return [path for path in (world / "tmp").iterdir() if not path.name.startswith(_OF_LIBRARIES)]


@contextlib.contextmanager
def _captured(path: Path) -> Iterator[Path]:
    """Send the output of this process and of its libraries into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield path
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def warm_up(world: Path) -> None:
    """Import what the commands import, so that no case pays for it."""
    import matplotlib.pyplot  # noqa: F401
    import onnxruntime  # noqa: F401
    import openvino  # noqa: F401
    import optuna  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pyogrio  # noqa: F401

    from skystill import api  # noqa: F401
    from skystill.api import processes
    from skystill.predict import polygons  # noqa: F401
    from skystill.train import runs, tune  # noqa: F401
    from skystill.train.compress import export, formats  # noqa: F401 - `formats` keeps the true one

    processes.call_process = _in_this_process
    # A training that comes to its end would export its network, which takes four seconds and reads none of the files.
    model = world / "sound/runs/student/student.onnx"
    export.export_network = lambda network, info, path, images: shutil.copy(model, path)
    gc.freeze()  # what is imported is not looked at again after each case
    os.chdir(world)


def _in_this_process(arguments: Sequence[str], environment: dict[str, str] | None = None) -> int:
    """Run a command of SkyStill here that a command would start in a process of its own: that takes four seconds."""
    return skystill(*arguments[arguments.index("skystill") + 1 :])


def main(world: Path, first: int, count: int) -> None:
    """Run the cases of `count` seeds from `first` on."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")

    def tell(**values: object) -> None:
        report.write(json.dumps(values) + "\n")
        report.flush()

    resource.setrlimit(resource.RLIMIT_DATA, (_MACHINE_BYTES, _MACHINE_BYTES))
    warm_up(world)
    watch = Watch((str(world / "out"), str(world / "tmp"), str(world / "home")))
    for seed in range(first, first + count):
        case = make_case(random.Random(seed), world, MAP_KINDS if seed < 0 else KINDS)
        tell(begun=seed, kind=case.kind, damage=case.damage, command=case.command)
        faulthandler.dump_traceback_later(MOST_SECONDS, file=sys.__stderr__)
        began = time.monotonic()
        outcome = run_case(case, seed, world, watch)
        faulthandler.cancel_dump_traceback_later()
        tell(**asdict(outcome), seconds=time.monotonic() - began)
        mend(case, world, world / "sound")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""A model file is tried once in a process of its own, with a limit on memory and time, before it is used.

A file of 200 bytes can declare constants of gigabytes, or a loop that never ends. ONNX Runtime has no limit on either.
The digest of SkyStill's own files does not help: it finds damage, and anybody can write one.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from skystill.environment import number_in_environment
from skystill.errors import ModelFileError
from skystill.model.bundled import bundled_model
from skystill.model.external import check_external_data, model_bytes, model_files
from skystill.model.file import check_digest

GIB, SECONDS = "SKYSTILL_TRIAL_GIB", "SKYSTILL_TRIAL_SECONDS"
"""Environment variables with other limits: memory in GiB, and time in seconds, of which 0 leaves the trial out."""
_GIB, _SECONDS = 1.25, 25.0  # of address space, of which Python and ONNX Runtime take 0.4 GiB
_FILE_SHARE = 4  # times the size of the file: weights are held twice while a session is made
_TOO_LARGE, _RUNS_NOT = 3, 4  # exit codes of the script
_SCRIPT = Path(__file__).with_name("trial_script.py")


@dataclass(frozen=True)
class _Passed:
    """What the trial of a file found.

    Args:
        bytes_per_value: memory that a call takes, for each value of its image; 0 if it is not known.
        most: the limit on memory in bytes.
    """

    bytes_per_value: float
    most: int


_State = tuple[tuple[str, int, int, int], ...]
_PASSED: dict[_State, _Passed] = {}


def try_once(path: Path, bands: int | None = None) -> None:
    """Open a model file and run it on made-up images in a process of its own. Each process does this once for a file.

    This takes about 0.3 s and the time of the calls: one image of 131 x 97 pixels and, if the file takes images of any
    size, one of 524 x 388. The bundled model is not tried, and no file inside another program, such as QGIS. A file
    that fails for another reason than the limits passes: opening it says why.

    Args:
        path: the model file.
        bands: number of bands that it is fed, if that is known.

    Raises:
        ModelFileError: it needs more memory or time than the limits, its process ended without an answer, it is
            SkyStill's own and runs on no image, it has changed since SkyStill wrote it, or it takes weights from a file
            outside its folder.
        SettingsError: a limit in the environment is not a number from 0 to a million.
    """
    seconds = _limit(SECONDS, _SECONDS)
    if not seconds or not path.is_file() or path.resolve() == bundled_model() or not _has_python():
        return
    check_digest(path)
    check_external_data(path)
    seen = _state(path)
    if seen in _PASSED:
        return
    most = int(_limit(GIB, _GIB) * 2**30) + _FILE_SHARE * model_bytes(path)
    calls = _run(path, bands, most, seconds)
    values, taken = calls[-1] if calls else (1, 0)  # the larger image tells memory that grows from what is fixed
    _PASSED[seen] = _Passed(taken / values, most)


def _run(path: Path, bands: int | None, most: int, seconds: float) -> list[tuple[int, int]]:
    """Run the script, and return the values of the images that were run, and the bytes that each call took."""
    # The folder in which a user works is no place to import from (-P). One arena keeps the address space small.
    command = [sys.executable, "-P", str(_SCRIPT), str(path.absolute()), str(most), str(bands or 0)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    try:
        done = subprocess.run(command, check=False, env=environment, timeout=seconds, capture_output=True)
    except subprocess.TimeoutExpired as error:
        if calls := _calls(error.stdout or b""):  # the smaller image had its answer
            return calls
        raise ModelFileError(
            f"{path} was tried on a small image and did not answer within {seconds:g} s. It is not used. If it is only "
            f"large, allow more with {SECONDS} in the environment."
        ) from error
    if done.returncode == 0:
        return _calls(done.stdout)
    said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
    if done.returncode == _RUNS_NOT:
        raise ModelFileError(
            f"{path} was tried on small images and runs on none ({said.splitlines()[-1][:300]}). Export it again, or "
            "take a whole copy."
        )
    what = f"needs more than {most / 2**30:.2f} GiB" if done.returncode == _TOO_LARGE else "ended the process"
    raise ModelFileError(
        f"{path} was tried on a small image and {what} ({said.splitlines()[-1][:300]}). It is not used. If you trust "
        f"it, allow more with {GIB} in the environment."
    )


def _calls(said: bytes) -> list[tuple[int, int]]:
    return [(int(values), int(taken)) for values, taken in re.findall(rb"^(\d{1,18}) (\d{1,18})$", said, re.MULTILINE)]


def check_call(path: Path, shape: tuple[int, ...], values: int) -> None:
    """Check that a call stays below the limit on memory, as far as the trial of the file says.

    Memory is taken to grow with the image. A file that was not tried passes.

    Args:
        path: the model file.
        shape: shape of the image, for the message.
        values: number of values of the image.

    Raises:
        ModelFileError: the image is too large for this file.
    """
    found = _PASSED.get(_state(path)) if _PASSED and path.is_file() else None
    if found is None or found.bytes_per_value * values <= found.most:
        return
    gib = found.bytes_per_value * values / 2**30
    raise ModelFileError(
        f"{path} needs about {gib:.1f} GiB for an image of the shape {shape}: in its trial it took "
        f"{found.bytes_per_value:,.0f} bytes for each value. At most {found.most / 2**30:.2f} GiB are allowed. Take "
        f"smaller tiles (--tile 512), or, if you trust it, allow more with {GIB} in the environment."
    )


def _state(path: Path) -> _State:
    """Return what changes when the model does: name, inode, size and time of its files."""
    states = [(str(one), one.stat()) for one in model_files(path) if one.is_file()]
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states)


def _has_python() -> bool:
    """Return whether Python itself runs this code. A program with Python inside would start itself for the trial."""
    return "python" in Path(sys.executable or "").name.lower()


def _limit(variable: str, default: float) -> float:
    return number_in_environment(variable, default, "a number from 0 to a million", 0, 10**6, whole=False)

"""A model file from elsewhere is tried once in a process of its own, with a limit on memory and time.

A file of 200 bytes can declare constants of gigabytes, or a loop that never ends. ONNX Runtime has no limit on either.
"""

import os
import subprocess
import sys
from pathlib import Path

from skystill.digests import ONNX_TRAILER, DigestDiffers
from skystill.errors import ModelFileError, SettingsError
from skystill.model.bundled import bundled_model
from skystill.model.external import check_external_data, external_data

GIB, SECONDS = "SKYSTILL_TRIAL_GIB", "SKYSTILL_TRIAL_SECONDS"
"""Environment variables with other limits: memory in GiB, and time in seconds, of which 0 leaves the trial out."""
_GIB, _SECONDS = 1.25, 25.0  # of address space, of which Python and ONNX Runtime take 0.4 GiB
_FILE_SHARE = 4  # times the size of the file: weights are held twice while a session is made
_TOO_LARGE = 3  # exit code of the script: memory was refused
_SCRIPT = Path(__file__).with_name("trial_script.py")
_PASSED: set[tuple[str, int, int, int]] = set()


def try_once(path: Path, bands: int | None = None) -> None:
    """Open a model file and run it on one small image in a process of its own, if it may come from elsewhere.

    This takes about 0.3 s and the time of the call. SkyStill's own files hold a digest and are not tried, and a file is
    tried once in a process. A file that fails for another reason than the limits passes: opening it says why.

    Args:
        path: the model file.
        bands: number of bands that it is fed, if that is known.

    Raises:
        ModelFileError: it needs more memory or time than the limits, its process ended without an answer, or it takes
            weights from a file outside its folder.
        SettingsError: a limit in the environment is not a number from 0 to a million.
    """
    seconds = _limit(SECONDS, _SECONDS)
    if not seconds or not path.is_file() or _is_own(path):
        return
    check_external_data(path)
    state = path.stat()
    seen = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
    if seen in _PASSED:
        return
    most = int(_limit(GIB, _GIB) * 2**30) + _FILE_SHARE * (state.st_size + _beside(path))
    # The folder in which a user works is no place to import from (-P). One arena keeps the address space small.
    command = [sys.executable, "-P", str(_SCRIPT), str(path.resolve()), str(most), str(bands or 0)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    try:
        done = subprocess.run(command, check=False, env=environment, timeout=seconds, capture_output=True, text=True)
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(
            f"{path} was tried on a small image and did not answer within {seconds:g} s. It is not used. If it is only "
            f"large, allow more with {SECONDS} in the environment."
        ) from error
    if done.returncode == 0:
        _PASSED.add(seen)
        return
    reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1][:300]
    what = f"needs more than {most / 2**30:.2f} GiB" if done.returncode == _TOO_LARGE else "ended the process"
    raise ModelFileError(
        f"{path} was tried on a small image and {what} ({reason}). It is not used. If you trust it, allow more with "
        f"{GIB} in the environment."
    )


def _is_own(path: Path) -> bool:
    if path.resolve() == bundled_model():
        return True
    try:
        return ONNX_TRAILER.check(path)
    except (DigestDiffers, OSError):
        return True  # opening it refuses it


def _beside(path: Path) -> int:
    """Return the bytes of the files beside a model file, or in folders below, that hold its weights."""
    beside = (path.resolve().parent / name for name in set(external_data(path)))
    return sum(file.stat().st_size for file in beside if file.is_file())


def _limit(variable: str, default: float) -> float:
    text = os.environ.get(variable, "").strip()
    try:
        found = float(text) if text else default
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1e6:
        raise SettingsError(
            f"{variable} is {text[:40]!r} in the environment; a number from 0 to a million was expected, such "
            f"as {default:g}."
        )
    return found

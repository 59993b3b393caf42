"""No output is an input, or an image of the user: the files to write are looked at before a command begins."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from skystill.errors import SettingsError, first_few
from skystill.raster.around import has_palette
from skystill.raster.opening import files_of, is_remote, open_raster
from skystill.raster.source import gdal_environment

_SHOWN = 20


def check_outputs(outputs: Sequence[tuple[str, Path]], inputs: Iterable[Path], option: str = "--out") -> None:
    """Check that no file to write is an input, holds an input, or is written twice.

    Files are the same if their paths are equal after all links are resolved, or if they are hard links of one file.

    Args:
        outputs: what is written, such as "class raster of a.tif", and its path. A path may be a folder that will be
            deleted; no input may be below it.
        inputs: all files that are read.
        option: the option that chooses another output, for the message.

    Raises:
        SettingsError: some outputs are inputs, or two outputs have the same path. The message lists them.
    """
    places: dict[str, Path] = {}
    states: dict[tuple[int, int], Path] = {}
    for path in inputs:
        real = os.path.realpath(path)
        for place in (real, *map(str, Path(real).parents)):
            if place in places:
                break
            places[place] = path
        if state := _state(real):
            states.setdefault(state, path)
    problems: list[str] = []
    written: dict[str, str] = {}
    for what, path in outputs:
        real = os.path.realpath(path)
        state = _state(real)
        found = places.get(real) or (states.get(state) if state else None)
        if found is not None:
            problems.append(f"{path} ({what}) {_relation(path, real, found)}")
        elif real in written:
            problems.append(f"{path} would be written twice: as {written[real]} and as {what}")
        written[real] = what
    if problems:
        raise SettingsError(
            f"results would overwrite inputs or each other; nothing was written:{_lines(problems)}\n"
            f"Choose another {option}."
        )


def check_replaced(targets: Iterable[tuple[str, Path]]) -> None:
    """Check that no class raster takes the place of an image of the user, which surely is no class raster.

    Every class raster has a palette. Of a file that is damaged or of another kind, it is not known whose it is.

    Args:
        targets: each input with the path of its class raster.

    Raises:
        SettingsError: there are such images. The message lists them.
    """
    problems = [f"{target} (by the class raster of {source})" for source, target in targets if _is_of_user(target)]
    if problems:
        raise SettingsError(
            f"images would be replaced that are no class rasters; nothing was written:{_lines(problems)}\n"
            "Choose another --out, or move these images to another folder."
        )


def source_files(source: str) -> list[Path]:
    """Return all files that are read for a raster: itself, the files beside it, and the sources of a VRT.

    Args:
        source: anything that GDAL opens. A source that cannot be opened, or that is on a server, counts as one file of
            that name.
    """
    if is_remote(source):
        return [Path(source)]  # it names no file of this computer, and asking a server takes time
    found = [source]
    try:
        with gdal_environment(), open_raster(source) as file:
            found += files_of(file)
    except Exception:  # noqa: BLE001 - what is wrong with an input, its reading reports
        return [Path(source)]
    return [Path(name) for name in dict.fromkeys(found)]


def _is_of_user(target: Path) -> bool:
    try:
        return target.is_file() and has_palette(target) is False
    except (OSError, ValueError):  # who writes it says what is wrong; ValueError: a null character
        return False


def _lines(problems: Sequence[str]) -> str:
    return "".join(f"\n  - {line}" for line in first_few(problems, _SHOWN))


def _relation(path: Path, real: str, found: Path) -> str:
    """Say how an output and an input go together."""
    if path == found:
        return "is an input"
    beneath = os.path.realpath(found)
    return f"{'holds' if beneath.startswith(real + os.sep) else 'is the same file as'} the input {found}"


def _state(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file, which hard links have in common, or None if there is no such file."""
    try:
        state = os.stat(path)  # noqa: PTH116 - the path is a string, and there are many
    except (OSError, ValueError):  # ValueError: a null character
        return None
    return state.st_dev, state.st_ino

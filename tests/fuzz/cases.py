"""One case: a kind of file, how it is damaged, and the command that is given it. A seed repeats it."""

import contextlib
import os
import random
import shutil
import socket
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.byte_damage import DAMAGES
from tests.fuzz.form_damage import FORMS, odd_value
from tests.fuzz.kinds import KINDS, TEXTS, Kind

NAMES = (
    "a b.tif", "[red].tif", "$\\frac{$.tif", "=1+1.tif", "-x.tif", "ü\u0308.tif", "\u202efit.tif", "a\nb.tif",
    "%s%n.tif", "{0}.tif", "a?b=c.tif", "a#b&c.tif", "a'b\"c.tif", "\udcff\udcfe.tif", "a" * 240 + ".tif",
    ".hidden.tif", "a*b[1].tif", "a;b.tif", "~.tif", "con.tif", "a\\b.tif", "<b>.tif", "photo", "photo.tif.jpg",
    "photo.xyz",
    "photo.mask.tif",    ":car:.tif",    "\x1b[31m.tif", "NETCDF:x.tif", "vsizip.zip", "photo.vrt", "photo.pdf",
    "photo.mbtiles", "photo.h5",
)  # fmt: skip


@dataclass
class Case:
    """What is done.

    Args:
        kind: name of the kind.
        damage: what was damaged, in words.
        command: the arguments of skystill.
        is_tried: whether model files are tried in a process of their own.
        damaged: the file that was changed among the sound ones; None if it is below out/.
    """

    kind: str
    damage: str
    command: list[str]
    is_tried: bool = False
    damaged: Path | None = None


def make_case(choices: random.Random, world: Path, kinds: Sequence[Kind] = KINDS) -> Case:
    """Draw a case, and damage the file in the world. `mend` puts the sound file back.

    Args:
        choices: draws it.
        world: the sound files.
        kinds: kinds of files; texts and names are drawn beside `KINDS` only.
    """
    inside, out = world / "in", world / "out"
    way = choices.random()
    if kinds is KINDS and way < 0.06:
        return _text_case(choices, inside, out)
    if kinds is KINDS and way < 0.10:
        return _name_case(choices, inside, out)
    kind = choices.choices(kinds, [one.weight for one in kinds])[0]
    folder = inside
    if kind.copied:
        folder = out / "copy"
        shutil.copytree(inside / kind.copied, folder)
        name = kind.file.removeprefix(kind.copied).lstrip("/")
    else:
        name = kind.file
    path = min(folder.glob(name)) if "*" in name else folder / name
    case = Case(kind.name, "", [], kind.is_tried)
    filled = {"in": str(inside), "out": str(out), "file": str(path), "copy": str(folder)}
    case.command = [_filled(word, filled) for word in choices.choice(kind.commands)]
    case.damaged = None if kind.copied else path
    case.damage = _damage(choices, path, kind, case, inside)
    return case


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word


def _damage(choices: random.Random, path: Path, kind: Kind, case: Case, inside: Path) -> str:
    content = path.read_bytes() if path.is_file() else b""
    way = choices.random()
    if way < 0.10:
        replace, words = choices.choice(_REPLACED)
        path.unlink(missing_ok=True)
        replace(path)
        return words
    if way < 0.18:
        other = choices.choice([inside / one.file for one in KINDS if "*" not in one.file])
        held = other.read_bytes() if other.is_file() else b""
        path.write_bytes(held)
        return f"the content of {other.name}"
    if way < 0.62 and kind.form != "bytes" and content:
        with contextlib.suppress(
            ValueError, KeyError, IndexError, sqlite3.Error
        ):  # a folder without the file, or a form that is odd
            changed = FORMS[kind.form](choices, content)
            path.write_bytes(changed)
            case.is_tried = case.is_tried or kind.form == "onnx"
            return f"its {kind.form}"
    damage = choices.choice(DAMAGES)
    path.write_bytes(damage(choices, content))
    case.is_tried = case.is_tried or path.suffix == ".onnx"
    return damage.__name__


def _link_to(target: str) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        path.symlink_to(target)

    return link


def _socket(path: Path) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as made:  # the name may be too long for a socket
        made.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _filled_folder(path: Path) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "inner/photo.png").write_bytes(b"x")


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**33)


_REPLACED: tuple[tuple[Callable[[Path], None], str], ...] = (
    (lambda path: None, "missing"),
    (Path.mkdir, "a folder in its place"),
    (_filled_folder, "a folder with files in its place"),
    (os.mkfifo, "a named pipe in its place"),
    (_socket, "a socket in its place"),
    (_link_to("/dev/zero"), "a link to /dev/zero"),
    (_link_to("/dev/null"), "a link to /dev/null"),
    (_link_to("/proc/self/mem"), "a link to /proc/self/mem"),
    (_link_to("nowhere"), "a link to nothing"),
    (_link_to("/etc/passwd"), "a link to a text file elsewhere"),
    (_link_to("."), "a link to its folder"),
    (_loop, "a link to itself"),
    (_sparse, "8 GiB of nothing"),
)


def _text_case(choices: random.Random, inside: Path, out: Path) -> Case:
    """An option given as text."""
    command, text = choices.choice(TEXTS)
    filled = {"in": str(inside), "out": str(out)}
    sound = _filled(text, filled)
    odd = odd_value(choices, sound)
    given = odd if isinstance(odd, str) else str(odd)
    given = given.encode("utf-8", "replace").decode().replace("\x00", "0")[:100_000]  # what a shell can pass on
    if "{out}" in text and choices.random() < 0.7:  # names of files to write stay below out/
        given = f"{out}/{given.replace('/', '_').replace('..', '_')[:300]}"
    elif command[0] in ("export", "tune"):
        given = sound
    words = [_filled(word, filled) for word in command]
    joined = [*words, given] if words[-1] in ("--", "check") else [*words[:-1], f"{words[-1]}={given}"]
    return Case(f"text of {command[-1]}", f"{given[:60]!r}", joined)


def _name_case(choices: random.Random, inside: Path, out: Path) -> Case:
    """A file with an odd name. Its content is sound or of another kind."""
    source = choices.choice(("scene.tif", "scene.tif", "photo.png", "photo.jpg", "part.vrt", "grid.asc"))
    folder = out / "named"
    folder.mkdir()
    name = choices.choice(NAMES)
    path = folder / name
    shutil.copy(inside / "rasters" / source, path)
    more = choices.choice(([], ["--areas", "--overlay"], ["--vector=geojson"], ["--cog", "--confidence"]))
    given = choices.choice((path, folder))
    result = choices.choice((out / "x", out / "x", out / "x" / name))
    command = ["predict", str(given), "--model", str(inside / "models/student.onnx"), "--out", str(result), *more]
    return Case("name of a file", f"{source} as {name[:40]!r}", command)


def mend(case: Case, world: Path, sound: Path) -> None:
    """Put the sound file back, and empty out/."""
    if case.damaged is not None:
        path = case.damaged
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        kept = sound / path.relative_to(world / "in")
        if kept.exists():
            shutil.copy2(kept, path)
    shutil.rmtree(world / "out", ignore_errors=True)
    (world / "out").mkdir()

"""The manifest of an archive: one SQLite file in its output, written by the process of the command only.

It knows each input and each piece of work. What is truly there are the results, and the entries in the journals of
unfinished ones: when the command is run again, the manifest is compared with them.

The file is in SQLite's usual mode with a rollback journal. Its other mode (WAL) needs memory that all readers share,
which a disk of the network does not have.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skystill.cluster.manifest_form import TABLES, check_schema, check_values, read_value
from skystill.errors import DiskFull, RunFolderError, shortened

VERSION = 1
_NAMED = " and source in (select source from named)"  # by the last call of `add_inputs`
_BUSY_SECONDS = 30.0
_OF_THE_DISK = {
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A piece of work of a large raster.

    Args:
        id: number of the piece in the manifest.
        input: number of its raster in the manifest.
        kind: "join" for what writes units into the rasters while they are computed, "units" for units of the grid,
            "files" for the results that are made of the rasters.
        first, last: indices of the first unit, and of the one after the last.
        source, target: the raster and its result.
        pixels: number of pixels, about.
    """

    id: int
    input: int
    kind: str
    first: int
    last: int
    source: str
    target: str
    pixels: int


@dataclass(frozen=True)
class Done:
    """What is recorded of a piece of work that is done.

    Args:
        pixels: number of pixels.
        size: bytes of what was written.
        digest: SHA-256 of it.
        seconds: how long it took.
        host: the worker.
    """

    pixels: int
    size: int
    digest: str
    seconds: float
    host: str


class Manifest:
    """The manifest, open for the one process that writes it, or to be read.

    Args:
        path: the file. It is made if it does not exist.
        read_only: only look at it, while another process may write it.

    Raises:
        RunFolderError: the file is damaged, or of another version.
        DiskFull: it cannot be written.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        with naming_failures(path):
            self._base = _to_read(path) if read_only else sqlite3.connect(path, timeout=_BUSY_SECONDS)
            check_schema(self._base, is_whole=read_only)
            if not read_only:
                self._base.execute("pragma synchronous = normal")
                self._base.executescript(TABLES)
            check_values(self._base)
        if self.about().get("version", VERSION) != VERSION:
            raise RunFolderError(f"{path} was written by another version of skystill. Choose another --out.")
        if not read_only:
            self.tell(version=VERSION)
            self.commit()

    def close(self) -> None:
        """Commit, and close the file."""
        with naming_failures(self.path):
            self._base.commit()
            self._base.close()

    def commit(self) -> None:
        """Make what was recorded durable."""
        with naming_failures(self.path):
            self._base.commit()

    def about(self) -> dict[str, Any]:
        """Return what is known of the command as a whole."""
        rows = self._all("select name, value from about")
        with naming_failures(self.path):
            return {name: read_value(name, value) for name, value in rows}

    def tell(self, **values: object) -> None:
        """Record something of the command as a whole, as JSON."""
        rows = [(name, json.dumps(value)) for name, value in values.items()]
        self._many("insert or replace into about values (?, ?)", rows)

    # ---- inputs

    def add_inputs(self, targets: Iterable[tuple[str, Path]]) -> None:
        """Add inputs that are not known yet, and forget those that are no longer named, unless they are done.

        The results of all others are to be at the paths that are given. If that of an input that is no longer named
        was there, it is forgotten, too: this one takes its place.
        """
        with naming_failures(self.path):
            self._base.execute("create temp table if not exists named (source text primary key, target text)")
            self._base.execute("delete from named")
            self._base.executemany("insert into named values (?, ?)", ((_text(s), _text(t)) for s, t in targets))
            gone = (
                "select id from inputs where source not in (select source from named) and (state != 'done' or target "
                "in (select target from named))"
            )
            self._base.execute(f"delete from pieces where input in ({gone})")
            self._base.execute(f"delete from inputs where id in ({gone})")
            self._base.execute(
                "insert into inputs (source, target, state) select source, target, 'waiting' from named where true "
                "on conflict (source) do nothing"
            )
            self._base.execute(
                "update inputs set state = 'waiting', target = (select target from named where named.source = "
                "inputs.source) where exists (select 1 from named where named.source = inputs.source and "
                "named.target != inputs.target)"
            )

    def inputs(self, state: str, after: int = 0, most: int = 1000) -> list[tuple[int, str, str]]:
        """Return number, source and target of inputs in a state, in order, behind a number."""
        found = self._all(
            "select id, source, target from inputs where state = ? and id > ? order by id limit ?", state, after, most
        )
        return [(number, _name(source), _name(target)) for number, source, target in found]

    def states(self) -> Iterator[tuple[int, str, str, str, str]]:
        """Yield number, source, target, and the states of both as they were, of inputs that are named and done."""
        last = 0
        while True:
            found = self._all(
                "select id, source, target, source_state, target_state from inputs where state = 'done' and id > ?"
                f"{_NAMED} order by id limit 1000",
                last,
            )
            for number, source, target, *states in found:
                yield number, _name(source), _name(target), *states
            if not found:
                return
            last = found[-1][0]

    def finish_input(self, number: int, source_state: str, target_state: str, done: Done) -> None:
        """Record that the results of an input are written, as one piece of work."""
        self._run(
            "update inputs set state = 'done', pixels = ?, source_state = ?, target_state = ?, error = null "
            "where id = ?",
            done.pixels, source_state, target_state, number,
        )  # fmt: skip

    def add_whole(self, number: int, done: Done) -> None:
        """Record the one piece of work of an input that was predicted as a whole."""
        self._run("delete from pieces where input = ?", number)
        self.add_done(number, "whole", (0, 1), done)

    def add_done(self, number: int, kind: str, units: tuple[int, int], done: Done) -> None:
        """Record a piece of an input that is done: its kind, its first unit, and the one after the last."""
        self._run(
            "insert into pieces (input, kind, first, last, state, pixels, size, digest, seconds, host, ended) values "
            "(?, ?, ?, ?, 'done', ?, ?, ?, ?, ?, ?)",
            number, kind, *units, done.pixels, done.size, done.digest, done.seconds, done.host, time.time(),
        )  # fmt: skip

    def note_damage(self, number: int, text: str | None) -> None:
        """Record that a part of a source could not be read, although its result is there. None forgets it."""
        self._run("update inputs set error = ? where id = ?", text, number)

    def fail_input(self, number: int, text: str, ours: bool, most: int) -> bool:
        """Record that an input failed. Returns whether it is tried again: after `most` attempts it is not.

        Pieces that are done stay done; the others are made anew when the command is run again.
        """
        self._run(
            "update inputs set attempts = attempts + 1, error = ?, ours = ?, "
            "state = case when attempts + 1 < ? then 'again' else 'failed' end where id = ?",
            text, int(ours), most, number,
        )  # fmt: skip
        self._run("delete from pieces where input = ? and state != 'done'", number)
        return self.input_state(number) == "again"

    def input_state(self, number: int) -> str:
        """Return the state of an input."""
        return str(self._all("select state from inputs where id = ?", number)[0][0])

    def try_again(self) -> None:
        """Let all inputs that are not done wait, without attempts, and forget pieces that are not done."""
        self._run("update inputs set state = 'waiting', attempts = 0, error = null where state != 'done'")
        self._run("delete from pieces where state != 'done'")

    def forget_result(self, number: int) -> None:
        """Let an input wait whose result has gone."""
        self._run("update inputs set state = 'waiting', attempts = 0, error = null where id = ?", number)
        self._run("delete from pieces where input = ?", number)

    def wait_again(self) -> int:
        """Let the inputs wait that failed and are tried again. Returns how many there are."""
        with naming_failures(self.path):
            return self._base.execute("update inputs set state = 'waiting' where state = 'again'").rowcount

    # ---- pieces of large rasters

    def begin_input(self, number: int, pixels: int, units: int) -> None:
        """Record that the journal of a large raster is begun."""
        self._run("update inputs set state = 'begun', pixels = ?, units = ? where id = ?", pixels, units, number)

    def add_pieces(self, number: int, kind: str, pieces: Iterable[tuple[int, int, int]]) -> None:
        """Add pieces of a raster: first unit, the one after the last, and the number of pixels."""
        self._many(
            "insert into pieces (input, kind, first, last, state, pixels) values (?, ?, ?, ?, 'waiting', ?)",
            ((number, kind, *piece) for piece in pieces),
        )

    def waiting_pieces(self, after: int = 0, most: int = 1000) -> list[Piece]:
        """Return pieces that wait, in order, behind a number."""
        found = self._all(
            "select pieces.id, input, kind, first, last, source, target, pieces.pixels from pieces "
            "join inputs on inputs.id = input where pieces.state = 'waiting' and pieces.id > ? "
            "order by pieces.id limit ?",
            after, most,
        )  # fmt: skip
        return [
            Piece(number, input_, kind, first, last, _name(source), _name(target), pixels)
            for number, input_, kind, first, last, source, target, pixels in found
        ]

    def keep_pieces(self, number: int, missing: Iterable[tuple[int, int]]) -> None:
        """Forget the pieces of a raster that are not done, or whose units are not all in its journal.

        Args:
            number: number of the input.
            missing: first unit, and the one after the last, of each stretch that is not there.
        """
        self._run("delete from pieces where input = ? and not (state = 'done' and kind = 'units')", number)
        self._many(
            "delete from pieces where input = ? and first < ? and last > ?",
            ((number, last, first) for first, last in missing),
        )

    def piece_pixels(self, number: int) -> int:
        """Return the number of pixels of the pieces of an input that are done."""
        query = "select coalesce(sum(pixels), 0) from pieces where input = ? and state = 'done' and kind = 'units'"
        return int(self._all(query, number)[0][0])

    def finish_piece(self, number: int, done: Done) -> None:
        """Record that a piece is done."""
        self._run(
            "update pieces set state = 'done', size = ?, digest = ?, seconds = ?, host = ?, ended = ?, error = null "
            "where id = ?",
            done.size, done.digest, done.seconds, done.host, time.time(), number,
        )  # fmt: skip

    def fail_piece(self, number: int, text: str) -> int:
        """Record that a piece failed, and return how often it did."""
        self._run("update pieces set attempts = attempts + 1, error = ? where id = ?", text, number)
        found = self._all("select attempts from pieces where id = ?", number)
        return int(found[0][0]) if found else 0

    def open_pieces(self, number: int) -> set[str]:
        """Return the kinds of the pieces of an input that are not done."""
        return {
            kind
            for (kind,) in self._all("select distinct kind from pieces where input = ? and state != 'done'", number)
        }

    # ---- what `skystill status` and the end of the command say

    def seconds_of(self, number: int) -> float:
        """Return how long the workers took for an input, together."""
        return float(self._all("select coalesce(sum(seconds), 0) from pieces where input = ?", number)[0][0])

    def failed(self, most: int, named: bool = False) -> list[tuple[str, str, bool]]:
        """Return source, reason, and whether SkyStill is at fault, of inputs that failed or are damaged."""
        query = f"select source, error, ours from inputs where error is not null{_NAMED * named} order by id limit ?"
        found = self._all(query, most)
        return [(_name(source), str(error), bool(ours)) for source, error, ours in found]

    def failed_count(self, named: bool = False) -> int:
        """Return how many inputs failed or are damaged."""
        return int(self._all(f"select count(*) from inputs where error is not null{_NAMED * named}")[0][0])

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """Return the number of inputs by state, and of their pixels as far as they are known."""
        found = self._all("select state, count(*), coalesce(sum(pixels), 0) from inputs group by state")
        return {str(state): (int(count), int(pixels)) for state, count, pixels in found}

    def done_pixels(self) -> int:
        """Return the number of pixels that are done, also of rasters that are not."""
        of_begun = "select id from inputs where state not in ('done', 'failed')"
        found = self._all(
            "select (select coalesce(sum(pixels), 0) from inputs where state = 'done') + (select coalesce(sum(pixels), "
            f"0) from pieces where state = 'done' and kind = 'units' and input in ({of_begun}))"
        )
        return int(found[0][0])

    def pixels_since(self, moment: float) -> int:
        """Return the number of pixels of pieces that were done since a moment, in seconds since 1970."""
        query = "select coalesce(sum(pixels), 0) from pieces where ended > ? and kind != 'files'"
        return int(self._all(query, moment)[0][0])

    def piece_counts(self) -> tuple[int, int]:
        """Return how many pieces of large rasters are done, and how many there are of those that were begun."""
        query = "select coalesce(sum(state = 'done'), 0), count(*) from pieces where kind != 'whole'"
        done, count = self._all(query)[0]
        return int(done), int(count)

    def hosts(self) -> list[tuple[str, int, int, float]]:
        """Return each machine with the number of pieces that it did, their pixels, and the seconds that they took."""
        found = self._all(
            "select host, count(*), sum(pixels), sum(seconds) from pieces where state = 'done' group by host "
            "order by host"
        )
        return [(str(host), int(count), int(pixels), float(seconds)) for host, count, pixels, seconds in found]

    def _all(self, query: str, *values: object) -> list[Any]:
        with naming_failures(self.path):
            return self._base.execute(query, values).fetchall()

    def _run(self, query: str, *values: object) -> None:
        with naming_failures(self.path):
            self._base.execute(query, values)

    def _many(self, query: str, rows: Iterable[tuple[object, ...]]) -> None:
        with naming_failures(self.path):
            self._base.executemany(query, rows)


def _to_read(path: Path) -> sqlite3.Connection:
    """Open a manifest to read it. Of a process that was killed, a change may have to be taken back first."""
    base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=_BUSY_SECONDS, uri=True)
    try:
        base.execute("select count(*) from sqlite_master").fetchall()
    except sqlite3.OperationalError:
        base.close()
        base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", timeout=_BUSY_SECONDS, uri=True)
    return base


@contextmanager
def naming_failures(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into an error that names the manifest and says how to go on.

    Raises:
        DiskFull: the disk is full, or cannot be written.
        RunFolderError: the file is damaged, or no manifest.
    """
    try:
        yield
    except (sqlite3.DatabaseError, ValueError) as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK:
            raise DiskFull(path, shortened(error)) from error
        raise RunFolderError(
            f"{path} is damaged ({shortened(error)}). Delete it, and run the same command again: results that are done "
            "are made again, and unfinished ones go on."
        ) from error


def _text(name: object) -> str | bytes:
    """Return a name as SQLite stores it. Bytes of file names that are no UTF-8 stay as they are."""
    text = str(name)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")
    return text


def _name(stored: str | bytes) -> str:
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogateescape")

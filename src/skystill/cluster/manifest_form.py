"""The form of a manifest, and the check of a file: SQLite holds any value in any column, and views that never end."""

import sqlite3
from typing import Any

from skystill.parsing import parse_json

TABLES = """
create table if not exists about (name text primary key, value text not null);
create table if not exists inputs (
    id integer primary key, source text not null unique, target text not null, state text not null,
    attempts integer not null default 0, pixels integer, units integer, source_state text, target_state text,
    error text, ours integer not null default 0
);
create table if not exists pieces (
    id integer primary key, input integer not null, kind text not null, first integer not null, last integer not null,
    state text not null, attempts integer not null default 0, pixels integer not null, size integer, digest text,
    seconds real, host text, error text, ended real
);
create index if not exists inputs_by_state on inputs (state, id);
create index if not exists pieces_by_state on pieces (state, id);
create index if not exists pieces_by_input on pieces (input);
create index if not exists pieces_by_end on pieces (ended);
"""

_LARGE = 2**53  # numbers up to here are exact in every program, and their sums fit into SQLite's
_COLUMNS: dict[str, dict[str, str]] = {
    "about": {"name": "text", "value": "text"},
    "inputs": {
        "source": "name", "target": "name", "state": "state", "attempts": "count",
        "pixels": "count?", "units": "count?",
        "source_state": "text?", "target_state": "text?", "error": "text?", "ours": "count",
    },
    "pieces": {
        "input": "count", "kind": "text", "first": "count", "last": "count", "state": "state", "attempts": "count",
        "pixels": "count", "size": "count?", "digest": "text?", "seconds": "number?", "host": "text?", "error": "text?",
        "ended": "number?",
    },
}  # fmt: skip
_KINDS: dict[str, tuple[type, ...]] = {
    "version": (int,),
    "settings": (dict,),
    "state": (str,),
    "began": (int, float),
    "updated": (int, float),
    "workers": (int,),
    "dashboard": (str, type(None)),
    "windows": (int,),
    "windows_done": (int,),
    "windows_rate": (int, float),
}
_LAST_MOMENT = 1e11  # seconds since 1970: the year 5138


def check_schema(base: sqlite3.Connection, is_whole: bool) -> None:
    """Check that a database has the tables of a manifest, and nothing else.

    Args:
        base: the database.
        is_whole: whether all tables must be there. Of a process that was killed, they may not be.

    Raises:
        ValueError: it has others.
    """
    with sqlite3.connect(":memory:") as sound:
        sound.executescript(TABLES)
        expected = _schema(sound)
    sound.close()
    found = _schema(base)
    if not found <= expected or (is_whole and found != expected):
        raise ValueError("its tables are not those of a manifest")


def _schema(base: sqlite3.Connection) -> set[tuple[object, ...]]:
    rows = base.execute("select type, name, tbl_name, sql from sqlite_master")
    return {(*row[:3], " ".join(str(row[3]).split())) for row in rows}


def check_values(base: sqlite3.Connection) -> None:
    """Check the kinds of all values.

    Raises:
        ValueError: a value is of another kind, or a number too large.
    """
    for table, columns in _COLUMNS.items():
        wrong = " or ".join(f"not ({_is(kind, column)})" for column, kind in columns.items())
        if base.execute(f"select 1 from {table} where {wrong} limit 1").fetchone():
            raise ValueError(f"a value in {table} is of another kind")


def _is(kind: str, column: str) -> str:
    """Return the condition that a column holds values of a kind."""
    if kind == "state":
        return f"{column} in ('waiting', 'begun', 'again', 'done', 'failed')"
    types = {"text": "'text'", "name": "'text', 'blob'", "count": "'integer'", "number": "'integer', 'real'"}
    name = kind.rstrip("?")
    found = f"typeof({column}) in ({types[name]})"
    if name in ("count", "number"):
        found = f"{found} and {column} between 0 and {_LARGE}"
    return f"{column} is null or ({found})" if kind.endswith("?") else found


def read_value(name: str, text: str) -> Any:  # noqa: ANN401 - what the manifest holds
    """Return a value that is known of the command as a whole.

    Raises:
        ValueError: it is no JSON, or not of the kind that its name has.
    """
    value = parse_json(text)
    if not isinstance(value, _KINDS.get(name, object)):
        raise ValueError(f"its {name} is of another kind")
    if isinstance(value, int | float) and not 0 <= value <= _LAST_MOMENT:
        raise ValueError(f"its {name} is {value}")
    if name == "dashboard" and isinstance(value, str) and not value.startswith(("http://", "https://")):
        raise ValueError("its dashboard is no address")
    return value

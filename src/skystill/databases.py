"""SQLite files from elsewhere: they hold values, and nothing that is computed when they are read or written."""

import re
import sqlite3

_COMPUTES = re.compile(r"^\s*create\s+virtual\b|\bas\s*\(", re.IGNORECASE)


def check_plain_tables(base: sqlite3.Connection) -> None:
    """Refuse a database with views, triggers, virtual tables or columns that are computed.

    A view may never end, a column that is computed may be of any size, and a trigger changes what is written.

    Args:
        base: the database. It was only opened.

    Raises:
        ValueError: it has one.
        sqlite3.Error: it cannot be read.
    """
    for kind, name, text in base.execute("select type, name, sql from sqlite_master"):
        if kind not in ("table", "index") or (kind == "table" and _COMPUTES.search(str(text))):
            raise ValueError(f"{str(name)[:60]} in it is a {kind} that is computed; only plain tables are read")

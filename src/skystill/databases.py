"""SQLite files from elsewhere: they hold values, and nothing that is computed when they are read or written."""

import sqlite3
from collections.abc import Iterator


def check_plain_tables(base: sqlite3.Connection) -> None:
    """Refuse a database with views, triggers, virtual tables or columns that are computed.

    A view may never end, a column that is computed may be of any size, and a trigger changes what is written.

    Args:
        base: the database. It was only opened.

    Raises:
        ValueError: it has one.
        sqlite3.Error: it cannot be read.
    """
    virtual = ((name, "virtual table") for name, root in _tables(base) if not root)
    others = base.execute("select name, type from sqlite_master where type not in ('table', 'index')")
    computed = ((name, "table with computed columns") for name in computed_tables(base))
    for found in (virtual, others, computed):
        for name, kind in found:
            raise ValueError(f"{str(name)[:60]} in it is a {kind}; only plain tables are read")


def computed_tables(base: sqlite3.Connection) -> list[str]:
    """Return the tables with a column that is computed from others. Virtual tables are not asked for their columns.

    SQLite says so itself: the text of a table may hide it in comments.
    """
    columns = "select 1 from pragma_table_xinfo(?) where hidden in (2, 3)"
    return [str(name) for name, root in _tables(base) if root and base.execute(columns, (name,)).fetchone()]


def _tables(base: sqlite3.Connection) -> Iterator[tuple[object, int]]:
    """The name of each table and its first page, which a virtual one does not have."""
    rows = base.execute("select name, rootpage from sqlite_master where type = 'table'").fetchall()
    return ((name, int(root or 0)) for name, root in rows)

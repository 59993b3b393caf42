"""What a prediction wrote, to compare with what another one wrote."""

import sqlite3
from pathlib import Path


def contents(folder: Path) -> dict[str, object]:
    """Every file of a folder: its bytes, or the rows of a GeoPackage, in which only the times of writing differ."""
    return {path.name: tables(path) if path.suffix == ".gpkg" else path.read_bytes() for path in folder.iterdir()}


def tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """The rows of every table of a GeoPackage, without the times of writing."""
    base = sqlite3.connect(path)
    found = {}
    for (name,) in base.execute("select name from sqlite_master where type = 'table'").fetchall():
        columns = [row[1] for row in base.execute(f'pragma table_info("{name}")')]
        kept = ", ".join(f'"{column}"' for column in columns if column not in ("last_change", "update_time"))
        found[name] = base.execute(f'select {kept} from "{name}"').fetchall()
    base.close()
    return found

"""Read the columns of text of a Parquet file, such as a GeoParquet file. Needs pyarrow."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from skystill.errors import SettingsError
from skystill.parsing import MOST_BYTES, PARSE_ERRORS, Refuse, check_plain
from skystill.raster.files import check_regular

_MOST_ROWS = 10**6
_LIMITS = {"thrift_string_size_limit": 2**24, "thrift_container_size_limit": 2**20}  # of what a damaged header declares


def read_parquet(path: Path, wanted: Collection[str], refuse: Refuse) -> list[list[str]]:
    """Return the rows of some columns, their names first, as `skystill.parsing.read_csv` does.

    Other columns, such as geometries, are not read.

    Args:
        path: the file.
        wanted: names of the columns in lower case. Those that the file lacks are left out; without any of them, the
            names of all columns are returned, and no rows.
        refuse: makes the error from a reason.

    Raises:
        UserError: the file cannot be read, is too large, or a column holds no text. `refuse` made it.
        SettingsError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise SettingsError(
            f'{error}: Parquet files need it. Install it with pip install "skystill[parquet]", or write the file as '
            "CSV: ogr2ogr -select image,labels OUT.csv IN.parquet."
        ) from error
    check_regular(path)
    try:
        with ParquetFile(path, **_LIMITS) as file:
            names = [name for name in file.schema_arrow.names if name.strip().lower() in wanted]
            if not names:
                return [list(file.schema_arrow.names)]
            return _rows(file, names)
    except (pyarrow.ArrowException, NotImplementedError, OSError, *PARSE_ERRORS) as error:
        raise refuse(
            f"it cannot be read as Parquet: {' '.join(str(error).split())[:200] or type(error).__name__}"
        ) from error


def _rows(file: Any, names: list[str]) -> list[list[str]]:  # noqa: ANN401 - a ParquetFile
    """Return names and rows.

    Raises:
        ValueError: they are too many, or no text.
    """
    found = file.metadata
    sizes = [found.row_group(g).column(c) for g in range(found.num_row_groups) for c in range(found.num_columns)]
    size = sum(column.total_uncompressed_size for column in sizes if column.path_in_schema in names)
    if found.num_rows > _MOST_ROWS or size > MOST_BYTES:
        raise ValueError(f"{found.num_rows:,} rows of {size / 2**20:.0f} MiB; at most {_MOST_ROWS:,} are read")
    table = file.read(columns=names, use_threads=False)
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    strange = [name for name in names if str(table.schema.field(name).type) not in ("string", "large_string", "null")]
    if strange:
        kinds = ", ".join(f"{name} {table.schema.field(name).type}" for name in strange)
        raise ValueError(f"columns of text are wanted ({kinds})")
    content = [names, *([cell or "" for cell in row] for row in rows)]
    check_plain(content)
    return content

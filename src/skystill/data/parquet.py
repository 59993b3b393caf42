"""Read the columns of text of a Parquet file, such as a GeoParquet file. Needs pyarrow."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from skystill.errors import SettingsError
from skystill.parsing import MOST_BYTES, MOST_ROWS, PARSE_ERRORS, Refuse, check_plain
from skystill.raster.files import check_regular

_TEXT = re.compile(r"(dictionary<values=)?(string|large_string|null)\b")
_DATE = re.compile(r"timestamp\[|date(32|64)\[")
_LIMITS = {"thrift_string_size_limit": 2**24, "thrift_container_size_limit": 2**20}  # of what a damaged header declares


def read_parquet(path: Path, wanted: Collection[str], refuse: Refuse) -> list[list[str]]:
    """Return the rows of some columns, their names first, as `skystill.parsing.read_csv` does.

    Other columns, such as geometries, are not read. Dates become texts of ISO 8601.

    Args:
        path: the file.
        wanted: names of the columns in lower case. Those that the file lacks are left out; without any of them, the
            names of all columns are returned, and no rows.
        refuse: makes the error from a reason.

    Raises:
        UserError: the file cannot be read, is too large, or a column holds neither text nor dates. `refuse` made it.
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
            _check_kinds(file, names)
        # A text that stands there many times is held once: a file of 20 kB may stand for gigabytes.
        with ParquetFile(path, read_dictionary=names, **_LIMITS) as file:
            return _rows(file, names)
    except (pyarrow.ArrowException, NotImplementedError, OSError, *PARSE_ERRORS) as error:
        raise refuse(
            f"it cannot be read as Parquet: {' '.join(str(error).split())[:200] or type(error).__name__}"
        ) from error


def _check_kinds(file: Any, names: list[str]) -> None:  # noqa: ANN401 - a ParquetFile
    """Refuse columns that hold no text, before they are read.

    Raises:
        ValueError: there is one.
    """
    kinds = {name: str(file.schema_arrow.field(name).type) for name in names}
    strange = [f"{name} {kind}" for name, kind in kinds.items() if not (_TEXT.match(kind) or _DATE.match(kind))]
    if strange:
        raise ValueError(f"columns of text are wanted ({', '.join(strange)})")


def _rows(file: Any, names: list[str]) -> list[list[str]]:  # noqa: ANN401 - a ParquetFile
    """Return names and rows.

    Raises:
        ValueError: they are too many, or too long.
    """
    found = file.metadata
    sizes = [found.row_group(g).column(c) for g in range(found.num_row_groups) for c in range(found.num_columns)]
    size = sum(column.total_uncompressed_size for column in sizes if column.path_in_schema in names)
    if found.num_rows > MOST_ROWS or size > MOST_BYTES:
        raise ValueError(f"{found.num_rows:,} rows of {size / 2**20:.0f} MiB; at most {MOST_ROWS:,} are read")
    table = file.read(columns=names, use_threads=False)
    texts = (column.cast("string") if _DATE.match(str(column.type)) else column for column in table.columns)
    columns = [[cell for chunk in column.chunks for cell in _cells(chunk)] for column in texts]
    letters = sum(len(cell) for column in columns for cell in column)
    if letters > MOST_BYTES:
        raise ValueError(f"its texts have {letters:,} characters; at most {MOST_BYTES:,} are read")
    content = [names, *map(list, zip(*columns, strict=True))]
    check_plain(content)
    return content


def _cells(chunk: Any) -> list[str]:  # noqa: ANN401 - an array of pyarrow
    """Return the texts of a part of a column, "" for those that are missing."""
    if not hasattr(chunk, "dictionary"):
        return [cell or "" for cell in chunk.to_pylist()]
    texts = chunk.dictionary.to_pylist()
    return ["" if place is None else texts[place] or "" for place in chunk.indices.to_pylist()]

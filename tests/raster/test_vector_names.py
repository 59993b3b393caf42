"""Paths that pyogrio would take for something else."""

from pathlib import Path

import pytest

from skystill.errors import SettingsError
from skystill.raster.vector_names import check_vector_name

NAMES = (
    "a.gpkg", "out/a b.gpkg", "a#1.gpkg", "a?b.gpkg", "a%20b.gpkg", "a:b/c.gpkg", "C:/a.gpkg", "ä,ö.gpkg", "a'b&c.gpkg",
    "field!plots.gpkg", "!map/labels.gpkg", "/data/p!v2/labels.gpkg", "a;b.gpkg", "a\tb.gpkg", "a\nb.gpkg",
    "zip:a.gpkg", "file:a.gpkg", "zip+s3:a.gpkg", "S3:a.gpkg", "zipped/a.gpkg", "filex:a.gpkg", "[a].gpkg",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_pyogrio_changes_is_refused(name: str) -> None:
    util = pytest.importorskip("pyogrio.util")
    if util.vsi_path(name) == name:
        check_vector_name(Path(name))
    else:
        with pytest.raises(SettingsError, match=r"would open another file|begins as an address"):
            check_vector_name(Path(name))

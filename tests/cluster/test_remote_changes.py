"""An input on a server that was replaced after its result was made: it is refused by its name, as a local one."""

import os
from pathlib import Path

import pytest

from skystill.api import predict
from skystill.errors import RunFolderError
from tests.cluster.archives import small_tiles, write_raster
from tests.raster.folder_server import serving

pytestmark = pytest.mark.usefixtures("short_tasks")


def test_an_input_on_a_server_that_changes_is_refused_by_name(tmp_path: Path, address: str) -> None:
    small, large = ((tmp_path / f"www/{name}.tif") for name in ("small", "large"))
    write_raster(small, 60, 80)
    write_raster(large, 400, 300)
    with serving(tmp_path / "www", tmp_path / "log") as server:
        inputs = [f"{server.url}/date/{path.name}" for path in (small, large)]
        given = {"model": small_tiles(tmp_path), "out": tmp_path / "out", "dask": address}
        assert len(predict(inputs=inputs, **given)) == 2  # type: ignore[arg-type]
        assert predict(inputs=inputs, **given) == []  # type: ignore[arg-type]
        for path in (small, large):
            os.utime(path, (1, 1))
        with pytest.raises(RunFolderError, match=r"2 inputs have changed since .*small\.tif"):
            predict(inputs=inputs, **given)  # type: ignore[arg-type]

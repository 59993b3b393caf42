"""The smallest limit of memory that a command names is kept by its process, whatever it reads and writes."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from skystill.predict.stream import softmax, to_layers
from tests.measured import run

TILED: dict[str, Any] = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "16 bits with nodata": ({**TILED, "dtype": "uint16", "nodata": 0}, ()),
    "one strip": ({"blockysize": 2000, "compress": "lzw"}, ()),
    "wide strips with nodata": ({"blockysize": 1, "width": 9000, "height": 400, "nodata": 0}, ("--probabilities",)),
    "mosaic": (TILED, ("--mosaic=grid.yaml", "--smooth=5", "--min-area=30px", "--areas")),
    "all that is written": (TILED, ("--mode=blend", "--confidence", "--areas", "--overlay", "--cog", "--vector=gpkg")),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read as Linux gives it")
@pytest.mark.parametrize("case", CASES)
def test_the_smallest_limit_is_kept(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, flags = CASES[case]
    profile = {
        "driver": "GTiff", "height": 1500, "width": 1800, "count": 3, "dtype": "uint8", "crs": "EPSG:32640",
        "transform": from_origin(300_000, 2_800_000, 0.5, 0.5), **options,
    }  # fmt: skip
    with rasterio.open(tmp_path / "in.tif", "w", **profile) as file:
        coarse = np.random.default_rng(1).integers(1, 200, (3, file.height // 10, file.width // 10))
        bands = coarse.repeat(10, 1).repeat(10, 2) * (1 if profile["dtype"] == "uint8" else 20)
        bands[:, :, :600] = 0
        file.write(bands.astype(profile["dtype"]))
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text("{crs: EPSG:3857, resolution: 0.4}")
    command = ["predict", tmp_path / "in.tif", f"--out={tmp_path / 'o.tif'}", "--threads=2", *flags]
    code, said, _ = run(*command, "--max-memory=1MB")
    named = re.search(r"smallest possible is (\d+)MB", " ".join(said.split()))
    assert code == 2 and named, said
    code, said, peak = run(*command, f"--max-memory={named[1]}MB")
    if code == 2 and "mosaic" in case:  # what its inputs need is named when they are predicted
        named = re.search(r"smallest possible is (\d+)MB", " ".join(said.split()))
        assert named, said
        code, said, peak = run(*command, f"--max-memory={named[1]}MB")
    assert code == 0, said
    assert peak <= int(named[1]) * 10**6


def test_probabilities_strip_by_strip_are_those_of_the_whole() -> None:
    logits = np.random.default_rng(0).normal(size=(6, 700, 900)).astype(np.float32)
    assert 700 * 900 > 2 * 2**17  # several strips
    whole = softmax(logits)
    found = to_layers(logits, ("classes", "confidence", "probabilities"), is_logits=True)
    assert np.array_equal(found["classes"][0], logits.argmax(axis=0))
    assert np.array_equal(found["confidence"][0], np.rint(whole.max(axis=0) / (1 / 250)).astype(np.uint8))
    assert np.array_equal(found["probabilities"], np.rint(whole / (1 / 250)).astype(np.uint8))

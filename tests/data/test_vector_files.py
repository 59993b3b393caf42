"""What a vector file may be: no names of other files, no endless views, no pipes beside it."""

import os
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import shapely

from skystill.data import vectors
from skystill.data.vector_files import MOST_HELD_BYTES, check_vector
from skystill.data.vectors import list_layers, read_batches
from skystill.errors import DataError
from tests.maps import write_layer

LINK = '"properties": {"href": "http://127.0.0.1:9/x", "type": "proj4"}, "type": "link"'
LINKED = [
    f'"crs": {{{LINK}}}',
    f'"\\u0063rs": {{{LINK}}}',  # each letter may be escaped
    f'"\\u0043\\u0072\\u0053": {{{LINK}}}',  # GDAL does not mind case
    f'"crs": {{"x": {{}}, {LINK}}}',
    f'"crs": {{{LINK.replace("link", chr(92) + "u006cink")}}}',
    f'"crs": {{{LINK.replace(chr(34) + "link", chr(34) + "URL")}}}',
    f'"crs": {{"type": "name", {LINK}}}',  # which of two keys is taken is up to the parser
    f'"crs": {{"Type": "name", {LINK}}}',
    f'"crs" /* GDAL passes over comments */ : {{{LINK}}}',
    f"'crs': {{{LINK}}}",
    f'"crs": {{"x": "{"x" * 2**16}", {LINK}}}',  # longer than is looked at
]
NAMED = [
    '"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}',
    '"crs": {"type": "EPSG", "properties": {"code": 4326}}',
    '"crs": null',
    '"name": "crs"',
    '"properties": {"crs": "EPSG:4326", "href": "http://127.0.0.1:9/x", "type": "link"}',
]


def geojson(path: Path, crs: str) -> Path:
    path.write_text(f'{{"type": "FeatureCollection", {crs}, "features": []}}')
    return path


@pytest.mark.parametrize("crs", LINKED)
def test_geojson_with_a_crs_elsewhere_is_refused(crs: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes its CRS from another file or address"):
        check_vector(geojson(tmp_path / "labels.geojson", crs))


@pytest.mark.parametrize("crs", NAMED)
def test_geojson_with_a_crs_by_name_or_an_attribute_of_that_name_passes(crs: str, tmp_path: Path) -> None:
    check_vector(geojson(tmp_path / "labels.geojson", crs))


def test_geojson_that_is_too_large_to_look_at_is_not_opened(tmp_path: Path) -> None:
    path = geojson(tmp_path / "labels.geojson", LINKED[0])
    os.truncate(path, MOST_HELD_BYTES + 1)
    with pytest.raises(DataError, match="and no spatial index"):
        check_vector(path)


ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n) select c.* from c, n"
CHANGES = {
    "contents": (["alter table gpkg_contents rename to c", f"create view gpkg_contents as {ENDLESS}"], "is a view"),
    "layer": (["alter table roofs rename to c", f"create view roofs as {ENDLESS}"], "is a view"),
    "computed": (
        ["alter table roofs add column big text generated always as (hex(zeroblob(400000000))) virtual"],
        "is computed in part",
    ),
    "computed behind a comment": (
        ["alter table roofs add column big text generated always as/**/(hex(zeroblob(400000000))) virtual"],
        "is computed in part",
    ),
    "virtual": (["create virtual table notes using fts4(text)"], "is a virtual one"),
    "virtual and a comment": (
        ["create virtual table notes using/*x*/fts4(text /* using rtree( */)"],
        "is a virtual one",
    ),
    "a spatial index in quotes": (["create virtual table \"my index\" using 'rtree'(id, a, b)"], ""),
    "other view": (["create view mine as select 1"], ""),
    "a comment": (["create table mine (kind text check (kind <> 'as (')) "], ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_geopackage_is_read_and_not_computed(change: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.gpkg"
    write_layer(path, [shapely.box(500_000, 0, 500_010, 10)], "roofs")
    made, words = CHANGES[change]
    with sqlite3.connect(path) as file:
        for one in made:
            file.execute(one)
    file.close()
    if not words:
        assert [layer.name for layer in list_layers(path)] == ["roofs"]
        return
    with pytest.raises(DataError, match=words):
        check_vector(path)


@pytest.mark.parametrize("size", [1, 7, 20, 100])
@pytest.mark.parametrize("limit", ["_BATCH", "_BATCH_BYTES"])
def test_features_are_read_in_batches(size: int, limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels.gpkg"
    write_layer(path, [shapely.box(500_000 + x, 0, 500_001 + x, 10) for x in range(20)], "roofs", x=list(range(20)))
    with sqlite3.connect(path) as file:  # as after an edit
        file.create_function("ST_IsEmpty", 1, lambda _: 0)
        file.execute("delete from roofs where fid in (1, 5, 6, 7, 8, 20)")
        kept = [fid for (fid,) in file.execute("select fid from roofs")]
    file.close()
    monkeypatch.setattr(vectors, limit, size * path.stat().st_size // 14 if limit == "_BATCH_BYTES" else size)
    (layer,) = list_layers(path)
    batches = list(read_batches(layer, ("x",)))
    assert np.concatenate([one.ids for one in batches]).tolist() == kept and len(kept) == 14
    assert np.concatenate([one.values["x"] for one in batches]).tolist() == [fid - 1 for fid in kept]
    assert max(map(len, batches)) <= size


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["labels.dbf", "labels.shx", "labels.prj", "labels.cpg", "labels.qix", "labels.sbn"])
def test_a_pipe_beside_a_shapefile_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.shp"
    write_layer(path, [shapely.box(500_000, 0, 500_010, 10)], kind=["a"])
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{re.escape(name)} is a named pipe"):
        list_layers(path)


def test_a_crs_of_gigabytes_beside_a_shapefile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.shp"
    write_layer(path, [shapely.box(500_000, 0, 500_010, 10)], kind=["a"])
    check_vector(path)
    os.truncate(path.with_suffix(".prj"), 2**33)
    with pytest.raises(DataError, match=r"labels\.prj has 8,589,934,592 bytes"):
        check_vector(path)


def test_the_crs_of_a_layer_names_no_grid_file_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "labels.gpkg"
    write_layer(path, [shapely.box(10, 40, 11, 41)], crs="+proj=longlat +ellps=bessel +nadgrids=/etc/passwd")
    with pytest.raises(DataError, match="names the grid file /etc/passwd"):
        list_layers(path)

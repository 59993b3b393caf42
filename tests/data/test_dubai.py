"""The real data set of the mission, where it lies beside the project. It is not part of the repository."""

import os
from pathlib import Path

import pytest

from skystill.data import check_data, find_pairs, resolve_classes, split_pairs

DUBAI = Path(os.environ.get("SKYSTILL_DUBAI", Path(__file__).parents[3] / "shared/data/dubai"))
pytestmark = pytest.mark.skipif(not DUBAI.is_dir(), reason="the Dubai data is not here (SKYSTILL_DUBAI)")


def test_the_traps_of_the_dubai_data_are_told() -> None:
    search = find_pairs(DUBAI)
    assert (len(search.pairs), search.problems) == (72, ())
    classes, notes = resolve_classes(DUBAI, None, search.pairs)
    assert any("Road: " in note and "says #DE597F, the masks use #6EC1E4" in note for note in notes)
    check = check_data(search, classes)
    assert check.problems == ()
    (void,) = check.notes
    assert "#000000" in void
    assert "552,156 pixels" in void
    for largest in ("Tile 8/masks/image_part_003.png (545,723)", "Tile 7/masks/image_part_009.png (2,725)"):
        assert largest in void
    sizes = sorted((record.width, record.height) for record in check.records)
    assert (sizes[0], sizes[-1]) == ((509, 544), (2149, 1480))
    split = split_pairs(search.pairs, "auto")
    assert (split.rule, len(split.train), len(split.validation), len(split.test)) == ("dubai", 48, 8, 16)

"""760 damaged inputs of all kinds through the command line: none may end otherwise than in words (README.md)."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.harness import Tally, prepare, run_cases

FIRST, COUNT = 0, int(os.environ.get("SKYSTILL_FUZZ", "500"))
OF_MAPS = 60


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="looks at memory and files as Linux shows them")
def test_damaged_inputs_end_in_words(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    world = prepare(tmp_path / "world")
    tally = run_cases(world, FIRST, COUNT, Tally(out=tmp_path / "failures"))
    tally = run_cases(world, -OF_MAPS, OF_MAPS, tally)
    record_property("fuzz", tally.describe())  # tests/conftest.py prints it
    assert not tally.failures, [(one["begun"], one["kind"], one["damage"], one["problems"]) for one in tally.failures]
    assert tally.tried == COUNT + OF_MAPS
    assert len(tally.kinds) > 80 and min(tally.codes[0], tally.codes[2]) > COUNT // 10

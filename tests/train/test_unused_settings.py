"""Settings that would change nothing are refused before any file is opened."""

import pytest

from skystill.errors import SettingsError
from skystill.settings import DistillSettings
from skystill.train.teaching import check_teaching

UNUSED = {
    "a layer of the student": ({"student_layer": "nope"}, "--student-layer nope: no loss compares layers"),
    "a layer of the teacher": ({"teacher_layer": "nope"}, "--teacher-layer nope: no loss compares layers"),
    "a cache of no logits": ({"cache": "logits"}, "--cache is for cached logits"),
    "bits of no cache": ({"cache_bits": "16"}, "--cache-bits is for cached logits"),
    "symmetry of no cache": ({"cache_symmetry": "none"}, "--cache-symmetry is for cached logits"),
    "figures without a budget": ({"measured": "pi.json"}, "--measured pi.json is for a budget"),
}
USED = (
    {"student_layer": "down", "teacher_layer": "down", "distillation_loss": "kl+0.5*pkd"},
    {"cache": "logits", "cache_bits": "16", "cache_symmetry": "none", "teacher_mode": "cached"},
    {"measured": "pi.json", "max_size": "300KB"},
    {"cache_bits": "8", "cache_symmetry": "d4"},  # the defaults
)


@pytest.mark.parametrize("case", UNUSED)
def test_what_would_change_nothing_is_refused(case: str) -> None:
    given, says = UNUSED[case]
    with pytest.raises(SettingsError, match=says):
        check_teaching(DistillSettings(data="d", teacher="t", out="o", **given))


@pytest.mark.parametrize("given", USED)
def test_what_is_used_is_taken(given: dict[str, str]) -> None:
    check_teaching(DistillSettings(data="d", teacher="t", out="o", **given))

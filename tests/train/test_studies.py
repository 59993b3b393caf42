"""A study holds trials that can be compared, and is found again. Nothing is trained here: the scores are made up."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from skystill.errors import LossNotFinite, SettingsError
from skystill.run_folder import RunFolder, write_text
from skystill.settings import DistillSettings, TuneSettings
from skystill.train import tune

Search = Callable[..., optuna.Study]


@pytest.fixture
def search(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Runs a study whose trials score what they have drawn for alpha, in place of a training."""
    monkeypatch.setattr(tune, "distill_run", begin)
    monkeypatch.setattr(tune, "_last_validation_miou", lambda run: run.read_config()["alpha"])

    def run(
        out: str = "study", fill: Callable[[DistillSettings], None] = lambda _: None, **more: object
    ) -> optuna.Study:
        own = {"data": scenes, "teacher": ["teacher"], "out": tmp_path / out, "trials": 3}
        return tune.run_study(TuneSettings(**(own | more)), fill)  # type: ignore[arg-type]

    return run


def begin(settings: DistillSettings, *_: object) -> None:
    settings.out.mkdir(parents=True, exist_ok=True)
    write_text(RunFolder(settings.out).config, f"alpha: {settings.alpha}\n")


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 9},
        {"seed": 5},
        {"split": "0.4/0.2/0.4"},
        {"teacher": ["another"]},
        {"crop": 64},
        {"limit_images": 3},
        {"cache_bits": "16"},
        {"unlabeled": [Path("photos")]},
        {"fit_masks": True},
    ],
)
def test_a_study_is_joined_with_its_own_settings_only(search: Search, other: dict[str, object]) -> None:
    before = search()
    name = next(iter(other))
    with pytest.raises(SettingsError, match=f"began with other settings.*{name} was .*, is now "):
        search(trials=4, **other)
    assert len(search().trials) == len(before.trials) == 3
    assert len(search(trials=4, cache=Path("elsewhere")).trials) == 4  # where the logits lie changes no score


def test_other_data_is_refused(search: Search, scenes: Path, tmp_path: Path) -> None:
    search()
    (tmp_path / "copy").symlink_to(scenes)
    with pytest.raises(SettingsError, match=r"data was .*scenes.*, is now .*copy"):
        search(data=tmp_path / "copy")


@pytest.mark.parametrize("more", [{}, {"epochs": 3}])
def test_two_folders_of_one_name_do_not_share_a_study_of_a_database(
    search: Search, tmp_path: Path, more: dict[str, object]
) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    search("one/tune", storage=storage)
    with pytest.raises(SettingsError, match="choose an --out of another name"):
        search("two/tune", storage=storage, **more)
    assert len(search("two/other", storage=storage, trials=1, **more).trials) == 1
    assert len(search("one/tune", storage=storage, trials=4).trials) == 4


def test_a_renamed_folder_keeps_its_study(search: Search, tmp_path: Path) -> None:
    before = [trial.params for trial in search().trials]
    (tmp_path / "study").rename(tmp_path / "renamed")
    assert [trial.params for trial in search("renamed", trials=4).trials][:3] == before


def test_trials_of_a_lost_database_are_not_mixed_with_new_ones(search: Search, tmp_path: Path) -> None:
    search()
    (tmp_path / "study/study.db").unlink()
    with pytest.raises(SettingsError, match="holds trials, and the database knows no trial"):
        search()


def test_a_wrong_teacher_leaves_no_trial(search: Search, tmp_path: Path) -> None:
    def missing(_: DistillSettings) -> None:
        raise SettingsError("no teacher")

    with pytest.raises(SettingsError, match="no teacher"):
        search(fill=missing)
    assert not list((tmp_path / "study").glob("trials/*"))
    assert [trial.state.name for trial in search().trials] == ["COMPLETE"] * 3


def test_an_error_does_not_shift_what_is_drawn(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = [trial.params for trial in search("fresh").trials]

    def fail(*_: object) -> None:
        raise SettingsError("no such file")

    with monkeypatch.context() as patched:
        patched.setattr(tune, "distill_run", fail)
        for _ in range(2):
            with pytest.raises(SettingsError, match="no such file"):
                search("mended")
    study = search("mended")
    assert [trial.params for trial in study.trials if trial.state.name == "COMPLETE"] == fresh
    assert tune.best_line(study).startswith("best of 3: ")


def test_no_trial_with_a_score_is_said(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(*_: object) -> None:
        raise LossNotFinite(1, {"loss": float("inf")}, None)

    monkeypatch.setattr(tune, "distill_run", infinite)
    with pytest.raises(SettingsError, match="none of the 3 finished trials has a score"):
        search()


def test_more_trials_than_asked_for_are_said(search: Search, scenes: Path, tmp_path: Path) -> None:
    study = search()
    settings = TuneSettings(data=scenes, teacher=["teacher"], out=tmp_path / "study", trials=2)
    assert tune.where_it_goes_on(settings, study).endswith("3 trials are finished, and --trials 2 asks for no more.")

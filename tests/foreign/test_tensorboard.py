from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from skystill.run_folder import RunFolder
from skystill.train.loggers import check_loggers, open_loggers

ROWS = [{"epoch": n, "loss": 1 / n, "validation_miou": n / 8} for n in (1, 2, 3, 4)]


def test_a_resumed_run_appends_and_doubles_nothing(tmp_path: Path) -> None:
    check_loggers(["tensorboard"])
    run = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt), open_loggers(["tensorboard"], run, {"epochs": 4}, print) as log:
        for count in (1, 2, 3):
            log(ROWS[:count])
        raise KeyboardInterrupt
    with open_loggers(["tensorboard"], run, {"epochs": 4}, print) as log:
        log(ROWS[:3])
        log(ROWS)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(point.step, point.value) for point in found.Scalars("validation_miou")] == [
        (1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5),
    ]  # fmt: skip
    assert sorted(found.Tags()["scalars"]) == ["loss", "validation_miou"]
    content = found.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    settings = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["epochs"].number_value == 4


def test_a_logger_that_a_resumed_run_adds_gets_all_epochs(tmp_path: Path) -> None:
    with open_loggers(["tensorboard"], RunFolder(tmp_path), {"epochs": 4}, print) as log:
        log(ROWS[:3])
        log(ROWS)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [point.step for point in found.Scalars("loss")] == [1, 2, 3, 4]

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from skystill.errors import SettingsError
from skystill.train.loop.ranks import (
    GlobalBatchNorm,
    check_launched,
    environment_of_one,
    rank_and_count,
    use_global_batch_norm,
)

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.mark.slow
@pytest.mark.timeout(900)  # twenty seconds, or two minutes where the machine is busy
def test_two_ranks_have_the_loss_curve_of_one(scenes: Path, tmp_path: Path) -> None:
    """Dice, DIST and FitNet beside KL: losses that are no mean over pixels, BatchNorm, and weights of a loss."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, start in (("one", []), ("two", torchrun)):
        command = [sys.executable, *start, str(SCRIPT), str(scenes), str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one", "two"))
    assert len(one) == 9 and one[0]["loss"] > one[7]["loss"]
    for alone, shared in zip(one, two, strict=True):
        assert shared.keys() == alone.keys()
        for name, value in alone.items():  # one pixel on the edge between two classes may fall the other way
            assert shared[name] == pytest.approx(value, rel=1e-5 if name.endswith("loss") else 1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("--batch-size=3", "--batch-size 3 cannot be shared by --devices 2"),
        ("--split=0.99/0.01/0", "leaves nothing for test"),  # found by the processes themselves
    ],
)
def test_a_mistake_is_one_message_in_several_processes_too(wrong: str, says: str, scenes: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "skystill", "train", f"--data={scenes}", "--network=kite-nano", "--devices=2"]
    command += ["--crop=32", "--no-report", f"--out={tmp_path / 'run'}", wrong]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr and "--resume" not in done.stderr


def test_norms_are_turned_in_place_and_evaluate_as_before() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    images = torch.randn(2, 3, 5, 5)
    network(images)
    before, weights = network.eval()(images), list(network.parameters())
    use_global_batch_norm(network)
    assert type(network[1]) is GlobalBatchNorm
    assert torch.equal(network(images), before)
    assert all(one is other for one, other in zip(network.parameters(), weights, strict=True))


def test_a_process_beside_a_rank_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_and_count() == (0, 1)
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    assert rank_and_count() == (1, 4)
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"} & environment_of_one().keys()


@pytest.mark.parametrize(
    ("started", "devices", "nodes", "says"),
    [
        ({}, 1, 1, None),
        ({}, 2, 1, None),  # a process that will start the ranks
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}, 1, 2, None),
        ({"RANK": "7", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, 4, 2, None),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}, 1, 1, "2 were started.*--devices 1 --nodes 2"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, 1, 2, "2 of them on this.*--devices 2 --nodes 1"),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, 1, 2, "1 were started.*--devices 1 --nodes 1"),
    ],
)
def test_other_processes_than_the_settings_say_are_refused(
    started: dict[str, str], devices: int, nodes: int, says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    if says is None:
        check_launched(devices, nodes)
    else:
        with pytest.raises(SettingsError, match=says):
            check_launched(devices, nodes)

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from skystill.errors import CheckpointError, Interrupted, LossNotFinite
from skystill.progress import EpochEnd, Event, Message, Progress
from skystill.report.metrics import METRICS
from skystill.train import Supervised
from skystill.train.batches.batches import Batch, as_batch
from skystill.train.loop.checkpoint import Checkpointer
from skystill.train.loop.meter import Meter
from skystill.train.loop.stepper import learning_rate

STEPS = 5


class Batches:
    """Five random batches an epoch; a hook runs before each."""

    steps_per_epoch = STEPS

    def __init__(self, before: Mapping[tuple[int, int], object] | None = None) -> None:
        self.before = before or {}

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for step in range(start, STEPS):
            hook = self.before.get((epoch, step))
            if callable(hook):
                hook()
            generator = torch.Generator().manual_seed(100 * epoch + step)
            images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=generator)
            yield as_batch((images, images.sum(dim=1).long() // 256))


class Killed(BaseException):
    """As abrupt as a test can be without a process; tests/cli/test_kill.py uses kill -9."""


def kill() -> None:
    raise Killed


def task(seed: int = 0) -> Supervised:
    torch.manual_seed(seed)
    network = nn.Sequential(_Scale(), nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1))
    made = Supervised(network, Fabric(accelerator="cpu", devices=1))
    # metrics of its own, as the commands have (`metrics_for`)
    made.compile(torch.optim.AdamW(network.parameters(), lr=0.01), metrics=dict(METRICS))
    return made


class _Scale(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() / 255


def checkpointer(path: Path, saves_each_step: bool = True) -> Checkpointer:
    return Checkpointer(path, lambda history: None, clock=lambda: next(ticks) if saves_each_step else 0.0)


ticks = count(0.0, 100.0)


def weights(trained: Supervised) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.network.state_dict().items()}


@pytest.mark.parametrize(
    ("moment", "each_step", "saved"),
    [
        # killed before this epoch and step; with a checkpoint after each step it goes on from just there
        ((0, 3), True, (0, 3)),
        ((1, 0), True, (1, 0)),
        ((2, 4), True, (2, 4)),
        # with one after each epoch only, it goes back to the epoch's first step
        ((1, 0), False, (1, 0)),
        ((2, 4), False, (2, 0)),
        # before the first checkpoint nothing is kept
        ((0, 0), True, None),
        ((0, 0), False, None),
        ((0, 3), False, None),
    ],
)
def test_a_killed_run_resumes_to_the_same_weights(
    tmp_path: Path, moment: tuple[int, int], each_step: bool, saved: tuple[int, int] | None
) -> None:
    path = tmp_path / "resume.pt"
    with pytest.raises(Killed):
        task().fit(Batches({moment: kill}), epochs=3, average=0.9, checkpointer=checkpointer(path, each_step))
    if saved is None:
        assert not path.exists()
    else:
        content = torch.load(path, weights_only=True)
        assert (content["epoch"], content["step"]) == saved
    # The second process starts from other weights: those of the checkpoint must replace them. Without a checkpoint
    # it is a run of its own, from these weights.
    resumed = task(seed=1)
    said: list[Event] = []
    saver = checkpointer(path, each_step)
    history = resumed.fit(Batches(), epochs=3, average=0.9, checkpointer=saver, on_progress=said.append)
    lines = [event.text for event in said if isinstance(event, Message)]
    goes_on = saved and f"{path}: it goes on with epoch {saved[0] + 1} of 3, step {saved[1] + 1} of 5."
    assert lines == ([goes_on] if saved else [])
    first = next(event for event in said if isinstance(event, Progress))
    assert (first.done, first.total) == (5 * saved[0] + saved[1] if saved else 0, 15)  # the bar stands there at once
    whole = task(seed=0 if saved else 1)
    expected = whole.fit(Batches(), epochs=3, average=0.9)
    found = weights(resumed)
    assert found.keys() == weights(whole).keys()
    for name, value in weights(whole).items():
        assert torch.equal(value, found[name]), name
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for one, other in zip(expected, history, strict=True):
        for name in ("loss", "miou", "learning_rate"):
            assert one[name] == other[name], name
    assert not torch.equal(weights(task(seed=0))["1.weight"], weights(task(seed=1))["1.weight"])


def press_and_stop(path: Path) -> None:
    """Press Ctrl-C in the third step of the second epoch, in a process of its own."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"stopped after step 8; .*--resume"):
        task().fit(
            Batches({(1, 2): lambda: os.kill(os.getpid(), signal.SIGINT)}),
            epochs=3,
            checkpointer=checkpointer(path, False),
        )
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_that_is_resumed_gives_its_history_again(tmp_path: Path) -> None:
    """To a logger that is new, or whose server was lost before the end."""
    given: list[list[dict[str, float]]] = []
    for _ in range(2):
        saver = Checkpointer(tmp_path / "resume.pt", lambda rows: given.append([dict(row) for row in rows]))
        task().fit(Batches(), epochs=2, checkpointer=saver)
    assert [len(rows) for rows in given] == [1, 2, 2]
    assert given[1] == given[2]


def test_ctrl_c_stops_after_the_step_with_the_checkpoint_saved(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    code = f"import pathlib; from {__name__} import press_and_stop; press_and_stop(pathlib.Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
    content = torch.load(path, weights_only=True)
    assert (content["epoch"], content["step"]) == (1, 3)
    whole, resumed = task(), task()
    whole.fit(Batches(), epochs=3)
    resumed.fit(Batches(), epochs=3, checkpointer=checkpointer(path))
    assert all(torch.equal(v, weights(resumed)[n]) for n, v in weights(whole).items())


def test_a_checkpoint_cut_in_half_names_its_file_and_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    task().fit(Batches(), epochs=1, checkpointer=checkpointer(path))
    whole = path.read_bytes()
    for kept in (len(whole) // 2, 0, 10):
        path.write_bytes(whole[:kept])
        with pytest.raises(CheckpointError, match=r"resume\.pt cannot be read .*Delete it"):
            task().fit(Batches(), epochs=2, checkpointer=checkpointer(path))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    task().fit(Batches(), epochs=1, checkpointer=checkpointer(path))
    network = nn.Sequential(_Scale(), nn.Conv2d(3, 3, 1))
    other = Supervised(network, Fabric(accelerator="cpu", devices=1))
    other.compile(torch.optim.AdamW(network.parameters(), lr=0.01))
    with pytest.raises(CheckpointError, match="of another network"):
        other.fit(Batches(), epochs=2, checkpointer=checkpointer(path))


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "resume.pt"
    torch.save({"stepper": Evil()}, path)
    with pytest.raises(CheckpointError, match=r"resume\.pt cannot be read .*Weights only load failed"):
        task().fit(Batches(), epochs=1, checkpointer=checkpointer(path))
    assert not (tmp_path / "ran").exists()


def test_a_nan_loss_names_step_and_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    made = task()

    def spoil() -> None:
        made.network[1].weight.data.fill_(float("nan"))  # type: ignore[index, union-attr]

    with pytest.raises(LossNotFinite, match=r"step 7 .*The last good checkpoint is .*resume\.pt"):
        made.fit(Batches({(1, 1): spoil}), epochs=2, checkpointer=checkpointer(path, False))
    assert all(torch.isfinite(v).all() for v in torch.load(path)["stepper"]["network"].values())


def test_the_meter_weighs_by_pixels() -> None:
    meter = Meter(2)
    small = meter.count(torch.tensor([[[[1.0]], [[0.0]]]]), torch.zeros(1, 1, 1, dtype=torch.long))
    large = meter.count(torch.tensor([[[[0.0, 1.0, 1.0]], [[1.0, 0.0, 0.0]]]]), torch.ones(1, 1, 3, dtype=torch.long))
    meter.add({"loss": 1.0}, small, 1)
    result = meter.add({"loss": 5.0}, large, 3)
    assert result["loss"] == pytest.approx((1 + 3 * 5) / 4)
    assert meter.confusion.tolist() == [[1, 0], [2, 1]]
    assert result["pixel_accuracy"] == pytest.approx(0.5)
    copied = Meter(2)
    copied.load(meter.state())
    assert copied.result() == result


def test_schedules_by_hand() -> None:
    rates = [learning_rate("one-cycle", 1.0, step, 101) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == rates[20] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1e-4)
    assert rates[10] == pytest.approx((1 + 1 / 25) / 2)
    assert rates[60] == pytest.approx((1 + 1e-4) / 2)
    assert [learning_rate("cosine", 2.0, step, 3) for step in range(3)] == pytest.approx([2.0, 1.0, 0.0])
    assert learning_rate("constant", 0.3, 7, 9) == 0.3


def test_the_printed_rate_is_images_by_the_clock() -> None:
    shown: list[float] = []

    def on_progress(event: Event) -> None:
        if isinstance(event, Progress) and event.done:  # the first event comes before the first step
            shown.append(event.figures["images_per_second"])
        elif isinstance(event, EpochEnd):
            shown.append(event.row["images_per_second"])

    from skystill.train.loop import loop

    clock = iter(np.arange(0.0, 100.0, 0.5))
    made = task()
    made.stepper.plan(STEPS, "constant", 0.0)
    history = loop.train_epochs(made, Batches(), None, 1, on_progress=on_progress, clock=lambda: float(next(clock)))
    # two images a step, half a second a look at the clock
    assert shown[:STEPS] == pytest.approx([4.0] * STEPS)
    assert history[0]["seconds"] == pytest.approx(3.0)
    assert shown[-1] == pytest.approx(10 / 3)


def test_the_time_before_a_stop_counts(tmp_path: Path) -> None:
    """An epoch that was stopped has the time and the images of both its parts."""
    from skystill.train.loop import loop

    def trained(hooks: Mapping[tuple[int, int], object]) -> list[dict[str, float]]:
        clock = iter(np.arange(0.0, 100.0, 0.5))
        made = task()
        made.stepper.plan(STEPS, "constant", 0.0)
        keep = checkpointer(tmp_path / "resume.pt")
        return loop.train_epochs(made, Batches(hooks), None, 1, checkpointer=keep, clock=lambda: float(next(clock)))

    with pytest.raises(Killed):
        trained({(0, 3): kill})
    row = trained({})[0]
    # half a second a look at the clock: one in each of five steps, and one at the end
    assert (row["seconds"], row["images_per_second"]) == (3.0, pytest.approx(10 / 3))

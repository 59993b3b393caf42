"""The one training loop: it steps, logs, saves and resumes. What a step means is the task's matter."""

import math
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from skystill.errors import CheckpointError, Interrupted, LossNotFinite, SettingsError
from skystill.run_folder import written_whole
from skystill.train.batches.batches import AnyBatch, Batch
from skystill.train.loop.meter import Meter
from skystill.train.loop.ranks import name_lost_ranks, use_global_batch_norm
from skystill.train.networks.models import to_memory_format

History = list[dict[str, float]]
"""One row an epoch; the columns of `metrics.csv`."""

SCHEDULES = ("one-cycle", "cosine", "constant")
_SAVE_EVERY_SECONDS = 30.0
_CLIP = 1.0  # norm of the gradient; a bad batch early in a one-cycle run moves the weights by no more than this


@runtime_checkable
class Batches(Protocol):
    """Training batches that can be entered in the middle of an epoch."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from step `start` on."""
        ...


class Watch(Protocol):
    """Somebody who looks on: a progress bar."""

    def on_step(self, done: int, total: int, result: Mapping[str, float], images_per_second: float) -> None:
        """After each training step: `done` of `total` steps of the whole run."""
        ...

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """After each epoch, with its row of the history."""
        ...


class Task(Protocol):
    """What the loop trains."""

    meter: Meter

    @property
    def stepper(self) -> "Stepper":
        """Network, optimiser and moving average."""
        ...

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step; losses and metrics since the meter's last reset."""
        ...

    def evaluate(self, test: Iterable[AnyBatch]) -> dict[str, float]:
        """Losses and metrics over all batches."""
        ...


class Stepper:
    """One optimiser step after another: schedule, backward, clip, step, moving average.

    Args:
        fabric: devices and precision.
        network: what is trained; all its weights.
        optimizer: over this network's weights; its learning rates are the peaks of the schedule.
    """

    def __init__(self, fabric: Fabric, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.fabric = fabric
        self.plain_network = network
        if fabric.world_size > 1:
            use_global_batch_norm(network)
        self._beside: list[nn.Module] = []
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]
        # channels_last: convolutions on a CPU are up to twice as fast in it (docs/design.md)
        wrapped: Any = fabric.setup(to_memory_format(network, torch.channels_last), optimizer)
        self.network, self.optimizer = wrapped
        self.steps, self.total = 0, 0
        self.schedule = "constant"
        self.decay = 0.0
        self.average: dict[str, Tensor] = {}

    def learn_beside(self, module: nn.Module) -> None:
        """Let weights that belong to a loss learn with the network; they are computed alike on every rank."""
        own = list(module.parameters())
        if own:
            self._beside.append(module)
            self.peaks.append(self.peaks[0])
            self.optimizer.add_param_group({"params": own})

    def plan(self, total: int, schedule: str, decay: float) -> None:
        """Say how many steps there will be, how the learning rate goes, and the decay of the moving average (0: none).

        Raises:
            SettingsError: no such schedule, or a decay outside 0..1.
        """
        if schedule not in SCHEDULES:
            raise SettingsError(f"no schedule is called {schedule!r}; there are {', '.join(SCHEDULES)}.")
        if not 0 <= decay < 1:
            raise SettingsError(f"the moving average's decay is {decay:g}; it must be in 0..1, without 1.")
        self.steps, self.total, self.schedule, self.decay = 0, total, schedule, decay
        self.average = _copy(self.plain_network.state_dict()) if decay else {}

    def forward(self, images: Tensor) -> Tensor:
        """The network's logits (N, C, H, W). One process alone needs no wrapper around it, only its precision."""
        if self.fabric.world_size > 1:
            logits: Tensor = self.network(images)
            return logits
        with self.fabric.autocast():
            logits = self.plain_network(images)
        return logits

    def step(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Move the weights once down the gradient of `losses["loss"]`.

        Returns:
            the losses as numbers.

        Raises:
            LossNotFinite: the loss is NaN or infinite; the weights were not moved.
        """
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(values["loss"]):
            raise LossNotFinite(self.steps + 1, values, None)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = learning_rate(self.schedule, peak, self.steps, self.total)
        self.optimizer.zero_grad()
        ranks = self.fabric.world_size
        self.fabric.backward(losses["loss"] * ranks)  # Fabric takes the mean over ranks; their parts must be summed
        for module in self._beside:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.grad /= ranks
        torch.nn.utils.clip_grad_norm_(self.plain_network.parameters(), _CLIP)
        self.optimizer.step()
        self.steps += 1
        self._update_average()
        return values

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the network has the averaged weights, where an average is kept."""
        own = _copy(self.plain_network.state_dict()) if self.average else {}
        if own:
            self.plain_network.load_state_dict(self.average)
        try:
            yield
        finally:
            if own:
                self.plain_network.load_state_dict(own)

    def take_average(self) -> None:
        """Give the network the averaged weights for good: the end of training."""
        if self.average:
            self.plain_network.load_state_dict(self.average)

    @torch.no_grad()
    def _update_average(self) -> None:
        # It looks back over the last ninth of the steps so far at most (Shamir, Zhang 2013, arXiv 1212.1824: averaging
        # with polynomial decay), or it would remember the random start for thousands of steps.
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self.plain_network.state_dict().items():
            if name in self.average and value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            elif name in self.average:
                self.average[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "steps": self.steps,
            "network": self.plain_network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "beside": [module.state_dict() for module in self._beside],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.plain_network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for module, own in zip(self._beside, state["beside"], strict=True):
            module.load_state_dict(own)
        self.average = _copy(state["average"])
        self.steps = int(state["steps"])


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def learning_rate(schedule: str, peak: float, step: int, total: int) -> float:
    """Learning rate at a step, a pure function, so that a checkpoint need not hold it.

    one-cycle: from peak/25 up to the peak in the first fifth, then down to peak/10^4, both as half a cosine (Smith
    2017, arXiv 1708.07120). cosine: from the peak down to 0 (Loshchilov 2016, arXiv 1608.03983). constant: the peak.
    """
    if schedule == "constant" or total <= 1:
        return peak
    done = min(step / (total - 1), 1.0)
    if schedule == "cosine":
        return _between(peak, 0.0, done)
    rise = 0.2
    return (
        _between(peak / 25, peak, done / rise)
        if done < rise
        else _between(peak, peak / 1e4, (done - rise) / (1 - rise))
    )


def _between(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


@dataclass
class LoopState:
    """How far a run has come: epoch and step within it that come next, and the rows so far."""

    epoch: int = 0
    step: int = 0
    history: History = field(default_factory=list)


class Checkpointer:
    """Saves and restores a run in one file, written whole.

    Args:
        path: the checkpoint.
        on_history: called with all rows after each epoch, before its checkpoint.
        clock: seconds; for tests.
    """

    def __init__(
        self, path: Path, on_history: Callable[[History], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.on_history = on_history
        self._clock = clock
        self._saved_at = clock()

    def due(self) -> bool:
        """Whether the last checkpoint is old enough to be worth another in the middle of an epoch."""
        return self._clock() - self._saved_at >= _SAVE_EVERY_SECONDS

    def save(self, task: Task, progress: LoopState) -> None:
        """Write the checkpoint; of several ranks the first one does."""
        self._saved_at = self._clock()
        if not task.stepper.fabric.is_global_zero:
            return
        content = {
            "epoch": progress.epoch,
            "step": progress.step,
            "history": progress.history,
            "meter": task.meter.state(),
            "stepper": task.stepper.state(),
        }
        with written_whole(self.path) as part:
            torch.save(content, part)

    def load(self, task: Task) -> LoopState:
        """Restore the run, or start anew where there is no checkpoint yet.

        Raises:
            CheckpointError: the file is damaged or of another network.
        """
        if not self.path.exists():
            return LoopState()
        try:
            content = torch.load(self.path, weights_only=True, map_location="cpu")
            task.stepper.load(content["stepper"])
            task.meter.load(content["meter"])
            return LoopState(content["epoch"], content["step"], content["history"])
        except (RuntimeError, KeyError, EOFError, ValueError, OSError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{self.path} cannot be read ({reason}); it is damaged or of another network. "
                "Delete it to begin this run again from its first step with --resume."
            ) from error


def train_epochs(
    task: Task,
    batches: Batches,
    validation: Iterable[AnyBatch] | None,
    epochs: int,
    *,
    checkpointer: Checkpointer | None = None,
    watch: Watch | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Train a task.

    Args:
        task: what a step means.
        batches: training batches.
        validation: batches to evaluate on after each epoch, with the averaged weights where an average is kept.
        epochs: how many in all, those before a resume counted.
        checkpointer: where checkpoints go, and where a run goes on from; None keeps nothing.
        watch: who looks on.
        clock: seconds, for the printed rates.

    Returns:
        one row an epoch.

    Raises:
        LossNotFinite: the loss became NaN or infinite.
        Interrupted: Ctrl-C; the checkpoint is saved.
        CheckpointError: the checkpoint to go on from is damaged.
        RankLost: another process is gone.
    """
    progress = checkpointer.load(task) if checkpointer else LoopState()
    with _stop_on_interrupt() as stop, name_lost_ranks(task.stepper.fabric):
        for epoch in range(progress.epoch, epochs):
            _train_epoch(task, batches, epoch, epochs, progress, checkpointer, watch, clock, stop)
            if validation is not None:
                with task.stepper.averaged():
                    scores = task.evaluate(validation)
                progress.history[-1] |= {f"validation_{name}": value for name, value in scores.items()}
            progress.epoch, progress.step = epoch + 1, 0
            task.meter.reset()
            if watch:
                watch.on_epoch(progress.history[-1])
            if checkpointer:
                if task.stepper.fabric.is_global_zero:
                    checkpointer.on_history(progress.history)
                checkpointer.save(task, progress)
    return progress.history


def _train_epoch(
    task: Task,
    batches: Batches,
    epoch: int,
    epochs: int,
    progress: LoopState,
    checkpointer: Checkpointer | None,
    watch: Watch | None,
    clock: Callable[[], float],
    stop: threading.Event,
) -> None:
    began, images = clock(), 0
    result: dict[str, float] = task.meter.result()
    for batch in batches.epoch(epoch, progress.step):
        try:
            result = task.train_step(batch.to(task.stepper.fabric.device))
        except LossNotFinite as error:
            raise LossNotFinite(error.step, error.parts, checkpointer.path if checkpointer else None) from None
        progress.step += 1
        images += len(batch)
        if watch:
            done = epoch * batches.steps_per_epoch + progress.step
            rate = images / max(clock() - began, 1e-9)
            watch.on_step(done, epochs * batches.steps_per_epoch, result, rate)
        if _anyone_stops(stop, task.stepper.fabric):
            if checkpointer is None:
                raise KeyboardInterrupt
            checkpointer.save(task, progress)
            raise Interrupted(checkpointer.path, task.stepper.steps)
        if checkpointer and checkpointer.due():
            checkpointer.save(task, progress)
    seconds = clock() - began
    progress.history.append(
        {
            "epoch": epoch + 1,
            "learning_rate": task.stepper.optimizer.param_groups[0]["lr"],
            "seconds": seconds,
            "images_per_second": images / max(seconds, 1e-9),
            **result,
        }
    )


def _anyone_stops(stop: threading.Event, fabric: Fabric) -> bool:
    """Whether Ctrl-C reached this or another rank: all must stop after the same step."""
    if fabric.world_size == 1:
        return stop.is_set()
    total = fabric.all_reduce(torch.tensor(float(stop.is_set())), reduce_op="sum")
    return float(total) > 0  # type: ignore[arg-type]


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a request to stop after the step; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(signum: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)

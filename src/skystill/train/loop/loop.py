"""The one training loop: it steps, logs, saves and resumes. What a step means is defined by the task."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric

from skystill.errors import Interrupted, LossNotFinite
from skystill.train.batches.batches import AnyBatch
from skystill.train.loop.checkpoint import Checkpointer, LoopState
from skystill.train.loop.ranks import name_lost_ranks
from skystill.train.loop.task import Batches, History, Task, Watch


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

"""The training loop, the same for all tasks: it steps, logs, saves and resumes. The task defines what a step does."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric

from skystill.allocator import freed_memory_returned
from skystill.errors import Interrupted, LossNotFinite
from skystill.progress import EpochEnd, Message, OnProgress, Progress, ignore_progress, phase
from skystill.train.batches.batches import AnyBatch
from skystill.train.loop.checkpoint import Checkpointer, LoopState
from skystill.train.loop.ranks import name_lost_ranks
from skystill.train.loop.task import Batches, History, Task
from skystill.train.loop.validation import Validation, as_validation


def train_epochs(
    task: Task,
    batches: Batches,
    validation: Validation | Iterable[AnyBatch] | None,
    epochs: int,
    *,
    checkpointer: Checkpointer | None = None,
    on_progress: OnProgress = ignore_progress,
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Train a task for a number of epochs, or continue from its checkpoint.

    Args:
        task: defines what a training step and an evaluation do.
        batches: training batches.
        validation: batches to evaluate after each epoch, with the averaged weights if there is an average, or a
            `Validation`, which can also stop the training; None for no validation.
        epochs: total number of epochs, including those before a resume.
        checkpointer: saves checkpoints, and loads the one to continue from; None saves and loads nothing.
        on_progress: called with a `Progress` after each step and an `EpochEnd` after each epoch.
        clock: returns seconds; the rates and times are measured with it.

    Returns:
        one row per epoch that was trained.

    Raises:
        SettingsError: a patience has no mean IoU to go by.
        LossNotFinite: the loss became NaN or infinite.
        Interrupted: the user pressed Ctrl-C. The checkpoint is saved.
        KeyboardInterrupt: the user pressed Ctrl-C, and there is no checkpointer.
        CheckpointError: the checkpoint is damaged.
        RankLost: another rank was lost.
    """
    validation = as_validation(validation)
    state = checkpointer.load(task) if checkpointer else LoopState()
    over = validation is not None and state.step == 0 and validation.is_over(state.history)
    if checkpointer and (state.epoch or state.step) and not over:
        on_progress(Message(_where_it_goes_on(state, epochs, batches.steps_per_epoch, checkpointer)))
    if checkpointer and state.history and (over or state.epoch >= epochs) and task.stepper.fabric.is_global_zero:
        checkpointer.on_history(state.history)  # a logger may be new, or may have lost its server before the end
    with _stop_on_interrupt() as stop, name_lost_ranks(task.stepper.fabric):
        for epoch in range(state.epoch, epochs):
            if over:
                break
            _train_epoch(task, batches, _Epoch(epoch, epochs, state, checkpointer, on_progress, clock, stop))
            if validation is not None:
                _validate(task, validation, state.history, on_progress)
                over = validation.is_over(state.history)
            state.epoch, state.step, state.seconds, state.images = epoch + 1, 0, 0.0, 0
            task.meter.reset()
            if checkpointer:
                if task.stepper.fabric.is_global_zero:
                    checkpointer.on_history(state.history)
                checkpointer.save(task, state)
            # After the checkpoint: a callback that raises ends the training, and this epoch is kept.
            on_progress(EpochEnd("training", state.history[-1]))
    if validation is not None and validation.patience is not None:
        on_progress(Progress("training", task.stepper.steps, task.stepper.steps, "steps"))  # the end of its bar
        on_progress(Message(validation.result(state.history)))
    return state.history


def _validate(task: Task, validation: Validation, history: History, on_progress: OnProgress) -> None:
    """Evaluate the network with its averaged weights, add the scores to the last row, and keep the best weights.

    All ranks have the same scores, so that they keep the same epoch, and stop after the same one.
    """
    said = phase("validation", on_progress, leaves_line=False)
    with freed_memory_returned(), task.stepper.averaged(), said:
        scores = task.evaluate(validation.batches)
        history[-1] |= {f"validation_{name}": value for name, value in scores.items()}
        if validation.keeps_last(history):
            task.stepper.keep()
        if task.stepper.fabric.is_global_zero:
            validation.after(task.stepper.plain_network)


@dataclass(frozen=True)
class _Epoch:
    """The arguments of one epoch, besides the task and its batches. See `train_epochs`."""

    index: int
    count: int
    state: LoopState
    checkpointer: Checkpointer | None
    on_progress: OnProgress
    clock: Callable[[], float]
    stop: threading.Event


def _train_epoch(task: Task, batches: Batches, epoch: _Epoch) -> None:
    state, checkpointer = epoch.state, epoch.checkpointer
    began = epoch.clock() - state.seconds
    result: dict[str, float] = task.meter.result()
    done, total = epoch.index * batches.steps_per_epoch + state.step, epoch.count * batches.steps_per_epoch
    epoch.on_progress(Progress("training", done, total, "steps"))
    for batch in batches.epoch(epoch.index, state.step):
        try:
            result = task.train_step(batch.to(task.stepper.fabric.device))
        except LossNotFinite as error:
            raise LossNotFinite(error.step, error.parts, checkpointer.path if checkpointer else None) from None
        state.step += 1
        state.images += len(batch)
        state.seconds = epoch.clock() - began
        done = epoch.index * batches.steps_per_epoch + state.step
        rate = state.images / max(state.seconds, 1e-9)
        figures = {**result, "images_per_second": rate}
        epoch.on_progress(Progress("training", done, total, "steps", figures))
        if _anyone_stops(epoch.stop, task.stepper.fabric):
            if checkpointer is None:
                raise KeyboardInterrupt
            checkpointer.save(task, state)
            raise Interrupted(checkpointer.path, task.stepper.steps)
        if checkpointer and checkpointer.due():
            checkpointer.save(task, state)
    state.seconds = epoch.clock() - began
    state.history.append(
        {
            "epoch": epoch.index + 1,
            "learning_rate": task.stepper.optimizer.param_groups[0]["lr"],
            "seconds": state.seconds,
            "images_per_second": state.images / max(state.seconds, 1e-9),
            **result,
        }
    )


def _where_it_goes_on(state: LoopState, epochs: int, steps: int, checkpointer: Checkpointer) -> str:
    """Describe in one line where a resumed training goes on."""
    where = f"epoch {state.epoch + 1} of {epochs}, step {state.step + 1} of {steps}"
    goes_on = f"it goes on with {where}" if state.epoch < epochs else f"all {epochs} epochs are done"
    return f"{checkpointer.path}: {goes_on}."


def _anyone_stops(stop: threading.Event, fabric: Fabric) -> bool:
    """Return whether Ctrl-C reached this rank or another one. All ranks must stop after the same step."""
    if fabric.world_size == 1:
        return stop.is_set()
    total = fabric.all_reduce(torch.tensor(float(stop.is_set())), reduce_op="sum")
    return float(total) > 0  # type: ignore[arg-type]


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets, as a request to stop after the current step.

    A second Ctrl-C stops at once. Outside of the main thread, Python allows no signal handlers, and the event is never
    set.
    """
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

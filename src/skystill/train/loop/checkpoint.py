"""The checkpoint of a run: one file with everything that a resumed run needs to reach the same weights."""

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning_fabric import Fabric

from skystill.digests import TEXT_TRAILER, DigestDiffers, SealedWriter
from skystill.errors import CheckpointError, shortened
from skystill.run_folder import written_whole
from skystill.train.loop.machines import from_first_rank
from skystill.train.loop.ranks import name_lost_ranks
from skystill.train.loop.task import History, Task

_SAVE_EVERY_SECONDS = 30.0
_UNREADABLE = (
    *(RuntimeError, KeyError, IndexError, AttributeError, TypeError, EOFError, ValueError, OverflowError, MemoryError),
    *(OSError, pickle.UnpicklingError),
)


@dataclass
class LoopState:
    """The position of a run in its training.

    Args:
        epoch: the next epoch, from 0.
        step: the next step in this epoch, from 0.
        history: the rows of the epochs that are done.
        seconds, images: time and crops of the steps that are done in this epoch, also of those before a stop.
    """

    epoch: int = 0
    step: int = 0
    history: History = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0


class Checkpointer:
    """Saves a run in one file, and restores it. The file is written whole or not at all.

    Args:
        path: the checkpoint.
        on_history: called after each epoch with the rows of all epochs so far, before the checkpoint is saved.
        clock: returns seconds; tests give another one.
    """

    def __init__(
        self, path: Path, on_history: Callable[[History], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.on_history = on_history
        self._clock = clock
        self._saved_at = clock()

    def due(self) -> bool:
        """Return whether the last checkpoint is old enough to save another one within the epoch."""
        return self._clock() - self._saved_at >= _SAVE_EVERY_SECONDS

    def save(self, task: Task, progress: LoopState) -> None:
        """Write the checkpoint. With several ranks, only the first one writes."""
        self._saved_at = self._clock()
        if not task.stepper.fabric.is_global_zero:
            return
        content = {
            "sealed": True,  # a file with this has a trailer
            "epoch": progress.epoch,
            "step": progress.step,
            "history": progress.history,
            "seconds": progress.seconds,
            "images": progress.images,
            "meter": task.meter.state(),
            "stepper": task.stepper.state(),
        }
        with written_whole(self.path) as part, open(part, "wb") as file:
            sealed = SealedWriter(file)
            try:
                torch.save(content, cast(IO[bytes], sealed))
            except RuntimeError as error:  # torch's own words for a failed write do not give its reason
                raise sealed.failure or error from error
            sealed.seal()

    def load(self, task: Task) -> LoopState:
        """Restore the task, and return the position of the run. Without a checkpoint the run starts at the beginning.

        Raises:
            CheckpointError: the file is damaged or belongs to another network.
        """
        try:
            content = self._read(task.stepper.fabric)
            if content is None:
                return LoopState()
            task.stepper.load(content["stepper"])
            task.meter.load(content["meter"])
            so_far = content.get("seconds", 0.0), content.get("images", 0)  # earlier versions did not count them
            return LoopState(content["epoch"], content["step"], content["history"], *so_far)
        except _UNREADABLE as error:
            reason = shortened(str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise CheckpointError(
                f"{self.path} cannot be read ({reason}); it is damaged or of another network. "
                "Delete it to begin this run again from its first step with --resume."
            ) from error

    def _read(self, fabric: Fabric) -> dict[str, Any] | None:
        """Read the file; None if there is none. The first of several ranks reads it for the others.

        The disk of another machine may hold no file, or an old one.
        """
        source: Path | BytesIO = self.path
        exists = fabric.is_global_zero and self.path.exists()
        has_digest = TEXT_TRAILER.check(self.path) if exists else True
        if fabric.world_size > 1:
            with name_lost_ranks(fabric):
                content = from_first_rank(fabric, self.path.read_bytes() if exists else b"")
            exists, source = bool(content), BytesIO(content)
        if not exists:
            return None
        read: dict[str, Any] = torch.load(source, weights_only=True, map_location="cpu")
        if read.get("sealed") and not has_digest:
            raise DigestDiffers
        return read

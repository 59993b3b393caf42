"""The tree of errors. Each says what happened with its values, what was expected, and how to mend it.

The command line prints the message and ends with `exit_code`: 2 where the user can mend it, 1 where we must.
"""

from collections.abc import Sequence
from pathlib import Path


class SkystillError(Exception):
    """Anything that SkyStill itself refuses or fails at."""

    exit_code = 1


class UserError(SkystillError):
    """Something that the user can mend: a file, a setting, a disk."""

    exit_code = 2


class SettingsError(UserError):
    """A setting that cannot be used."""


class ClassesError(UserError):
    """Classes that cannot be read, or that do not fit."""


class DataError(UserError):
    """Images or masks that cannot be used. Holds every problem found, not only the first.

    Args:
        summary: one line: what failed, and where.
        problems: a line for each bad file, naming it.
        mend: what to do about it.
    """

    def __init__(self, summary: str, problems: Sequence[str] = (), mend: str = "") -> None:
        self.problems = list(problems)
        lines = [summary, *(f"  - {problem}" for problem in self.problems), *([mend] if mend else [])]
        super().__init__("\n".join(lines))


class RunFolderError(UserError):
    """A run folder that is missing, taken, in use, or incomplete."""


class CheckpointError(UserError):
    """A checkpoint or weights file that cannot be read, or belongs to another run."""


class ModelFileError(UserError):
    """A model file that cannot be opened, or lacks what it must carry."""


class ClassCountMismatch(UserError):
    """A teacher gives another number of classes than it is said to."""

    def __init__(self, teacher: str, found: int, said: int) -> None:
        super().__init__(
            f"teacher {teacher} gives {found} classes, not {said}. Name all its classes in its own order: "
            "--teacher-classes NAME,NAME,... or a classes file."
        )


class LossNotFinite(UserError):
    """The loss became NaN or infinite; nothing after it would mean anything."""

    def __init__(self, step: int, parts: dict[str, float], kept: Path | None) -> None:
        self.step, self.parts = step, parts
        values = ", ".join(f"{name} {value:g}" for name, value in parts.items())
        saved = f" The last good checkpoint is {kept}." if kept else ""
        super().__init__(
            f"the loss is not finite at step {step} ({values}).{saved} Lower --learning-rate, or use --precision 32."
        )


class DiskFull(UserError):
    """No room, or no permission, where something must be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"cannot write {path}: {reason}. Make room or choose another --out; nothing half-written is left."
        )


class CommandFailed(SkystillError):
    """A command that was run in a process of its own failed; its own message says why."""

    def __init__(self, verb: str, exit_code: int, hint: str = "") -> None:
        self.exit_code, self.hint = exit_code, hint
        super().__init__(f"skystill {verb} ended with exit code {exit_code}; its own message is above. {hint}".rstrip())


class Interrupted(SkystillError):
    """Ctrl-C. The checkpoint is saved."""

    exit_code = 130

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(
            f"stopped after step {step}; the checkpoint is saved. Go on with the same command and --resume ({folder})."
        )


class PredictionStopped(SkystillError):
    """Ctrl-C during a prediction. What is done is kept."""

    exit_code = 130

    def __init__(self, target: Path) -> None:
        super().__init__(f"stopped; what is done is kept. Go on with the same command and --resume ({target}).")


class DamagedSource(UserError):
    """Parts of a raster could not be read; the rest was predicted."""

    def __init__(self, source: str, target: Path, places: Sequence[str]) -> None:
        shown = "\n".join(f"  - {place}" for place in places[:20])
        more = f"\n  - and {len(places) - 20} more" if len(places) > 20 else ""
        super().__init__(
            f"{source} is damaged; {target} was written, with nodata where the source could not be read:\n"
            f"{shown}{more}\nGet a whole copy and predict again."
        )


class RankLost(SkystillError):
    """One of several processes is gone; the others cannot go on without it."""

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__(
            f"rank {rank} of {ranks}: another rank was lost (its own message says why), so this run ends. The last "
            "checkpoint serves: run the same command with --resume."
        )

"""The exceptions of SkyStill.

Each message says what happened, with the values, what was expected, and how to fix it. The command line prints the
message and ends with `exit_code`: 2 if the user can fix the problem, 130 after Ctrl-C, and 1 otherwise.
"""

from collections.abc import Sequence
from pathlib import Path


class SkystillError(Exception):
    """Base class of all exceptions that SkyStill raises itself."""

    exit_code = 1


class UserError(SkystillError):
    """A problem that the user can fix: a file, a setting, a full disk."""

    exit_code = 2


class SettingsError(UserError):
    """A setting that cannot be used."""


class ClassesError(UserError):
    """Classes that cannot be read, or that do not match each other."""


class DataError(UserError):
    """Images or masks that cannot be used. The message lists every problem, not only the first.

    Args:
        summary: one line that says what failed and where.
        problems: one line per bad file, with its name.
        mend: how to fix the problems.
    """

    def __init__(self, summary: str, problems: Sequence[str] = (), mend: str = "") -> None:
        self.problems = list(problems)
        lines = [summary, *(f"  - {problem}" for problem in self.problems), *([mend] if mend else [])]
        super().__init__("\n".join(lines))


class RunFolderError(UserError):
    """A run folder that is missing or incomplete, that holds another run, or that another process uses."""


class CheckpointError(UserError):
    """A checkpoint or weights file that cannot be read, or that belongs to another run."""


class ModelFileError(UserError):
    """A model file that cannot be opened, or that lacks required metadata."""


class AnswersNotFinite(ModelFileError):
    """A model file whose answers hold NaN or infinite values. No class can be chosen from them."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} gives values that are not finite (NaN or infinite); logits or probabilities were expected. Its "
            "weights may be damaged, or it expects pixels of another scale. Export it again, in float32."
        )


class TeacherNotFinite(CheckpointError):
    """A teacher whose logits hold NaN or infinite values. A student cannot learn from them."""

    def __init__(self, teacher: str, classes: Sequence[str], where: str) -> None:
        super().__init__(
            f"teacher {teacher} gives logits that are not finite (NaN or infinite) on {where}, for class "
            f"{', '.join(classes)} (the first is 0). A student cannot learn from them. Export the teacher again in "
            "float32 and without masked classes, or teach without it."
        )


class ClassCountMismatch(UserError):
    """A teacher whose number of output classes is not the expected one."""

    def __init__(self, teacher: str, found: int, expected: int) -> None:
        super().__init__(
            f"teacher {teacher} gives {found} classes, not {expected}. Name all its classes in its own order: "
            "--teacher-classes NAME,NAME,... or a classes file."
        )


class LossNotFinite(UserError):
    """A loss that is NaN or infinite. Training stops, because all further steps would be meaningless."""

    def __init__(self, step: int, parts: dict[str, float], kept: Path | None) -> None:
        self.step, self.parts = step, parts
        values = ", ".join(f"{name} {value:g}" for name, value in parts.items())
        saved = f" The last good checkpoint is {kept}." if kept else ""
        super().__init__(
            f"the loss is not finite at step {step} ({values}).{saved} Lower --learning-rate, or use --precision 32."
        )


class DiskFull(UserError):
    """A file that cannot be written, because the disk is full or the permission is missing."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"cannot write {path}: {reason}. Make room there, or choose another --out; nothing half-written is left."
        )


class CommandFailed(SkystillError):
    """A command that failed in a separate process. That process has printed the reason."""

    def __init__(self, verb: str, exit_code: int, hint: str = "") -> None:
        self.exit_code, self.hint = exit_code, hint
        super().__init__(f"skystill {verb} ended with exit code {exit_code}; its own message is above. {hint}".rstrip())


class Interrupted(SkystillError):
    """A training that Ctrl-C stopped, after its checkpoint was saved."""

    exit_code = 130

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(
            f"stopped after step {step}; the checkpoint is saved. Go on with the same command and --resume ({folder})."
        )


class PredictionStopped(SkystillError):
    """A prediction that Ctrl-C stopped. The finished part is kept."""

    exit_code = 130

    def __init__(self, target: Path) -> None:
        super().__init__(f"stopped; what is done is kept. Go on with the same command and --resume ({target}).")


class DamagedSource(UserError):
    """A raster of which some parts could not be read. The rest was predicted."""

    def __init__(self, source: str, target: Path, places: Sequence[str]) -> None:
        shown = "\n".join(f"  - {place}" for place in places[:20])
        more = f"\n  - and {len(places) - 20} more" if len(places) > 20 else ""
        super().__init__(
            f"{source} is damaged; {target} was written, with nodata where the source could not be read:\n"
            f"{shown}{more}\nGet a whole copy and predict again."
        )


class RankLost(SkystillError):
    """One of several ranks was lost, and the others cannot continue without it."""

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__(
            f"rank {rank} of {ranks}: another rank was lost (its own message says why), so this run ends. The last "
            "checkpoint serves: run the same command with --resume."
        )

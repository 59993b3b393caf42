"""The exceptions of SkyStill.

Each message says what happened, with the values, what was expected, and how to fix it. The command line prints the
message and ends with `exit_code`: 2 if the user can fix the problem, 130 after Ctrl-C, and 1 otherwise.
"""

import errno
import os
import re
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
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
    """Images or masks that cannot be used. The message lists the first 20 problems and the number of the others.

    Args:
        summary: one line that says what failed and where.
        problems: one line per bad file, with its name. The attribute `problems` holds all of them.
        mend: how to fix the problems.
    """

    def __init__(self, summary: str, problems: Sequence[str] = (), mend: str = "") -> None:
        self.problems = list(problems)
        listed = (f"  - {problem}" for problem in first_few(self.problems))
        lines = [summary, *listed, *([mend] if mend else [])]
        super().__init__("\n".join(lines))


class RunFolderError(UserError):
    """A run folder that is missing or incomplete, that holds another run, or that another process uses."""


class InUse(RunFolderError):
    """Something that another process is writing."""


class ClusterError(UserError):
    """A cluster that cannot be reached, started or used, or that was lost."""


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
    """A file that cannot be written: the disk is full, a permission is missing, or what `_REMEDIES` lists.

    Args:
        path: the file.
        reason: what the system or a library raised, or words.
        scratch: whether the file lies in the folder for temporary files, which TMPDIR moves, and not in --out.
    """

    def __init__(self, path: Path, reason: BaseException | str, scratch: bool = False) -> None:
        code = write_errno(reason)
        if code is None and _is_full(path):
            code = errno.ENOSPC  # GDAL often gives no reason
        words = os.strerror(code) if code is not None else _first_cause(reason)
        remedy = _REMEDIES.get(code, _UNKNOWN_REMEDY)
        if scratch:
            remedy = remedy.replace("choose another --out", "set TMPDIR to another folder")
            remedy = remedy.replace("Choose another --out", "Set TMPDIR to another folder")
        super().__init__(f"cannot write {path}: {words}. {remedy} Nothing half-written is left.")


_REMEDIES: dict[int | None, str] = {
    errno.ENOSPC: "Make room there, or choose another --out.",
    errno.EDQUOT: "Your quota on that disk is used up. Delete files of yours there, or choose another --out.",
    errno.EFBIG: "The disk, or the limit of this process (ulimit -f), takes no larger file. Raise the limit, or "
    "choose another --out.",
    errno.EACCES: "Get the permission to write into that folder, or choose another --out.",
    errno.EPERM: "Get the permission to write into that folder, or choose another --out.",
    errno.EROFS: "That disk can only be read. Choose another --out.",
    errno.ENAMETOOLONG: "Choose a shorter name or folder.",
    errno.ENOENT: "A folder on the way does not exist, or was removed meanwhile. Make it, or choose another --out.",
    errno.ENOTDIR: "A part of that path is a file and no folder. Choose another --out.",
    errno.EEXIST: "A part of that path is a file and no folder. Choose another --out.",
    errno.EISDIR: "A folder has that name. Remove it, or choose another --out.",
    errno.EBUSY: "Another program uses it. Close that program, or choose another --out.",
    errno.EIO: "The disk fails. Check it, and choose another --out.",
    errno.EMFILE: "This process has too many files open. Raise the limit: ulimit -n 4096.",
}
_UNKNOWN_REMEDY = "See that the disk has room and that the folder can be written, or choose another --out."
_OS_ERROR = re.compile(r"\bos error (\d+)\b")  # how safetensors, which is written in Rust, gives the number
_IN_WORDS = {os.strerror(code): code for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)}


_FULL_BYTES = 2**20


def _is_full(path: Path) -> bool:
    """Return whether the disk of a file has next to no room left."""
    try:
        there = next(folder for folder in path.absolute().parents if folder.is_dir())
        return shutil.disk_usage(there).free < _FULL_BYTES
    except (OSError, StopIteration):
        return False


def _first_cause(reason: BaseException | str) -> str:
    while isinstance(reason, BaseException) and reason.__cause__ is not None:
        reason = reason.__cause__
    return shortened(str(reason) or type(reason).__name__).rstrip(".")


def write_errno(error: BaseException | str) -> int | None:
    """Return the system's number of a failed write, or None if what was raised is none.

    Libraries pass the number on in an `OSError`, in words, or in the exception that theirs was raised from.
    """
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return error.errno
    text = str(error)
    found = _OS_ERROR.search(text)
    if found and int(found[1]) in _REMEDIES:
        return int(found[1])
    named = next((code for words, code in _IN_WORDS.items() if words in text), None)
    before = None if isinstance(error, str) else error.__cause__ or error.__context__
    return write_errno(before) if named is None and before is not None else named


def shortened(text: object, most: int = 300) -> str:
    """Return a text for a message: on one line, without control characters, and at most `most` characters long."""
    line = "".join(one if one.isprintable() else " " for one in " ".join(str(text)[: 4 * most].split()))
    return line if len(line) <= most else line[: most - 4] + " ..."


_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    r"""Return a text with escapes, such as "\x1b", for what would move the cursor or turn the order of the letters.

    These are control characters, other than line breaks and tabs, and the characters of Unicode that change the
    direction of the text around them. Letters of scripts that are written from right to left stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode()
        if one in _BIDI or (unicodedata.category(one) in ("Cc", "Zl", "Zp") and one not in "\n\t")
        else one
        for one in text
    )


_LISTED = 20


def first_few(items: Sequence[str], most: int = _LISTED) -> list[str]:
    """Return the first items of a list for a message, and how many more there are."""
    more = [f"and {len(items) - most:,} more"] if len(items) > most else []
    return [*items[:most], *more]


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
        shown = "\n".join(f"  - {place}" for place in first_few(places))
        super().__init__(
            f"{source} is damaged; {target} was written, with nodata where the source could not be read:\n"
            f"{shown}\nGet a whole copy and predict again."
        )


class SourceChanged(DataError):
    """A raster that changed while it was read.

    Args:
        file: the file that changed.
        how: how it changed, such as "was removed".
        result: what is made of its pixels.
    """

    def __init__(self, file: str, how: str, result: str) -> None:
        super().__init__(
            f"{file} {how} while it was read: {result} would be a mixture of old and new, and is not written. See that "
            "no other program writes the file, and run the command again."
        )


class NotEnoughMemory(UserError):
    """An input that takes more memory than there is."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f"{source}: there is not enough memory for it. Set a limit with --max-memory, or give smaller --tile or "
            "fewer --threads."
        )


class InputFailed(SkystillError):
    """An input on which something failed that SkyStill does not expect. It is a fault of SkyStill."""

    def __init__(self, source: str, error: Exception) -> None:
        super().__init__(
            f"{source}: internal error: {type(error).__name__}: {error}. Run again with --debug to see where."
        )


class InputsFailed(SkystillError):
    """Several inputs that failed, at least one of them by a fault of SkyStill.

    Args:
        total: number of all inputs.
        problems: one message per input that failed.
    """

    def __init__(self, total: int, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        listed = (f"  - {problem}" for problem in first_few(self.problems))
        lines = [f"{len(problems)} of {total} inputs had problems:", *listed]
        super().__init__("\n".join(lines))


class RankLost(SkystillError):
    """One of several ranks was lost, and the others cannot continue without it."""

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__(
            f"rank {rank} of {ranks}: another rank was lost (its own message says why, unless its machine gives no "
            "answer), so this run ends. The last checkpoint serves: run the same command with --resume."
        )


class RanksNotConnected(UserError):
    """The ranks of a run could not connect with each other."""

    def __init__(self, rank: int, ranks: int, reason: object) -> None:
        super().__init__(
            f"rank {rank} of {ranks} could not connect with the others ({shortened(reason)}). Start the command on "
            "every machine, with the same --master-addr and --master-port of a machine that all of them reach. If they "
            "reach each other by another network card than the first, name it: GLOO_SOCKET_IFNAME=eth1 (on GPUs "
            "NCCL_SOCKET_IFNAME)."
        )


class RanksDiffer(UserError):
    """The ranks of a run have different settings or data.

    Args:
        rank: the rank that says this.
        host: the name of its machine.
        others: the ranks that have something else than the first one.
        here: what differs, and what this rank has.
    """

    def __init__(self, rank: int, host: str, others: Sequence[int], here: Mapping[str, str]) -> None:
        listed = "; ".join(f"{name}: {shortened(value)}" for name, value in here.items())
        super().__init__(
            f"rank {', '.join(map(str, others))} has other settings or data than rank 0, and they would train "
            f"different networks. Rank {rank} on {host} has {listed}. Give every machine the same command and the "
            "same files."
        )

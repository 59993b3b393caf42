"""Run folders (`runs/NAME/`): names of the files, atomic writes, and a lock for one writer at a time."""

import csv
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml

from skystill.errors import DiskFull, RunFolderError, SkystillError, shortened, write_errno
from skystill.locks import hold_lock
from skystill.parsing import read_json, read_yaml
from skystill.progress import OnProgress, ignore_progress
from skystill.settings import FROM_DATA, TRUST, run_settings
from skystill.unfinished import PART, part_of

_FORMULA = (*"=+-@", "\t", "\r", "\n", *"＝＋－＠")  # noqa: RUF001 - spreadsheets take the wide signs, too


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file atomically: it appears complete or not at all.

    Yields:
        A temporary path in the same folder, to which the caller writes. It is renamed to `path` on success and deleted
        on failure.

    Raises:
        DiskFull: the folder cannot be written, or the disk is full.
    """
    part = part_of(path)
    try:
        with naming_failed_writes(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            sync(part)
            part.replace(path)
    finally:
        _remove(part)


def sync(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


@contextmanager
def naming_failed_writes(path: Path, scratch: bool = False) -> Iterator[None]:
    """Turn every failure to write inside the context into a `DiskFull` that names a file or folder.

    Libraries do not always pass on the system's error: what safetensors, torch and ONNX raise is recognised by the
    reason that they give.

    Args:
        path: what is written.
        scratch: whether it lies in the folder for temporary files.

    Raises:
        DiskFull: a write failed.
    """
    try:
        yield
    except OSError as error:
        raise DiskFull(path, error, scratch) from error
    except Exception as error:
        if scratch and type(error).__name__ == "DecodeError":  # of protobuf: ONNX Runtime does not check what it wrote
            raise DiskFull(path, "only a part of it was written", scratch) from error
        if isinstance(error, SkystillError) or write_errno(error) is None:
            raise
        raise DiskFull(path, error, scratch) from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Bytes of a file name that are no text are written as escapes."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically. NaN raises a ValueError, because JSON does not have it."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as a CSV file atomically. The columns are those of the first row.

    A text that a spreadsheet would take for a formula, such as a class called "=1+1", gets an apostrophe before it.
    """
    with written_whole(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows({name: _plain_cell(value) for name, value in row.items()} for row in rows)


def _plain_cell(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


_FORMS: dict[str, type] = {
    **dict.fromkeys(("data", "teacher", "student", "network", "classes", "split", "show"), str),
    "seed": int,
}
"""The form of the settings that reports and exports take from `config.yaml`. Each may also be missing or null, and
`teacher` may be a list."""


class RunConfig(dict[str, Any]):
    """The settings in a `config.yaml`. One that is missing is a fault of the file."""

    path: Path

    def __missing__(self, name: str) -> NoReturn:
        raise RunFolderError(f"{self.path} is damaged: it has no {name}. Take a whole copy of it, or train again.")


def is_own_data(config: Mapping[str, Any], data: Path) -> bool:
    """Return whether a run with these settings was trained on a data folder, or a catalogue."""
    return "data" in config and Path(str(config["data"])).resolve() == data.resolve()


class RunFolder:
    """The files of one run.

    Args:
        path: the folder. It may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.inputs = path / "inputs.json"
        self.split = path / "split.json"
        self.split_map = path / "split.geojson"
        self.metrics = path / "metrics.csv"
        self.results = path / "results.json"
        self.training = path / "training.json"
        self.study = path / "study.json"
        self.teacher_scores = path / "teacher.json"
        self.logits = path / "logits"
        self.report = path / "report.html"
        self.plots = path / "plots"
        self.samples = path / "samples"
        self.pictures = path / "pictures"
        self.loggers = path / "loggers.json"
        self.weights = path / "checkpoints" / "model.safetensors"
        self.metrics_int8 = path / "metrics-int8.csv"
        self.pruned = path / "checkpoints" / "pruned.safetensors"
        self.resume = path / "checkpoints" / "resume.pt"
        self.resume_int8 = path / "checkpoints" / "resume-int8.pt"

    @property
    def model(self) -> Path:
        """The float model file: `student.onnx` in a run of `distill`, `model.onnx` in a run of `train`."""
        return self.path / f"{self._model_stem}.onnx"

    @property
    def model_int8(self) -> Path:
        """The INT8 model file: `student-int8.onnx` or `model-int8.onnx`."""
        return self.path / f"{self._model_stem}-int8.onnx"

    @property
    def own_files(self) -> list[Path]:
        """The files of a run that an export must not replace. Some of them may not exist."""
        return [self.config, self.split, self.results, self.weights, self.report, self.model, self.model_int8]

    @property
    def _model_stem(self) -> str:
        if self.config.is_file() and "teacher" in self.read_config():
            return "student"
        is_of_before = (self.path / "student.onnx").exists() and not (self.path / "model.onnx").exists()
        return "student" if is_of_before else "model"  # earlier versions used this name in every run

    @property
    def alone(self) -> "RunFolder":
        """The run folder of the baseline: the same student trained without the teacher."""
        return RunFolder(self.path / "alone")

    @property
    def features(self) -> "RunFolder":
        """The run folder in which the student learnt the features of its teacher before it was distilled."""
        return RunFolder(self.path / "features")

    def start(self, config: Mapping[str, Any], resume: bool) -> None:
        """Create the folder and write `config.yaml`, or check that a resumed run has the same settings.

        Args:
            config: the settings. `out`, `devices`, `nodes`, `logger` and `trust_teacher` may differ in a resumed run.
            resume: continue the run in this folder, if there is one.

        Raises:
            RunFolderError: the folder holds a run and `resume` is False, its settings differ, or it holds other files.
        """
        self._make()
        self._clear_parts()
        if not self.config.exists():
            others = [
                p
                for p in self.path.iterdir()
                if not p.name.startswith(".") and p not in (self.logits, self.features.path)
            ]
            if not resume and others:
                raise RunFolderError(f"{self.path} is not empty and holds no run. Choose another --out.")
            write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False))
            return
        self.check_free(resume)
        if lines := self.changes(config):
            raise RunFolderError(f"{self.path}: --resume with other settings than the run began with: {lines}.")

    def keep_inputs(self, inputs: Mapping[str, str]) -> None:
        """Write `inputs.json` when a run begins, or check that a resumed run has the same.

        Args:
            inputs: what a training reads, such as "the labels", and a short text that is another one if it changes.

        Raises:
            RunFolderError: something is not as the run began with. Half of its epochs would have other images.
        """
        if not self.inputs.exists():
            write_json(self.inputs, dict(inputs))
            return
        before = self.read_json(self.inputs)
        changed = [name for name, value in inputs.items() if before.get(name, value) != value]
        if changed:
            then, now = ([f"{name} ({of[name]})" for name in changed] for of in (before, inputs))
            raise RunFolderError(
                f"{self.path}: --resume with other files than the run began with: {', '.join(then)}, now "
                f"{', '.join(now)}. Put back what was there, or choose another --out. To go on with the changed files "
                f"from where the run stopped, delete {self.inputs}."
            )

    def changes(self, config: Mapping[str, Any]) -> str:
        """Return the settings that differ from those that the run began with, as text; empty if none does.

        Raises:
            RunFolderError: as `read_config`.
        """
        before = self.read_config()
        # A run of an earlier version lacks later settings; it began with what is now their default, off or none.
        changed = [
            name
            for name, value in config.items()
            if name not in ("out", "devices", "nodes", "logger", TRUST)
            and value != before.get(name)
            and (name in before or value)
            and (name in before or name not in FROM_DATA)
        ]
        return "; ".join(f"{name} was {before.get(name)}, is now {config[name]}" for name in changed)

    def check_free(self, resume: bool) -> None:
        """Check that the folder holds no run, or that the run is to be resumed.

        Raises:
            RunFolderError: the folder holds a run and `resume` is False.
        """
        if not resume and (self.config.exists() or self.pruned.exists()):
            raise RunFolderError(f"{self.path} holds a run. Go on with it by --resume, or choose another --out.")

    def read_config(self) -> RunConfig:
        """Return the settings of the run, with the current names of settings that were renamed.

        Raises:
            RunFolderError: there is no run in this folder, or its `config.yaml` cannot be read.
        """
        if not self.config.is_file():
            raise RunFolderError(
                f"{self.path} is not a run folder: it has no config.yaml. Give a folder that train or distill made."
            )

        def refuse(reason: str) -> RunFolderError:
            return self._damaged(self.config, reason)

        config = RunConfig(run_settings(read_yaml(self.config, refuse), refuse))
        config.path = self.config
        for name, form in _FORMS.items():
            value = config.get(name)
            listed = isinstance(value, list) and value and all(isinstance(one, str) for one in value)
            if value is not None and not (isinstance(value, form) or (name == "teacher" and listed)):
                raise refuse(f"{name} is {shortened(repr(value))}, which is no value of it")
        return config

    def read_json(self, path: Path) -> dict[str, Any]:
        """Return the content of a JSON file of the run.

        Raises:
            RunFolderError: the file is missing or damaged.
        """
        if not path.exists():
            raise RunFolderError(f"{path} is missing: the run has not come that far. Finish it with --resume.")
        content = read_json(path, lambda reason: self._damaged(path, reason))
        if not isinstance(content, dict):
            raise self._damaged(path, f"it holds {type(content).__name__} instead of an object")
        return content

    def _damaged(self, path: Path, reason: str) -> RunFolderError:
        again = f"skystill evaluate {shlex.quote(str(self.path))}"
        made_again = again if path == self.results else "train or distill into a new folder"
        return RunFolderError(f"{path} is damaged: {reason}. Take a whole copy of it, or make it again: {made_again}.")

    @contextmanager
    def locked(self, on_progress: OnProgress = ignore_progress) -> Iterator[None]:
        """Lock the folder for one writer. The lock is released when the process ends, even after kill -9.

        Args:
            on_progress: receives a `Note` if the file system has no locks.

        Raises:
            RunFolderError: another process holds the lock.
            DiskFull: the folder cannot be created.
        """
        self._make()
        with hold_lock(self.path / ".lock", str(self.path), on_progress):
            yield

    def _make(self) -> None:
        with naming_failed_writes(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def _clear_parts(self) -> None:
        """Remove the incomplete files of a killed run. Call this with the lock held."""
        own = (self.path, self.weights.parent, self.plots, self.samples, self.pictures)
        for folder in own:  # others have locks of their own
            for part in folder.glob(".part-*"):
                _remove(part)


@contextmanager
def hold_output(path: Path, on_progress: OnProgress = ignore_progress) -> Iterator[None]:
    """Lock a file for one writer: by its run folder, if it lies in one, and otherwise by a lock beside it.

    Args:
        path: the file to write.
        on_progress: receives a `Note` if the file system has no locks.

    Raises:
        RunFolderError: another process holds the lock.
        DiskFull: its folder cannot be created.
    """
    folder = RunFolder(path.parent)
    if folder.config.is_file():
        with folder.locked(on_progress):
            yield
    else:
        with hold_lock(path.with_name(f".lock-{path.name}"), str(path), on_progress):
            for part in path.parent.iterdir():  # of a process that was killed
                if re.fullmatch(PART + re.escape(path.name), part.name):
                    _remove(part)
            yield


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # a disk that refuses to delete has already been reported by the write

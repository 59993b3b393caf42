"""`runs/NAME/`: the names in it, writes that are whole or not at all, one writer at a time."""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from skystill.errors import DiskFull, RunFolderError
from skystill.settings import with_current_names


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a name beside `path`; on success it takes the name, otherwise it goes.

    Raises:
        DiskFull: the folder cannot be written or the disk is full.
    """
    part = path.with_name(f".part-{os.getpid()}-{path.name}")  # suffix kept: drivers look at it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with open(part, "rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except OSError as error:
        raise DiskFull(path, error.strerror or str(error)) from error
    finally:
        _remove(part)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole; NaN, which JSON does not know, is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV whole; the columns are those of the first row."""
    with written_whole(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


class RunFolder:
    """The files of one run.

    Args:
        path: the folder, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.split = path / "split.json"
        self.metrics = path / "metrics.csv"
        self.results = path / "results.json"
        self.training = path / "training.json"
        self.study = path / "study.json"
        self.teacher_scores = path / "teacher.json"
        self.logits = path / "logits"
        self.report = path / "report.html"
        self.plots = path / "plots"
        self.samples = path / "samples"
        self.weights = path / "checkpoints" / "model.safetensors"
        self.metrics_int8 = path / "metrics-int8.csv"
        self.pruned = path / "checkpoints" / "pruned.safetensors"
        self.resume = path / "checkpoints" / "resume.pt"
        self.resume_int8 = path / "checkpoints" / "resume-int8.pt"

    @property
    def model(self) -> Path:
        """The model file: `student.onnx` in a run of distill, `model.onnx` in a run of train."""
        return self.path / f"{self._model_stem}.onnx"

    @property
    def model_int8(self) -> Path:
        """The same in INT8."""
        return self.path / f"{self._model_stem}-int8.onnx"

    @property
    def _model_stem(self) -> str:
        if (self.path / "student.onnx").exists():  # earlier commits called it so in every run
            return "student"
        return "student" if self.config.is_file() and "teacher" in self.read_config() else "model"

    @property
    def alone(self) -> "RunFolder":
        """The baseline: the same student trained without the teacher."""
        return RunFolder(self.path / "alone")

    def start(self, config: Mapping[str, Any], resume: bool) -> None:
        """Make the folder and write `config.yaml`, or check that a resumed run has the same settings.

        Raises:
            RunFolderError: the folder holds a run and `resume` is False, or its settings differ.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._clear_parts()
        if not self.config.exists():
            others = [p for p in self.path.iterdir() if not p.name.startswith(".") and p != self.logits]
            if not resume and others:
                raise RunFolderError(f"{self.path} is not empty and holds no run. Choose another --out.")
            write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False))
            return
        self.check_free(resume)
        before = self.read_config()
        changed = [n for n in config if n not in ("out", "devices", "nodes") and config[n] != before.get(n)]
        if changed:
            lines = "; ".join(f"{name} was {before.get(name)}, is now {config[name]}" for name in changed)
            raise RunFolderError(f"{self.path}: --resume with other settings than the run began with: {lines}.")

    def check_free(self, resume: bool) -> None:
        """Refuse a folder where a run was begun, unless it is gone on with.

        Raises:
            RunFolderError: it was, and `resume` is False.
        """
        if not resume and (self.config.exists() or self.pruned.exists()):
            raise RunFolderError(f"{self.path} holds a run. Go on with it by --resume, or choose another --out.")

    def read_config(self) -> dict[str, Any]:
        """The settings of the run.

        Raises:
            RunFolderError: there is no run here, or its config is not readable.
        """
        if not self.config.is_file():
            raise RunFolderError(
                f"{self.path} is not a run folder: it has no config.yaml. Give a folder that train or distill made."
            )
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{self.config} is damaged: {error}.") from error
        if not isinstance(content, dict):
            raise RunFolderError(f"{self.config} is damaged: it holds no settings.")
        return with_current_names(content)

    def read_json(self, path: Path) -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunFolderError(
                f"{path} is missing: the run has not come that far. Finish it with --resume."
            ) from error
        except ValueError as error:
            raise RunFolderError(f"{path} is damaged: {error}.") from error
        return dict(content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one writer; the lock goes with the process, even by kill -9.

        Raises:
            RunFolderError: another process is at work in this folder.
        """
        self._make()
        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise RunFolderError(
                f"{self.path} is in use by another process. Wait for it, or choose another --out."
            ) from error

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskFull(self.path, error.strerror or str(error)) from error

    def _clear_parts(self) -> None:
        """Remove what a killed run left half-written. Called with the lock held."""
        for part in self.path.rglob(".part-*"):
            _remove(part)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # a disk that refuses to delete has already been reported by the write

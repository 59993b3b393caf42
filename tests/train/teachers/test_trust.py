"""A teacher's file cannot run code: programs need the user's word, and archives are checked before they are opened."""

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn

from skystill.api.processes import to_arguments
from skystill.classes import ClassMap
from skystill.cli import app
from skystill.cli.options import use_config
from skystill.errors import CheckpointError, RunFolderError, SettingsError, UserError
from skystill.run_folder import RunFolder
from skystill.settings import CacheSettings, DistillSettings, PruneSettings, TeacherSettings, TuneSettings
from skystill.train.libraries import archives
from skystill.train.libraries.archives import check_archive
from skystill.train.libraries.state import read_state
from skystill.train.runs import cache_settings
from skystill.train.teachers.loaders.loader import Origin
from skystill.train.teachers.loaders.program import load_program
from skystill.train.teachers.origins import find_teachers
from skystill.train.tune import trial_settings

ABC = ClassMap(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "good.pt2"
    sizes = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(Small().eval(), (torch.zeros(1, 3, 64, 64),), dynamic_shapes=sizes), path)
    return path


class Evil:
    """An object whose unpickling makes a folder."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.ran),)


def changed(program: Path, out: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of a program with changed files. A name that ends in "/2" is a second file of the name before it."""
    with zipfile.ZipFile(program) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content in files.items():
            archive.writestr(name.removesuffix("/2"), content)
    return out


def only(files: dict[str, bytes], end: str) -> str:
    (name,) = (name for name in files if name.endswith(end))
    return name


def evaluate_expression(files: dict[str, bytes], ran: Path) -> None:
    """A size that is an expression of sympy: torch gives its text to eval."""
    name = only(files, "models/model.json")
    text = json.dumps(json.loads(files[name]))
    start = text.index('"expr_str": "') + len('"expr_str": "')
    expression = f"__import__('os').mkdir({str(ran)!r})"
    files[name] = (text[:start] + expression + text[text.index('"', start) :]).encode()


def pickled_weights(files: dict[str, bytes], ran: Path) -> None:
    content = io.BytesIO()
    torch.save({"x": Evil(ran)}, content)
    files[only(files, "weights/weight_0")] = content.getvalue()


def sample_inputs(files: dict[str, bytes], ran: Path) -> None:
    files[only(files, "sample_inputs/model.pt")] = pickle.dumps((Evil(ran),), protocol=0)


def protocol_0(files: dict[str, bytes], ran: Path) -> None:
    files[only(files, "weights/weight_0")] = pickle.dumps(Evil(ran), protocol=0)


def second_of_a_name(files: dict[str, bytes], ran: Path) -> None:
    content = io.BytesIO()
    torch.save((Evil(ran),), content)
    files[only(files, "sample_inputs/model.pt") + "/2"] = content.getvalue()


def compiled_library(files: dict[str, bytes], ran: Path) -> None:
    folder = only(files, "archive_format").removesuffix("archive_format")
    files[f"{folder}data/aotinductor/model/model.so"] = b"\x7fELF"
    files[f"{folder}data/aotinductor/model/wrapper.json"] = b"{}"


WAYS = (evaluate_expression, pickled_weights, sample_inputs, protocol_0, second_of_a_name, compiled_library)


@pytest.mark.parametrize("way", WAYS)
def test_six_ways_into_a_program_are_closed(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[dict[str, bytes], Path], None]
) -> None:
    path = changed(program, tmp_path / "evil.pt2", lambda files: way(files, tmp_path / "ran"))
    opened: list[object] = []
    monkeypatch.setattr(torch.export, "load", lambda *a, **k: opened.append(a))
    monkeypatch.setattr(torch, "load", lambda *a, **k: opened.append(a))
    with pytest.raises(SettingsError, match=r"evil\.pt2': loading a \.pt2 file can run code"):
        find_teachers([str(path)], None, ABC)
    with pytest.raises(SettingsError, match="can run code"):
        load_program(Origin(str(path), "program", str(path)))
    assert not opened and not (tmp_path / "ran").exists()


def test_the_first_way_runs_code_where_it_is_trusted(program: Path, tmp_path: Path) -> None:
    """Without it, the test above might pass because the file is no good."""
    path = changed(program, tmp_path / "evil.pt2", lambda files: evaluate_expression(files, tmp_path / "ran"))
    with pytest.raises(UserError):
        find_teachers([str(path)], None, ABC, trusted=True).load()
    assert (tmp_path / "ran").exists()


def test_a_trusted_program_is_loaded_and_the_refusal_says_what_else_works(program: Path, tmp_path: Path) -> None:
    images = torch.arange(3 * 64 * 64).reshape(1, 3, 64, 64) % 256
    (teacher,) = find_teachers([str(program)], None, ABC, trusted=True).load()
    expected = torch.export.load(program).module()(images / 255)
    assert torch.allclose(teacher(images), expected, atol=1e-4)
    with pytest.raises(SettingsError) as refused:
        find_teachers([f"{program}?input=0..255"], None, ABC)
    for words in ("--trust-teacher", "torch.onnx.export(torch.export.load(", "good.onnx", "safetensors"):
        assert words in str(refused.value)


@pytest.mark.parametrize("way", [pickled_weights, second_of_a_name, sample_inputs])
def test_trust_ends_at_files_that_are_plainly_damaged(
    program: Path, tmp_path: Path, way: Callable[[dict[str, bytes], Path], None]
) -> None:
    path = changed(program, tmp_path / "evil.pt2", lambda files: way(files, tmp_path / "ran"))
    if way is sample_inputs:  # protocol 0 looks like text: only trust stands before it
        return
    with pytest.raises(CheckpointError, match=r"two files of the name|only by unpickling"):
        find_teachers([str(path)], None, ABC, trusted=True).load()
    assert not (tmp_path / "ran").exists()


def test_trust_is_a_setting_of_every_command_that_takes_a_teacher() -> None:
    for kind in (TeacherSettings, DistillSettings, CacheSettings, TuneSettings, PruneSettings):
        assert kind.model_fields["trust_teacher"].default is False


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_trust_reaches_the_processes_and_the_trials_that_load_the_teacher(tmp_path: Path) -> None:
    trusted = DistillSettings(data=tmp_path, out=tmp_path / "run", teacher=["t.pt2"], trust_teacher=True)
    assert "--trust-teacher" in to_arguments(trusted)
    cache = cache_settings(trusted)
    assert cache.trust_teacher and "--trust-teacher" in to_arguments(cache)
    study = TuneSettings(data=tmp_path, out=tmp_path / "study", teacher=["t.pt2"], trust_teacher=True)
    assert trial_settings(study, optuna.create_study().ask()).trust_teacher
    assert "--no-trust-teacher" in to_arguments(DistillSettings(**{**trusted.model_dump(), "trust_teacher": False}))


def test_trust_is_not_taken_from_a_file(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("trust_teacher: true\ntemperature: 3.0\n")
    context = typer.Context(typer.main.get_command(app).commands["distill"])  # type: ignore[attr-defined]
    use_config(context, config)
    assert context.default_map == {"temperature": 3.0}


def test_trust_may_be_given_when_a_run_is_resumed(tmp_path: Path) -> None:
    """Run folders of earlier versions hold no such setting, and their teachers were loaded without it."""
    folder = RunFolder(tmp_path / "run")
    folder.start({"teacher": ["t.pt2"], "alpha": 0.3}, resume=False)
    folder.start({"teacher": ["t.pt2"], "alpha": 0.3, "trust_teacher": True}, resume=True)
    with pytest.raises(RunFolderError, match="alpha was"):
        folder.start({"teacher": ["t.pt2"], "alpha": 0.4, "trust_teacher": True}, resume=True)


# ---- archives of every kind


def archive(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as file:
        warnings.simplefilter("ignore")
        for name, content in members:
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("a/data.pkl", b"1"), ("a/data.pkl", b"2")], "two files of the name 'a/data.pkl'"),
        ([("a/data.pkl", b"1"), ("A/Data.pkl", b"2")], "two files of the name 'A/Data.pkl'"),
        ([("a/data.pkl", b"1"), ("a\\data.pkl", b"2")], "two files of the name 'a/data.pkl'"),
        ([("../data.pkl", b"1")], "which leads out of it"),
        ([("a/../../data.pkl", b"1")], "which leads out of it"),
        ([("/etc/data.pkl", b"1")], "which leads out of it"),
    ],
)
@pytest.mark.parametrize("name", ["t.pth", "t.pt2"])
def test_names_in_an_archive(tmp_path: Path, name: str, members: list[tuple[str, bytes]], says: str) -> None:
    path = archive(tmp_path / name, members)
    with pytest.raises(CheckpointError, match=says):
        if name.endswith(".pt2"):
            find_teachers([str(path)], None, ABC, trusted=True).load()
        else:
            read_state(path, "t")


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "t.pth", [("a/data.pkl", bytes(300 * 2**20))], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *a, **k: pytest.fail("a member was opened"))
    with pytest.raises(CheckpointError, match=r"unpacks to 314,572,800 in 1 files: a decompression bomb"):
        read_state(path, "t")


def test_weights_that_pack_well_and_files_of_other_kinds_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_archive(archive(tmp_path / "t.keras", [("w", bytes(2**20))], zipfile.ZIP_DEFLATED))
    torch.save(Small().state_dict(), tmp_path / "t.pth")
    save_file(Small().state_dict(), tmp_path / "t.safetensors")
    torch.save(Small().state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("t.pth", "t.safetensors", "old.pth"):
        assert read_state(tmp_path / name, "t").keys() == {"conv.weight", "conv.bias"}
    monkeypatch.setattr(archives, "LARGEST_FILE", 100)
    for name in ("t.pth", "t.safetensors", "old.pth"):
        with pytest.raises(CheckpointError, match="bytes; files up to 100 are opened"):
            read_state(tmp_path / name, "t")

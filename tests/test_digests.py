"""Damage to SkyStill's own binary files: every bit that changes is found, or changes nothing that is read."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import rasterio
import torch
from PIL import Image

from skystill.classes import DUBAI
from skystill.data.scenes import paint_scene
from skystill.data.unlabeled import ImageWindow
from skystill.digests import ONNX_TRAILER, TEXT_TRAILER, DigestDiffers, check_safetensors
from skystill.errors import CheckpointError, DataError, ModelFileError, PredictionStopped, RunFolderError
from skystill.model.file import open_session, read_info
from skystill.model.ir import model_bytes
from skystill.predict import Predictor
from skystill.raster.output import RasterOutput
from skystill.settings import RasterSettings
from skystill.train.loop.checkpoint import Checkpointer, LoopState
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, read_network, write_network
from skystill.train.teachers.logit_cache import LogitCache
from tests.channel_model import INFO, write_model
from tests.train.loop.test_loop import task

SPEC = "kite?channels=(8,16)&blocks=(1,1)"
POSITIONS = 200


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is written, how it is read to something that can be compared, and its error."""

    name: str
    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    error: type[Exception]
    mend: str


def write_checkpoint(folder: Path) -> Path:
    Checkpointer(folder / "resume.pt", lambda rows: None).save(task(), LoopState(2, 1, [{"epoch": 1.0, "loss": 0.5}]))
    return folder / "resume.pt"


def read_checkpoint(path: Path) -> Any:
    made = task(seed=1)
    state = Checkpointer(path, lambda rows: None).load(made)
    return state, [value.tolist() for value in made.network.state_dict().values()]


def write_weights(folder: Path) -> Path:
    torch.manual_seed(0)
    write_network(folder / "model.safetensors", build_network(SPEC, 6), NetworkRecord(SPEC, DUBAI, {"seed": 3}))
    return folder / "model.safetensors"


def read_weights(path: Path) -> Any:
    network, record = read_network(path)
    return replace(record, classes=replace(record.classes, source="")), [
        v.tolist() for v in network.state_dict().values()
    ]


def write_cache(bits: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        Image.fromarray(paint_scene(40, 1)[0]).save(folder / "scene.png")
        torch.manual_seed(0)
        cache = LogitCache(folder, "key", symmetric=False, bits=bits)
        cache.fill([ImageWindow(folder / "scene.png")], build_network(SPEC, 6).eval(), torch.device("cpu"))
        return cache.path(ImageWindow(folder / "scene.png"))

    return write


def read_cache(path: Path) -> Any:
    from skystill.train.teachers.logit_cache import CachedLogits

    found = CachedLogits(path)
    return found[:, :].tolist(), found.step.tolist(), found.low.tolist()


def write_onnx(folder: Path) -> Path:
    path = write_model(folder / "m.onnx", INFO.to_metadata())
    path.write_bytes(model_bytes(onnx.load(path)))
    return path


def read_onnx(path: Path) -> Any:
    session = open_session(path)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 4), np.uint8)
    info = read_info(session, path)
    return replace(info, classes=replace(info.classes, source="")), session.run(None, {"image": image})[0].tolist()


KINDS = [
    Kind("checkpoint", write_checkpoint, read_checkpoint, CheckpointError, "Delete it to begin this run again"),
    Kind("weights", write_weights, read_weights, CheckpointError, "Train again, or take a whole copy"),
    Kind("cache of 16 bits", write_cache(16), read_cache, DataError, "Delete it and run skystill cache again"),
    Kind("cache of 8 bits", write_cache(8), read_cache, DataError, "Delete it and run skystill cache again"),
    Kind("model file", write_onnx, read_onnx, ModelFileError, "Take a whole copy, or export it again"),
]


def flipped(content: bytes, seed: int) -> Iterator[tuple[int, bytes]]:
    """Copies with one bit changed: at places spread over the file, and all over its first and last bytes."""
    generator = random.Random(seed)
    places = {index * len(content) // POSITIONS for index in range(POSITIONS)}
    places |= set(range(16)) | set(range(len(content) - 120, len(content)))
    for place in sorted(places):
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        yield place, bytes(changed)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_bit_counts(kind: Kind, tmp_path: Path) -> None:
    path = kind.write(tmp_path)
    whole, expected = path.read_bytes(), kind.read(path)
    found = harmless = 0
    for place, changed in flipped(whole, seed=1):
        path.unlink()
        path.write_bytes(changed)
        try:
            assert kind.read(path) == expected, place
            harmless += 1
        except kind.error as error:
            assert str(path) in str(error) and len(str(error)) < 1500, str(error)
            found += 1
    assert found >= POSITIONS and harmless <= 90, (found, harmless)  # the name of the digest's own entry is harmless


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_message_names_the_file_and_the_mend(kind: Kind, tmp_path: Path) -> None:
    path = kind.write(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)
    with pytest.raises(
        kind.error, match=rf"{path.name}.*its bytes have changed since it was written(?s:.*){kind.mend}"
    ):
        kind.read(path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("left", [0, 1, 8, 300, -1, -200])
def test_files_that_were_cut(kind: Kind, left: int, tmp_path: Path) -> None:
    path = kind.write(tmp_path)
    expected, content = kind.read(path), path.read_bytes()
    path.write_bytes(content[:left])
    try:
        assert kind.read(path) == expected and left == -1 and kind.name == "checkpoint"  # without the last line end
    except kind.error as error:
        assert str(path) in str(error)


def test_files_without_a_digest_open(tmp_path: Path) -> None:
    """Those of earlier versions, and of other programs."""
    path = write_onnx(tmp_path)
    expected = read_onnx(path)
    path.write_bytes(path.read_bytes()[: -len(ONNX_TRAILER)])
    assert not ONNX_TRAILER.check(path) and read_onnx(path) == expected
    content = {"epoch": 0, "step": 0, "history": [], "meter": task().meter.state(), "stepper": task().stepper.state()}
    torch.save(content, tmp_path / "resume.pt")
    assert not TEXT_TRAILER.check(tmp_path / "resume.pt")
    assert read_checkpoint(tmp_path / "resume.pt")[0] == LoopState()
    from safetensors.torch import save_file

    network = build_network(SPEC, 6)
    record = {"network": SPEC, "classes": DUBAI.to_dict()}
    save_file(network.state_dict(), tmp_path / "old.safetensors", metadata={"skystill": json.dumps(record)})
    assert not check_safetensors(tmp_path / "old.safetensors")
    assert read_network(tmp_path / "old.safetensors")[1].network == SPEC


def test_a_checkpoint_that_lost_its_digest_is_damaged(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path)
    path.write_bytes(path.read_bytes()[: -len(TEXT_TRAILER)])
    with pytest.raises(CheckpointError, match="its bytes have changed"):
        read_checkpoint(path)


def test_other_programs_read_a_model_file_with_a_digest(tmp_path: Path) -> None:
    path = write_onnx(tmp_path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    digest = {entry.key: entry.value for entry in model.metadata_props}["skystill_sha256"]
    import hashlib

    assert json.loads(digest) == hashlib.sha256(path.read_bytes()[: -len(ONNX_TRAILER)]).hexdigest()
    session = onnxruntime.InferenceSession(path)
    assert session.get_modelmeta().custom_metadata_map["skystill_sha256"] == digest
    # What another program changes on purpose is told apart from damage in the message.
    model.graph.name = "simplified"
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match="If another program changed it on purpose, take skystill_sha256 out"):
        open_session(path)
    kept = [entry for entry in model.metadata_props if entry.key != "skystill_sha256"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, path)
    open_session(path)


def test_a_cache_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from skystill import digests
    from skystill.train.teachers import logit_cache

    counted: list[Path] = []

    def count(path: Path) -> bool:
        counted.append(path)
        return check_safetensors(path)

    monkeypatch.setattr(logit_cache, "check_safetensors", count)
    path = write_cache(16)(tmp_path)
    for _ in range(3):
        read_cache(path)
    assert counted == [path]
    monkeypatch.setattr(digests, "_SEEN", set())
    read_cache(path)
    assert counted == [path, path]


# ---- journals of predictions

RGB = np.random.default_rng(2).integers(0, 256, (3, 300, 200), np.uint8)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The journal of a prediction that was stopped after two of its parts."""
    folder = tmp_path / "journal"
    folder.mkdir()
    write_model(folder / "m.onnx", replace(INFO, parameters=1, tile_size=128).to_metadata())
    with rasterio.open(folder / "in.tif", "w", driver="GTiff", height=300, width=200, count=3, dtype="uint8") as file:
        file.write(RGB)
    write_unit, left = RasterOutput.write, [2]

    def stop(self: RasterOutput, unit: Any, arrays: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write_unit(self, unit, arrays)

    monkeypatch.setattr(RasterOutput, "write", stop)
    with pytest.raises(PredictionStopped):
        Predictor(folder / "m.onnx", threads=1).predict(folder / "in.tif", folder / "out.tif", SETTINGS)
    monkeypatch.setattr(RasterOutput, "write", write_unit)
    return folder


SETTINGS = RasterSettings(tile=128, overlap=16)


def go_on(folder: Path) -> None:
    Predictor(folder / "m.onnx", threads=1).predict(folder / "in.tif", folder / "out.tif", SETTINGS, resume=True)
    with rasterio.open(folder / "out.tif") as file:
        assert np.array_equal(file.read(1), RGB.argmax(axis=0))


@pytest.mark.parametrize("name", ["00000000.unit", "00000001.unit", "settings.json"])
def test_every_bit_of_a_journal_counts(name: str, journal: Path) -> None:
    path = journal / ".unfinished-out.tif" / name
    whole, kept = path.read_bytes(), journal.with_name("kept")
    shutil.copytree(journal, kept)
    found = 0
    for place, changed in list(flipped(whole, seed=2))[:: 8 if name != "settings.json" else 4]:
        path.write_bytes(changed)
        try:
            go_on(journal)
        except RunFolderError as error:
            assert path.parent.name in str(error) or "other settings" in str(error), (place, str(error))
            found += 1
        shutil.rmtree(journal)
        shutil.copytree(kept, journal)
    assert found >= 20


def test_a_damaged_part_is_predicted_again_when_it_is_deleted(journal: Path) -> None:
    path = journal / ".unfinished-out.tif" / "00000001.unit"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"00000001\.unit is damaged .*Delete it, and go on with --resume"):
        go_on(journal)
    path.unlink()
    go_on(journal)


def test_parts_of_an_earlier_version_go_on(journal: Path) -> None:
    for path in (journal / ".unfinished-out.tif").glob("*.unit"):
        path.write_bytes(bytes(TEXT_TRAILER.opened(path.read_bytes())))
    settings = journal / ".unfinished-out.tif" / "settings.json"
    content = json.loads(settings.read_text())
    del content["_sha256"]
    settings.write_text(json.dumps(content))
    go_on(journal)


def test_a_trailer_is_found_only_at_the_end() -> None:
    content = b"abc" + TEXT_TRAILER.of(b"abc")
    assert bytes(TEXT_TRAILER.opened(content)) == b"abc"
    assert bytes(TEXT_TRAILER.opened(content + b"x")) == content + b"x"
    with pytest.raises(DigestDiffers):
        TEXT_TRAILER.opened(b"abd" + TEXT_TRAILER.of(b"abc"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("check", [check_safetensors, TEXT_TRAILER.check])
def test_a_named_pipe_is_not_read(check: Callable[[Path], bool], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights")
    with pytest.raises(OSError, match="a named pipe or a device"):
        check(tmp_path / "weights")

"""Keras files that bring code, or that name other files: each is refused, and nothing of them runs."""

import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from skystill.classes import ClassMap
from skystill.errors import CheckpointError, SettingsError
from skystill.train.teachers.origins import find_teachers

ABC = ClassMap(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
OLD_NUMPY = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in Keras itself
pytestmark = OLD_NUMPY


def model(*layers: keras.layers.Layer) -> keras.Model:
    images = keras.Input((None, None, 3))
    found = images
    for layer in (*layers, keras.layers.Conv2D(3, 1, name="last")):
        found = layer(found)
    return keras.Model(images, found)


@pytest.mark.parametrize("name", ["t.keras", "t.h5", "t.hdf5"])
def test_a_lambda_layer_is_refused(tmp_path: Path, name: str) -> None:
    ran = str(tmp_path / "ran")
    path = tmp_path / ("t.h5" if name == "t.hdf5" else name)
    model(keras.layers.Lambda(lambda found: __import__("pathlib").Path(ran).mkdir(exist_ok=True) or found)).save(path)
    (tmp_path / "ran").rmdir()  # it ran when the model was made
    path.rename(tmp_path / name)
    with pytest.raises(CheckpointError, match="Keras cannot load it in safe mode"):
        find_teachers([str(tmp_path / name)], None, ABC).load()
    assert not (tmp_path / "ran").exists()


def outside(path: Path, secret: Path) -> None:
    """Let the kernel of an HDF5 file take its values from another file."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, one: names.append(name) if getattr(one, "shape", 0) == (1, 1, 3, 3) else None)
        (name,) = names
        del file[name]
        file.create_dataset(name, shape=(1, 1, 3, 3), dtype="<f4", external=[(str(secret), 0, 36)])


@pytest.mark.parametrize("name", ["t.keras", "t.h5"])
def test_weights_that_are_in_another_file_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(np.ones(9, np.float32).tobytes())
    path = tmp_path / name
    model().save(path)
    if name == "t.h5":
        outside(path, tmp_path / "secret")
    else:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        (tmp_path / "w.h5").write_bytes(files["model.weights.h5"])
        outside(tmp_path / "w.h5", tmp_path / "secret")
        files["model.weights.h5"] = (tmp_path / "w.h5").read_bytes()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    with pytest.raises(CheckpointError, match="Keras cannot load it in safe mode"):
        find_teachers([str(path)], None, ABC).load()


@pytest.mark.parametrize("version", ["3.11.2", "3.13.0", "2.15.0"])
def test_versions_whose_safe_mode_has_holes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    model().save(tmp_path / "t.keras")
    monkeypatch.setattr(keras, "__version__", version)
    with pytest.raises(SettingsError, match=rf"Keras {version} can run code from a file.* 3\.13\.2: pip install"):
        find_teachers([str(tmp_path / "t.keras")], None, ABC).load()


def test_a_good_file_is_loaded(tmp_path: Path) -> None:
    model().save(tmp_path / "t.keras")
    find_teachers([str(tmp_path / "t.keras")], None, ABC).load()

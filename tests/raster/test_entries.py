"""Entries of a journal: what a damaged one declares is bounded by what is expected."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from skystill.raster.entries import pack_entry, read_entry

FLAT = np.full((2, 50, 40), 7, np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (1, 50, 40)).astype(np.uint8)
HEAD = struct.Struct("<cQ")


def test_arrays_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.unit"
    path.write_bytes(pack_entry([FLAT, NOISE]))  # runs, and deflate
    found = read_entry(path, [FLAT.size, NOISE.size])
    assert (found[0] == FLAT.ravel()).all() and (found[1] == NOISE.ravel()).all()


def runs(length: int) -> bytes:
    """An entry of an earlier version, without a digest: one run."""
    return HEAD.pack(b"R", 5) + b"\x07" + np.uint32(length).tobytes()


def deflated(length: int) -> bytes:
    body = zlib.compress(bytes(length))
    return HEAD.pack(b"Z", len(body)) + body


@pytest.mark.parametrize("entry", [runs(2**32 - 1), runs(3999), deflated(2**26), deflated(3999)])
def test_another_size_is_refused_before_it_is_made(entry: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.unit").write_bytes(entry)
    with pytest.raises(ValueError, match="another number of pixels than 4,000"):
        read_entry(tmp_path / "a.unit", [4000])


def test_what_is_larger_than_an_entry_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "a.unit", "wb") as file:
        file.truncate(2**33)
    with pytest.raises(ValueError, match="8,589,934,592 bytes"):
        read_entry(tmp_path / "a.unit", [4000])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_device_is_not_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.unit"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="no file"):
        read_entry(path, [4000])

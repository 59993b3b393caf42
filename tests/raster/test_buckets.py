"""Buckets of a server of S3 on this computer: what lies in them, and copies to and from them."""

from pathlib import Path

import pytest

from skystill.errors import DataError, SettingsError
from skystill.raster.buckets import copy_file, find_in_bucket, is_bucket, vsi_name
from tests.s3 import Bucket

KEYS = (
    "in/a.tif", "in/B.TIF", "in/notes.txt", "in/a_mask.tif", "in/masks/a.tif", "in/north/c.tif", "in/north/deep/d.tif",
    "in/.hidden/e.tif", "in/.f.tif", "in/x y.tif", "in/ü[1].tif", "in/q?#.tif", "top.tif",
)  # fmt: skip


@pytest.fixture
def full(bucket: Bucket) -> Bucket:
    for key in KEYS:
        bucket.put(key, b"content of " + key.encode())
    return bucket


PLAIN = ["B.TIF", "a.tif", "q?#.tif", "x y.tif", "ü[1].tif"]


@pytest.mark.parametrize(
    ("name", "recursive", "root", "images", "masks", "folders"),
    [
        ("in/", False, "in/", PLAIN, ["a_mask.tif"], ["north"]),
        ("in", False, "in/", PLAIN, ["a_mask.tif"], ["north"]),
        ("in/", True, "in/", [*PLAIN[:2], "north/c.tif", "north/deep/d.tif", *PLAIN[2:]],
         ["a_mask.tif", "masks/a.tif"], []),
        ("in/*.tif", False, "in/", PLAIN, ["a_mask.tif"], []),
        ("in/?.tif", False, "in/", ["B.TIF", "a.tif"], [], []),
        ("*/*.tif", False, "", [f"in/{name}" for name in PLAIN], ["in/a_mask.tif"], []),
        ("in/**/*.tif", False, "in/", [*PLAIN[:2], "north/c.tif", "north/deep/d.tif", *PLAIN[2:]],
         ["a_mask.tif", "masks/a.tif"], []),
        ("in/nor*", False, "in/", [], [], ["north"]),
        ("in/nor*", True, "in/", ["north/c.tif", "north/deep/d.tif"], [], ["north"]),
        ("", False, "", ["top.tif"], [], ["in"]),
    ],
)  # fmt: skip
def test_a_bucket_is_listed_by_the_rules_of_folders(
    full: Bucket, name: str, recursive: bool, root: str, images: list[str], masks: list[str], folders: list[str]
) -> None:
    found = find_in_bucket(full / name, recursive)
    assert found is not None and found.root == full / root
    listed = [[path.as_posix() for path in paths] for paths in (found.listing.images, found.listing.masks)]
    assert listed == [images, masks]
    assert [path.as_posix() for path in found.listing.folders] == folders


def test_every_image_that_is_listed_can_be_read_under_its_address(full: Bucket, tmp_path: Path) -> None:
    found = find_in_bucket(full / "in/", recursive=True)
    assert found is not None
    for path in found.listing.images:
        copy_file(found.address(path), tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == f"content of in/{path.as_posix()}".encode()
    assert found.address(Path("a.tif")) == full / "in/a.tif"
    assert found.address(Path("q?#.tif")) == vsi_name(full / "in/q?#.tif")


@pytest.mark.parametrize("name", ["in/a.tif", "in/ü[1].tif", "in/missing.tif"])
def test_one_object_is_not_listed(full: Bucket, name: str) -> None:
    assert find_in_bucket(full / name, recursive=False) is None


@pytest.mark.parametrize(("name", "said"), [("none/", "there is no such folder"), ("none/*.tif", "no such folder")])
def test_a_folder_that_is_not_there(full: Bucket, name: str, said: str) -> None:
    with pytest.raises(DataError, match=f"nothing can be listed there: .*{said}"):
        find_in_bucket(full / name, recursive=False)


def test_a_bucket_that_is_not_there(full: Bucket) -> None:
    with pytest.raises(DataError, match="The specified bucket does not exist"):
        find_in_bucket("s3://no-such-bucket/in/", recursive=False)
    with pytest.raises(SettingsError, match="names no bucket"):
        find_in_bucket("s3://", recursive=False)


@pytest.mark.parametrize(
    ("name", "said"),
    [("s3://b/in/", "AWS_SECRET_ACCESS_KEY"), ("gs://b/in/", "GS_SECRET_ACCESS_KEY"), ("az://b/in/", "AZURE_|CURL")],
)
def test_without_credentials_the_reason_is_gdals(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for option in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(option, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "nobody.invalid")
    with pytest.raises(DataError, match=said) as raised:
        find_in_bucket(name, recursive=False)
    assert name in str(raised.value) and raised.value.exit_code == 2


def test_copies_to_a_bucket_and_back(bucket: Bucket, tmp_path: Path) -> None:
    content = bytes(range(256)) * 3000
    (tmp_path / "a.bin").write_bytes(content)
    copy_file(tmp_path / "a.bin", bucket / "deep/a b.bin")
    assert bucket.get("deep/a b.bin") == content
    copy_file(bucket / "deep/a b.bin", tmp_path / "b.bin")
    assert (tmp_path / "b.bin").read_bytes() == content
    (tmp_path / "empty").write_bytes(b"")
    copy_file(tmp_path / "empty", bucket / "empty")
    assert bucket.get("empty") == b""
    for source, target in (
        (tmp_path / "none", bucket / "x"), (bucket / "none", tmp_path / "x"), (tmp_path / "a.bin", "s3://nowhere/x"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=r"cannot be copied to .*: .+"):
            copy_file(source, target)
    assert not (tmp_path / "x").exists()


def test_names_of_buckets() -> None:
    assert [vsi_name(name) for name in ("s3://b/k", "gs://b/k", "az://c/k", "a.tif", "/vsis3/b/k")] == [
        "/vsis3/b/k", "/vsigs/b/k", "/vsiaz/c/k", "a.tif", "/vsis3/b/k",
    ]  # fmt: skip
    assert [is_bucket(name) for name in ("s3://b", "/vsiaz/c", "https://s3/", "s3.tif", "/vsicurl/s3://")] == [
        True, True, False, False, False,
    ]  # fmt: skip

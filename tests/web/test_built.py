"""The files of packages/skystill-web are those that its lockfile gives."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import skystill_web

PROJECT = Path(__file__).parents[2] / "packages/skystill-web"
BUILT = Path(skystill_web.__file__).parent / "built"
NPM = [shutil.which("npm") or "npm", "--fetch-retries=0", "--fetch-timeout=20000"]


def npm(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NPM, *command], cwd=cwd, capture_output=True, text=True, check=False)


def test_every_file_is_whole_and_listed() -> None:
    files = skystill_web.read_manifest()["files"]
    assert set(files) == {"ort.js", "ort.wasm", "geotiff.js", "licences.txt"}
    assert {path.name for path in BUILT.glob("*.gz")} == {f"{name}.gz" for name in files}
    for name, about in files.items():
        content = gzip.decompress(skystill_web.read_packed(name))
        assert (len(content), hashlib.sha256(content).hexdigest()) == (about["bytes"], about["sha256"])


def test_the_lockfile_pins_by_integrity_and_names_no_registry() -> None:
    text = (PROJECT / "package-lock.json").read_text()
    assert "resolved" not in text
    packages = {name: about for name, about in json.loads(text)["packages"].items() if name}
    assert all(about["integrity"].startswith("sha512-") for about in packages.values())
    named = skystill_web.read_manifest()["packages"]
    assert {"onnxruntime-web", "geotiff"} <= set(named)
    for name, about in named.items():
        locked = packages[f"node_modules/{name}"]
        assert about == {key: locked[key] for key in ("version", "license", "integrity")}


def test_each_package_has_its_licence_in_the_page() -> None:
    licences = gzip.decompress(skystill_web.read_packed("licences.txt")).decode()
    for name, about in skystill_web.read_manifest()["packages"].items():
        assert re.search(rf"^{re.escape(name)} {re.escape(about['version'])} \(", licences, re.MULTILINE), name
    assert licences.count("Copyright") > len(skystill_web.read_manifest()["packages"])


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = shutil.copytree(BUILT, tmp_path / "built")
    monkeypatch.setattr(skystill_web, "_BUILT", built)
    (built / "ort.js.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(ValueError, match=r"ort\.js\.gz is damaged: its SHA-256 is .* was expected"):
        skystill_web.read_packed("ort.js")
    whole = (built / "geotiff.js.gz").read_bytes()
    (built / "geotiff.js.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"geotiff\.js\.gz is damaged"):
        skystill_web.read_packed("geotiff.js")


@pytest.mark.slow
def test_the_lockfile_gives_the_same_files(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: the files are not built again")
    for name in ("package.json", "package-lock.json", ".npmrc", "build.mjs"):
        shutil.copy(PROJECT / name, tmp_path)
    shutil.copytree(PROJECT / "licences", tmp_path / "licences")
    wanted = skystill_web.read_manifest()
    seen = npm("view", f"geotiff@{wanted['packages']['geotiff']['version']}", "dist.integrity", cwd=tmp_path)
    if seen.returncode:
        pytest.skip(f"the registry of npm does not answer: {seen.stderr.strip()[-200:]}")
    for command in (("ci",), ("run", "build", "--", "built")):
        done = npm(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "built/manifest.json").read_text()) == wanted
    for name, about in wanted["files"].items():
        content = gzip.decompress((tmp_path / f"built/{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == about["sha256"], name

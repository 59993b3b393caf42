"""What earlier commands left in the same output, which is used night after night with other inputs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from skystill.cluster.dispatch import absolute
from skystill.cluster.manifest import Manifest
from skystill.errors import SettingsError, first_few

_RASTERS = (".tif", ".png")


def earlier_results(manifest: Manifest, targets: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    """Yield the inputs that are done, with their results, but for those whose results this command has, too.

    Args:
        manifest: what is done.
        targets: the inputs of this command with their results.
    """
    own, last = {str(target.absolute()) for _, target in targets}, 0
    while found := manifest.inputs("done", last):
        yield from ((source, Path(target)) for _, source, target in found if target not in own)
        last = found[-1][0]


def check_apart(manifest: Manifest, targets: Sequence[tuple[str, Path]], ends: Sequence[str]) -> None:
    """Check that no file of this command is one of an earlier result, such as a-areas.csv of a.tif and of a.png.

    Within one command, `check_targets` refuses it. A result of the same path may be replaced with all its files.

    Args:
        manifest: what is done.
        targets: the inputs of this command with their results.
        ends: what follows the stem of a class raster in the names of the files beside it, such as "-areas.csv".

    Raises:
        SettingsError: there are such files.
    """
    if not manifest.inputs("done", most=1):
        return
    stems = {stem for _, target in targets for stem in _stems(target.absolute(), ends)}
    alike = [(source, target) for source, target in earlier_results(manifest, targets) if _stem(target) in stems]
    owners = {path: earlier for earlier in alike for path in _files(earlier[1], ends) if path.exists()}
    problems = []
    for source, target in targets if owners else ():
        for path in _files(target, ends):
            then, result = owners.get(path.absolute(), (None, path))
            if then is not None and result.exists() and then != _known_as(source):
                problems.append(f"{path} (of {source}) is a file of the result {result} (of {then})")
    if problems:
        lines = "".join(f"\n  - {line}" for line in first_few(problems))
        raise SettingsError(
            f"files of earlier results would be overwritten; nothing was written:{lines}\nChoose another --out, or "
            "delete those results and these files if you do not need them."
        )


def _files(target: Path, ends: Sequence[str]) -> list[Path]:
    return [target, *(target.with_name(target.stem + end) for end in ends)]


def _stems(target: Path, ends: Sequence[str]) -> Iterator[str]:
    """Yield the paths, without suffix, of all results that may share a file with this one."""
    stem = _stem(target)
    yield stem
    for end in (end.rpartition(".")[0] for end in ends if end.endswith(_RASTERS)):
        yield stem + end  # a-overlay.png beside a.tif
        if stem.endswith(end):
            yield stem.removesuffix(end)


def _stem(path: Path) -> str:
    return str(path.with_suffix(""))


def _known_as(source: str) -> str:
    return next(absolute([(source, Path())]))[0]

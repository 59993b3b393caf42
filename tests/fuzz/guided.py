"""Cases that are guided by coverage: bytes of atheris make the choices that a seed makes otherwise.

    python -m tests.fuzz.guided WORLD OUT [options of libFuzzer]

`hours.py` starts it again and again, because a case that ends the process ends this one, too.
"""

import random
import sys
from dataclasses import asdict
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["skystill"]):
    import skystill.api
    import skystill.cli.commands
    import skystill.predict.batch
    import skystill.train.runs  # noqa: F401

from tests.fuzz.cases import make_case, mend
from tests.fuzz.harness import WALL_SECONDS, Tally
from tests.fuzz.worker import Watch, run_case, warm_up


class DrawnChoices(random.Random):
    """Random choices that are drawn from bytes, and are all the first ones where the bytes end."""

    def __init__(self, content: bytes) -> None:
        super().__init__(0)
        self._content, self._place = content, 0

    def getrandbits(self, count: int) -> int:
        size = -(-count // 8)
        taken = self._content[self._place : self._place + size]
        self._place += size
        return int.from_bytes(taken.ljust(size, b"\x00"), "big") >> (8 * size - count)

    def random(self) -> float:
        return self.getrandbits(24) / 2**24


def main(world: Path, out: Path, options: list[str]) -> None:
    """Run cases until libFuzzer ends."""
    tally = Tally(out=out)
    warm_up(world)
    watch = Watch((str(world / "out"), str(world / "tmp"), str(world / "home"), str(out)))

    def try_one(content: bytes) -> None:
        case = make_case(DrawnChoices(content), world)
        outcome = run_case(case, tally.tried, world, watch)
        mend(case, world, world / "sound")
        name = f"guided-{tally.tried}-{content[:8].hex()}"
        begun = {"begun": name, "kind": case.kind, "damage": case.damage, "command": case.command}
        tally.add(begun, asdict(outcome))
        if outcome.problems:
            (out / f"{name}.bytes").write_bytes(content)
        if tally.tried % 200 == 0:
            sys.stderr.write(f"{tally.describe()}\n")

    atheris.Setup(
        [sys.argv[0], f"-timeout={WALL_SECONDS:.0f}", "-rss_limit_mb=3000", f"-artifact_prefix={out}/", *options],
        try_one,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

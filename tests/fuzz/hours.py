"""`make fuzz`: damaged inputs for as long as you like, guided by coverage where atheris is installed.

python -m tests.fuzz.hours --seconds 3600 --out runs/fuzz
"""

import argparse
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.harness import ROOT, Tally, environment, prepare, renew, run_cases


def main() -> int:
    """Fuzz until the time is over. The exit code is 1 if an input failed; each is in --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--plain", action="store_true", help="draw seeds, also where atheris is installed")
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + given.seconds
    guided = importlib.util.find_spec("atheris") is not None and not given.plain
    sys.stdout.write(f"{'guided by coverage (atheris)' if guided else 'new seeds'}; failures are written to {out}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as scratch:
        world = prepare(Path(scratch) / "world")
        if guided:
            _run_guided(world, out, until)
        else:
            tally = Tally(out=out)
            run_cases(world, random.SystemRandom().randrange(10_000, 2**40), 10**9, tally, until)
            sys.stdout.write(f"{tally.describe()}\n")
    failures = [path for path in out.iterdir() if path.is_file()]
    sys.stdout.write(f"{len(failures)} files in {out}\n")
    return 1 if failures else 0


def _run_guided(world: Path, out: Path, until: float) -> None:
    """Start atheris until the time is over: an input that ends or hangs the process is kept."""
    corpus = out / "corpus"
    corpus.mkdir(exist_ok=True)
    for seed in range(64):  # to begin with: choices at random
        (corpus / f"seed-{seed}").write_bytes(random.Random(seed).randbytes(400))
    while (left := until - time.monotonic()) > 1:
        renew(world)
        options = [f"-max_total_time={left:.0f}", "-max_len=4000", str(corpus)]
        command = [sys.executable, "-m", "tests.fuzz.guided", str(world), str(out), *options]
        subprocess.run(command, cwd=ROOT, env=environment(world), check=False)


if __name__ == "__main__":
    sys.exit(main())

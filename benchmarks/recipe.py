"""One change at a time: what each setting of `skystill distill` is worth, on *validation* images of split dubai.

    python benchmarks/recipe.py --data DIR --teacher RUN --out runs/recipe

Every arm is the same small student, the same seeds, the same steps, the teacher's logits cached; it differs from
the first by what its name says. Prints the validation mIoU of the last epoch, and the difference to the first arm, seed
by seed; writes recipe.json. Runs resume; `--arms` and `--seeds` choose a part, for several processes.
"""

import argparse
from pathlib import Path

import numpy as np
from dubai import logged, run

from skystill.run_folder import RunFolder, write_json

BASE = {"alpha": "0.3", "alpha-end": "0.3", "temperature": "2", "distillation-loss": "kl", "distillation-stride": "1"}
ARMS: dict[str, dict[str, str]] = {
    "base: alpha 0.3, T 2, kl": {},
    "alpha 0.1, T 10": {"alpha": "0.1", "alpha-end": "0.1", "temperature": "10"},
    "alpha 0.1": {"alpha": "0.1", "alpha-end": "0.1"},
    "alpha 0.5": {"alpha": "0.5", "alpha-end": "0.5"},
    "alpha 0.7": {"alpha": "0.7", "alpha-end": "0.7"},
    "alpha 1: labels alone": {"alpha": "1", "alpha-end": "1"},
    "alpha 0.5, T 1": {"alpha": "0.5", "alpha-end": "0.5", "temperature": "1"},
    "T 1": {"temperature": "1"},
    "T 4": {"temperature": "4"},
    "boundary-kl": {"distillation-loss": "boundary-kl"},
    "kl+dist": {"distillation-loss": "kl+dist"},
    "kl+cwd": {"distillation-loss": "kl+cwd"},
    "mse": {"distillation-loss": "mse"},
    "crop 384, batch 2": {"crop": "384", "batch-size": "2"},
    "cross-entropy without Dice": {"student-loss": "ce"},
    "no jitter": {"jitter": "0"},
    "no moving average": {"average": "0"},
    "cosine": {"schedule": "cosine"},
    "learning rate 0.004": {"learning-rate": "0.004"},
    "alpha 0.3 to 1": {"alpha-end": "1"},
    "alpha 0 to 1": {"alpha": "0", "alpha-end": "1"},
    "zoom 0.5": {"zoom": "0.5"},
    "means of 2 x 2 pixels": {"distillation-stride": "2"},
    "means of 4 x 4 pixels": {"distillation-stride": "4"},
}


def main() -> None:
    """Train what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/recipe"))
    parser.add_argument("--student", default="kite-tiny")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--score", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    for seed in [] if chosen.score else chosen.seeds:
        for arm in chosen.arms:
            flags = BASE | ARMS[arm]
            run("distill", f"--data={chosen.data}", "--split=dubai", f"--teacher={chosen.teacher}",
                "--teacher-mode=cached", f"--student={chosen.student}", f"--epochs={chosen.epochs}", f"--seed={seed}",
                "--no-alone", "--no-report", "--resume", f"--out={folder(chosen.out, arm, seed)}",
                *(f"--{name}={value}" for name, value in flags.items()))  # fmt: skip
    report(chosen)


def folder(out: Path, arm: str, seed: int) -> Path:
    """Where a run goes."""
    return out / f"{list(ARMS).index(arm):02d}-{seed}"


def report(chosen: argparse.Namespace) -> None:
    """The table."""
    base = scores(chosen, next(iter(ARMS)))
    found = {}
    print("| arm | validation mIoU (each seed) | minus the first, each seed |\n|---|---:|---:|")
    for arm in chosen.arms:
        own = scores(chosen, arm)
        if not own:
            continue
        shared = sorted(own.keys() & base.keys())
        differences = [100 * (own[seed] - base[seed]) for seed in shared]
        found[arm] = {"miou": own, "minus_base": dict(zip(shared, differences, strict=True))}
        each = ", ".join(f"{100 * own[seed]:.1f}" for seed in sorted(own))
        change = ", ".join(f"{value:+.1f}" for value in differences)
        print(f"| {arm} | {100 * np.mean(list(own.values())):.1f} ({each}) | {np.mean(differences):+.1f} ({change}) |")
    write_json(chosen.out / "recipe.json", found)


def scores(chosen: argparse.Namespace, arm: str) -> dict[int, float]:
    """Validation mIoU of the last epoch, by seed, of runs that are finished."""
    found = {}
    for seed in chosen.seeds:
        one = RunFolder(folder(chosen.out, arm, seed))
        if one.model.exists():
            found[seed] = logged(one.path, "validation_miou")[-1]
    return found


if __name__ == "__main__":
    main()

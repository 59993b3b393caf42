"""One change at a time: what each setting of `skystill distill` is worth, on *validation* images of split dubai.

    python benchmarks/recipe.py --data DIR --teacher RUN --out runs/recipe

Every arm has the same small student, the same seeds, the same steps, and the cached logits of the teacher. It differs
from the first arm by what its name says. The script prints the validation mIoU of the last epoch and the difference to
the first arm, for each seed, and writes recipe.json. Runs that were stopped are resumed. `--arms` and `--seeds` choose
a part, for several processes.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from dubai_runs import finish, logged

from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings, build_settings

Changes = Mapping[str, str | int | float]
"""Fields of `DistillSettings`."""

BASE: Changes = {"alpha": 0.3, "alpha_end": 0.3, "temperature": 2, "distillation_loss": "kl", "distillation_stride": 1}
ARMS: Mapping[str, Changes] = {
    "base: alpha 0.3, T 2, kl": {},
    "alpha 0.1, T 10": {"alpha": 0.1, "alpha_end": 0.1, "temperature": 10},
    "alpha 0.1": {"alpha": 0.1, "alpha_end": 0.1},
    "alpha 0.5": {"alpha": 0.5, "alpha_end": 0.5},
    "alpha 0.7": {"alpha": 0.7, "alpha_end": 0.7},
    "alpha 1: labels alone": {"alpha": 1, "alpha_end": 1},
    "alpha 0.5, T 1": {"alpha": 0.5, "alpha_end": 0.5, "temperature": 1},
    "T 1": {"temperature": 1},
    "T 4": {"temperature": 4},
    "boundary-kl": {"distillation_loss": "boundary-kl"},
    "kl+dist": {"distillation_loss": "kl+dist"},
    "kl+cwd": {"distillation_loss": "kl+cwd"},
    "mse": {"distillation_loss": "mse"},
    "crop 384, batch 2": {"crop": 384, "batch_size": 2},
    "cross-entropy without Dice": {"student_loss": "ce"},
    "no jitter": {"jitter": 0},
    "no moving average": {"average": 0},
    "cosine": {"schedule": "cosine"},
    "learning rate 0.004": {"learning_rate": 0.004},
    "alpha 0.3 to 1": {"alpha_end": 1},
    "alpha 0 to 1": {"alpha": 0, "alpha_end": 1},
    "zoom 0.5": {"zoom": 0.5},
    "means of 2 x 2 pixels": {"distillation_stride": 2},
    "means of 4 x 4 pixels": {"distillation_stride": 4},
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
            finish(settings_of(chosen, arm, seed))
    report(chosen)


def settings_of(chosen: argparse.Namespace, arm: str, seed: int) -> DistillSettings:
    """Return the settings of an arm and a seed."""
    shared = {
        "data": chosen.data,
        "split": "dubai",
        "out": folder(chosen.out, arm, seed),
        "student": chosen.student,
        "teacher": [str(chosen.teacher)],
        "teacher_mode": "cached",
        "epochs": chosen.epochs,
        "seed": seed,
        "alone": False,
    }
    return build_settings(DistillSettings, {**shared, **BASE, **ARMS[arm]})


def folder(out: Path, arm: str, seed: int) -> Path:
    """Return the run folder of an arm and a seed."""
    return out / f"{list(ARMS).index(arm):02d}-{seed}"


def report(chosen: argparse.Namespace) -> None:
    """Print the table, ready for docs/results/settings.md."""
    base = scores(chosen, next(iter(ARMS)))
    found: dict[str, dict[str, dict[int, float]]] = {}
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
    """Return the validation mIoU of the last epoch by seed, of runs that are finished."""
    found: dict[int, float] = {}
    for seed in chosen.seeds:
        run = RunFolder(folder(chosen.out, arm, seed))
        if run.model.exists():
            found[seed] = logged(run.path, "validation_miou")[-1]
    return found


if __name__ == "__main__":
    main()

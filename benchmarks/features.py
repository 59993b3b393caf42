"""What a teacher gives a student: its features before the training, its logits during the training, or both.

    python benchmarks/features.py --data DIR --split dubai --teacher RUN --out runs/features     # train, then score
    python benchmarks/features.py --data DIR --split dubai --teacher RUN --out runs/features --score
    python benchmarks/features.py --data DIR --split OUT/split.json --unlabeled OUT/unlabeled ...        # few_scenes.py

All arms have the same student, the same labelled images and, except for one, the same number of steps on labels:

  alone                  labels only, from random weights
  alone, longer          the same for more epochs, for the seconds that learning the features takes (`--longer`)
  distilled              labels and the teacher's logits, from random weights
  pretrained             the teacher's features first (`skystill pretrain`, on the training images without labels), then
                         labels only
  pretrained, distilled  the teacher's features first, then labels and the teacher's logits

With `--unlabeled`, features and logits are learnt on these images as well; half of each batch of the distilled arms
comes from them. Then the third more epochs of `alone, longer` are fewer seconds than all that the teacher gives takes:
`--longer 2` sets another factor.

Logits are cached. Every setting that is not named above is the default. The script prints the test mIoU of each seed,
the seconds of training, and differences with 95 % intervals over images, and writes features.json. Runs that were
stopped are resumed, and finished ones are kept. OMP_NUM_THREADS sets the number of cores that a training uses.
"""

import argparse
from functools import partial
from pathlib import Path

from dubai_runs import arm_folder, finish, logged, score_arms, without_teacher

from skystill.api import pretrain
from skystill.cli.bars import progress_display
from skystill.run_folder import RunFolder
from skystill.settings import DistillSettings, PretrainSettings

ARMS = ("alone", "alone, longer", "distilled", "pretrained", "pretrained, distilled")
DIFFERENCES = (
    ("pretrained", "alone"),
    ("pretrained", "alone, longer"),
    ("distilled", "alone"),
    ("pretrained, distilled", "pretrained"),
    ("pretrained, distilled", "alone"),
    ("pretrained, distilled", "alone, longer"),
)


def main() -> None:
    """Train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dubai")
    parser.add_argument("--teacher", type=Path, required=True, help="run folder, trained on the same split")
    parser.add_argument("--student", default="swift-small")
    parser.add_argument("--out", type=Path, default=Path("runs/features"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--longer", type=float, default=4 / 3, help="epochs of `alone, longer`, as a multiple")
    parser.add_argument("--unlabeled", type=Path, nargs="+", default=[], help="images without labels")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--score", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    if not chosen.score:
        for seed in range(chosen.seeds):
            for arm in chosen.arms:
                train(arm, chosen, seed)
    score_arms("features", chosen, ARMS, DIFFERENCES, range(chosen.seeds), partial(seconds_of, chosen.out))


def train(arm: str, chosen: argparse.Namespace, seed: int) -> None:
    """Train one arm with one seed."""
    run, is_long = arm_folder(chosen.out, arm, seed), arm.endswith("longer")
    student = str(features(chosen, seed)) if arm.startswith("pretrained") else chosen.student
    distilled = DistillSettings(
        data=chosen.data, split=chosen.split, out=run, student=student, teacher=[str(chosen.teacher)], seed=seed,
        epochs=round(chosen.epochs * chosen.longer) if is_long else chosen.epochs, precision=chosen.precision,
        teacher_mode="cached", cache=chosen.out / "logits", alone=False, unlabeled=chosen.unlabeled,
    )  # fmt: skip
    finish(distilled if arm.endswith("distilled") else without_teacher(distilled, run))


def features(chosen: argparse.Namespace, seed: int) -> Path:
    """Return the weights of a student that has learnt the teacher's features."""
    run = RunFolder(chosen.out / f"features-{seed}")
    if not run.weights.exists():
        settings = PretrainSettings(
            teacher=str(chosen.teacher), student=chosen.student, out=run.path, data=chosen.data, split=chosen.split,
            images=chosen.unlabeled, seed=seed, precision=chosen.precision,
        )  # fmt: skip
        with progress_display() as on_progress:
            pretrain(settings, resume=True, on_progress=on_progress)
    return run.weights


def seconds_of(out: Path, arm: str, seed: int) -> float:
    """Return the seconds of all training of an arm."""
    before = [out / f"features-{seed}"] if arm.startswith("pretrained") else []
    return sum(sum(logged(run, "seconds")) for run in (*before, arm_folder(out, arm, seed)))


if __name__ == "__main__":
    main()

"""What a student gets from weights of ImageNet, and from a teacher beside them.

    python benchmarks/imagenet.py --data DIR --split dubai --teacher RUN --out runs/imagenet        # train, then score
    python benchmarks/imagenet.py --data DIR --split dubai --teacher RUN --out runs/imagenet --score
    python benchmarks/imagenet.py --data DIR --split OUT/split.json --unlabeled OUT/unlabeled ...        # few_scenes.py

All arms have the same student and the same labelled images:

  random               labels only, from random weights, for `--longer` times as many epochs
  imagenet             labels only, from weights of ImageNet, of which the first levels keep theirs (`--freeze`)
  imagenet, distilled  the same with labels and the teacher's logits

All levels of `random` learn, so that its epochs take longer: with as many of them it has more seconds than `imagenet`
and about those of `imagenet, distilled`. They are printed. With `--unlabeled`, half of each batch of the distilled arm
comes from these images.

Logits are cached. Every setting that is not named above is the default. The script prints the test mIoU of each seed,
the seconds of training, and differences with 95 % intervals over images, and writes imagenet.json. Runs that were
stopped are resumed, and finished ones are kept. OMP_NUM_THREADS sets the number of cores that a training uses.
"""

import argparse
from pathlib import Path

from dubai_runs import arm_folder, finish, logged, score_arms, without_teacher

from skystill.settings import DistillSettings

ARMS = ("random", "imagenet", "imagenet, distilled")
DIFFERENCES = (("imagenet, distilled", "random"), ("imagenet", "random"), ("imagenet, distilled", "imagenet"))


def main() -> None:
    """Train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="dubai")
    parser.add_argument("--teacher", type=Path, required=True, help="run folder, trained on the same split")
    parser.add_argument("--student", default="lite")
    parser.add_argument("--freeze", type=int, default=2, help="levels that keep the weights of ImageNet")
    parser.add_argument("--out", type=Path, default=Path("runs/imagenet"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--longer", type=float, default=1.0, help="epochs of `random`, as a multiple")
    parser.add_argument("--unlabeled", type=Path, nargs="+", default=[], help="images without labels")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--score", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    if not chosen.score:
        for seed in chosen.seeds:
            for arm in chosen.arms:
                train(arm, chosen, seed)

    def seconds(arm: str, seed: int) -> float:
        return sum(logged(arm_folder(chosen.out, arm, seed), "seconds"))

    score_arms("imagenet", chosen, ARMS, DIFFERENCES, chosen.seeds, seconds)


def train(arm: str, chosen: argparse.Namespace, seed: int) -> None:
    """Train one arm with one seed."""
    run, is_random = arm_folder(chosen.out, arm, seed), arm == "random"
    distilled = DistillSettings(
        data=chosen.data, split=chosen.split, out=run, student=chosen.student, teacher=[str(chosen.teacher)], seed=seed,
        epochs=round(chosen.epochs * chosen.longer) if is_random else chosen.epochs, precision=chosen.precision,
        freeze=0 if is_random else chosen.freeze, from_scratch=is_random, teacher_mode="cached",
        cache=chosen.out / "logits", alone=False, unlabeled=chosen.unlabeled,
    )  # fmt: skip
    finish(distilled if arm.endswith("distilled") else without_teacher(distilled, run))


if __name__ == "__main__":
    main()

"""Ten labelled images of Dubai, and the other 38 training images without labels: what the teacher adds, three seeds.

    python benchmarks/few_labels.py --data DIR --teacher RUN --out runs/few           # train, then score
    python benchmarks/few_labels.py --data DIR --teacher RUN --out runs/few --score

All arms have the same student, the same ten labelled images (drawn by the seed), and, except for one, the same number
of steps:

  alone          labels only
  alone, longer  the same for a quarter more steps, which take at least the seconds of a distilled student
  ten            distilled on the ten images, logits cached in 8 bits
  ten, 16 bits   the same with 16 bits, to see what 8 bits cost
  all            half of each batch comes from the 38 images, where only the teacher teaches

alpha is 0.3 throughout, the temperature 2, and student and teacher are compared pixel by pixel. The script prints the
test mIoU of each seed, the seconds of training, and differences with 95 % intervals over images, and writes
few_labels.json. Runs that were stopped are resumed. `--arms` chooses some of the arms. OMP_NUM_THREADS sets the number
of cores that a training uses.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from dubai_runs import ScoreTable, arm_folder, evaluated, finish, logged, summary, without_teacher

from skystill.data import find_pairs, sample_images, split_pairs
from skystill.report.metrics import Evaluation, compare
from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings

LABELED = 10
ARMS = ("alone", "alone, longer", "ten", "ten, 16 bits", "all")


def main() -> None:
    """Train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True, help="run folder; trained on split dubai")
    parser.add_argument("--out", type=Path, default=Path("runs/few"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=24, help="of 53 steps")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--score", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    if not chosen.score:
        for seed in range(chosen.seeds):
            for arm in chosen.arms:
                train(arm, chosen.data, chosen.teacher, chosen.out, chosen.epochs, seed)
    score(chosen.data, chosen.out)


def train(arm: str, data: Path, teacher: Path, out: Path, epochs: int, seed: int) -> None:
    """Train one arm with one seed."""
    run = arm_folder(out, arm, seed)
    distilled = DistillSettings(
        data=data, split="dubai", out=run, student="kite", teacher=[str(teacher)], seed=seed, limit_images=LABELED,
        epochs=epochs * 5 // 4 if arm == "alone, longer" else epochs,
        teacher_mode="cached", cache_bits="16" if arm == "ten, 16 bits" else "8",
        unlabeled=without_labels(data, out, seed) if arm == "all" else None,
        alpha=0.3, alpha_end=0.3, temperature=2.0, distillation_stride=1, alone=False,
    )  # fmt: skip
    finish(without_teacher(distilled, run) if arm.startswith("alone") else distilled)


def without_labels(data: Path, out: Path, seed: int) -> Path:
    """Make a folder with links to the training images that the seed did not draw."""
    pairs = split_pairs(find_pairs(data).pairs, "dubai", seed).train
    drawn = {pair.key for pair in sample_images(pairs, LABELED, seed)}
    links = out / f"unlabeled-{seed}"
    links.mkdir(parents=True, exist_ok=True)
    for pair in pairs:
        link = links / f"{pair.key.replace('/', '-')}{pair.image.suffix}"
        if pair.key not in drawn and not link.exists():
            link.symlink_to(pair.image.resolve())
    return links


def score(data: Path, out: Path) -> None:
    """Score every finished run on the same whole test images."""
    test = split_pairs(find_pairs(data).pairs, "dubai", 0).test
    found: dict[str, list[Evaluation]] = {}
    for arm in ARMS:
        paths = sorted(out.glob(f"{arm_folder(out, arm, 0).name[:-1]}[0-9]"))
        done = [path for path in paths if RunFolder(path).model.exists()]
        found[arm] = [evaluated(RunFolder(path).model, test) for path in done]
        if done:
            print(f"{arm}: {mean(sum(logged(path, 'seconds')) for path in done):.0f} s of training")
    pairs = (("ten", "alone"), ("all", "alone"), ("all", "alone, longer"), ("all", "ten"), ("ten", "ten, 16 bits"))
    table = ScoreTable(
        test_images=len(test),
        models={arm: summary(evaluations) for arm, evaluations in found.items() if evaluations},
        differences={f"{a} minus {b}": compare(found[a], found[b]) for a, b in pairs if found[a] and found[b]},
    )
    table.show(f"dubai, {LABELED} labelled images")
    write_json(out / "few_labels.json", asdict(table))


if __name__ == "__main__":
    main()

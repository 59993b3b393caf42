"""Distilled and alone for the same seconds of training, on split dubai.

    OMP_NUM_THREADS=1 python benchmarks/wall_clock.py --data DIR --teacher RUN --out runs/clock    # train and score
    python benchmarks/wall_clock.py --data DIR --teacher RUN --out runs/clock --score

A step with a teacher costs more than one without, so the student alone gets more epochs: `--epochs 8:11` compares 8
epochs distilled with 11 alone. The table has the seconds that each really took (training and validation, from the log
of the run); compare them before you compare the scores. The time to fill the cache of logits is not among them: it is
filled once for all students.

alpha is 0.3 throughout, the temperature 2, and student and teacher are compared by means over 2 x 2 pixels. The script
prints test mIoU, seconds, and differences with 95 % intervals over images, and writes wall_clock.json. Runs that were
stopped are resumed.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from dubai_runs import evaluated, finish, interval, logged, percents, points, summary, without_teacher

from skystill.data import find_pairs, split_pairs
from skystill.report.metrics import compare
from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings


def main() -> None:
    """Train what is missing, score what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/clock"))
    parser.add_argument("--student", default="kite-tiny")
    parser.add_argument("--epochs", nargs="+", default=["4:6", "8:11"], metavar="DISTILLED:ALONE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--score", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    for seed in [] if chosen.score else chosen.seeds:
        for pair in chosen.epochs:
            distilled, alone = pair.split(":")
            train(chosen, "distilled", int(distilled), seed)
            train(chosen, "alone", int(alone), seed)
    score(chosen)


def folder(chosen: argparse.Namespace, arm: str, epochs: int, seed: int) -> RunFolder:
    """Return the run of an arm, a number of epochs and a seed."""
    return RunFolder(chosen.out / f"{chosen.student}-{arm}-{epochs}-{seed}")


def train(chosen: argparse.Namespace, arm: str, epochs: int, seed: int) -> None:
    """Train one run."""
    run = folder(chosen, arm, epochs, seed).path
    distilled = DistillSettings(
        data=chosen.data, split="dubai", out=run, student=chosen.student, teacher=[str(chosen.teacher)],
        teacher_mode="cached", epochs=epochs, seed=seed,
        alpha=0.3, alpha_end=0.3, temperature=2.0, distillation_stride=2, alone=False,
    )  # fmt: skip
    finish(without_teacher(distilled, run) if arm == "alone" else distilled)


def score(chosen: argparse.Namespace) -> None:
    """Score every pair whose runs are finished."""
    test = split_pairs(find_pairs(chosen.data).pairs, "dubai", 0).test
    found: list[dict[str, object]] = []
    print("| epochs, distilled : alone | seeds | seconds, distilled : alone | distilled | alone | difference | 95 % |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for pair in chosen.epochs:
        arms = dict(zip(("distilled", "alone"), map(int, pair.split(":")), strict=True))
        runs = {arm: [folder(chosen, arm, epochs, seed) for seed in chosen.seeds] for arm, epochs in arms.items()}
        done = [at for at in range(len(chosen.seeds)) if all(each[at].model.exists() for each in runs.values())]
        if not done:
            continue
        scored = {arm: [evaluated(each[at].model, test) for at in done] for arm, each in runs.items()}
        took = {arm: mean(sum(logged(each[at].path, "seconds")) for at in done) for arm, each in runs.items()}
        difference = compare(scored["distilled"], scored["alone"])
        table = {arm: summary(each) for arm, each in scored.items()}
        models = {arm: asdict(row) for arm, row in table.items()}
        found.append({"epochs": pair, "seconds": took, "models": models, "difference": asdict(difference)})
        cells = [f"{100 * row.miou:.1f} ({percents(row.seeds, ', ')})" for row in table.values()]
        print(f"| {pair} | {len(done)} | {took['distilled']:.0f} : {took['alone']:.0f} | {' | '.join(cells)} "
              f"| {points(difference)} | {interval(difference)} |")  # fmt: skip
    write_json(chosen.out / "wall_clock.json", {"pairs": found})


if __name__ == "__main__":
    main()

"""Teacher, student alone, and distilled student on the Dubai data, three splits, several seeds.

    python benchmarks/dubai.py --data DIR --out runs/campaign            # train what is missing, then score
    python benchmarks/dubai.py --data DIR --out runs/campaign --score    # score what is there

Splits: `dubai` (by image), `dubai-tiles` (whole tiles held out), and `patches`, the leaky one that others publish:
every image cut into patches of 256 x 256, the patches split at random, so that neighbours of test patches are trained
on. Each run resumes where it was; OMP_NUM_THREADS says how many cores one takes. Prints a table a split, writes
campaign.json.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skystill.classes import DUBAI
from skystill.data import Pair, find_pairs, read_image, read_pairs
from skystill.predict import Predictor
from skystill.report.metrics import Evaluation, compare, evaluate
from skystill.run_folder import RunFolder, write_json, written_whole

TEACHER = "kite?channels=(64,96,128,160)&blocks=(2,2,2,2)"
EPOCHS = {
    "dubai": (26, 8),
    "dubai-tiles": (20, 6),
    "patches": (10, 8),
}  # teacher, student: about the same steps in the first two; the leaky one needs fewer
PATCH = 256


def main() -> None:
    """Train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/campaign"))
    parser.add_argument("--splits", nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--score", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    found: dict[str, Any] = {}
    for split in chosen.splits:
        data = cut_patches(chosen.data, chosen.out / "patches-data") if split == "patches" else chosen.data
        if not chosen.score:
            train(data, chosen.out / split, split, range(chosen.seeds))
        found[split] = score(data, chosen.out / split)
        print_table(split, found[split])
    write_json(chosen.out / "campaign.json", found)


def cut_patches(data: Path, out: Path) -> Path:
    """Cut every image and mask into patches; what is there already stays."""
    for pair in find_pairs(data).pairs:
        pictures = {"images": read_image(pair.image), "masks": np.asarray(Image.open(pair.mask).convert("RGB"))}
        height, width = pictures["images"].shape[:2]
        for row in range(0, height - PATCH + 1, PATCH):
            for column in range(0, width - PATCH + 1, PATCH):
                for kind, picture in pictures.items():
                    path = out / kind / f"{pair.key.replace('/', '-')}-{row}-{column}.png"
                    if not path.exists():
                        with written_whole(path) as part:
                            Image.fromarray(picture[row : row + PATCH, column : column + PATCH]).save(part)
    return out


def train(data: Path, out: Path, split: str, seeds: range) -> None:
    """Train the teacher, and with each seed the student alone and distilled."""
    teacher_epochs, student_epochs = EPOCHS[split]
    rule = "0.67/0.11/0.22" if split == "patches" else split
    shared = [f"--data={data}", "--classes=dubai", f"--split={rule}", "--no-report", "--resume"]
    run("train", *shared, f"--out={out / 'teacher'}", f"--network={TEACHER}", f"--epochs={teacher_epochs}")
    for seed in seeds:
        student = [*shared, f"--epochs={student_epochs}", f"--seed={seed}"]
        if split == "patches":
            student.append(f"--split={out / 'teacher' / 'split.json'}")  # fractions are drawn by the seed
        run("train", *student, f"--out={out / f'alone-{seed}'}", "--network=kite")
        run("distill", *student, f"--out={out / f'kite-{seed}'}", "--student=kite", f"--teacher={out / 'teacher'}",
            "--alpha=0.3", "--alpha-end=0.3", "--temperature=2", "--no-alone")  # fmt: skip


def run(verb: str, *flags: str) -> None:
    """Run one of our commands; a run that has finished is over at once."""
    out = next(Path(flag.removeprefix("--out=")) for flag in flags if flag.startswith("--out="))
    if not RunFolder(out).model.exists():
        subprocess.run([sys.executable, "-m", "skystill", verb, *flags], check=True)


def learn(student: str, data: Path, out: Path, *flags: str, teaching: Sequence[str] = ()) -> None:
    """Train a student on split `dubai`: on labels alone, or, where `teaching` names a teacher, from its logits too."""
    shared = [f"--data={data}", "--split=dubai", "--no-report", "--resume", f"--out={out}", *flags]
    if not teaching:
        run("train", *shared, f"--network={student}")
        return
    run("distill", *shared, f"--student={student}", *teaching, "--teacher-mode=cached", "--no-alone")


def logged(path: Path, column: str) -> list[float]:
    """A column of what a run logged, a number an epoch."""
    with RunFolder(path).metrics.open(encoding="utf-8", newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def score(data: Path, out: Path) -> dict[str, Any]:
    """Score every finished run of a split on the same whole test images."""
    pairs = {pair.key: pair for pair in find_pairs(data).pairs}
    runs = sorted(path for path in out.glob("*") if RunFolder(path).model.exists())
    test = [pairs[key] for key in json.loads((runs[0] / "split.json").read_text(encoding="utf-8"))["test"]]
    kinds: dict[str, list[Evaluation]] = {"teacher": [], "teacher, 8 symmetries": [], "alone": [], "kite": []}
    for path in runs:
        predictor = Predictor(RunFolder(path).model)
        kinds[path.name.split("-")[0]].append(evaluate(predictor.probabilities, read_pairs(test, DUBAI), DUBAI))
        if path.name == "teacher":
            turned = evaluate(partial(predictor.probabilities, views=8), read_pairs(test, DUBAI), DUBAI)
            kinds["teacher, 8 symmetries"].append(turned)
    table = {kind: summary(evaluations) for kind, evaluations in kinds.items() if evaluations}
    wanted = (("kite", "alone"), ("kite", "teacher"), ("alone", "teacher"))
    differences = {
        f"{one} minus {other}": compare(kinds[one], kinds[other]).to_dict()
        for one, other in wanted
        if kinds[one] and kinds[other]
    }
    return {"test_images": len(test), "models": table, "differences": differences}


def evaluated(path: Path, pairs: Sequence[Pair]) -> Evaluation:
    """A model file on whole images."""
    return evaluate(Predictor(path).probabilities, read_pairs(pairs, DUBAI), DUBAI)


def summary(evaluations: list[Evaluation]) -> dict[str, Any]:
    """Mean over seeds, every seed, the widest interval, and the IoU of each class."""
    scores = [evaluation.scores() for evaluation in evaluations]
    intervals = np.array([one["miou_interval"] for one in scores])
    return {
        "miou": float(np.mean([one["miou"] for one in scores])),
        "seeds": [one["miou"] for one in scores],
        "interval": [float(intervals[:, 0].mean()), float(intervals[:, 1].mean())],
        "iou": np.mean([one["per_class"]["iou"] for one in scores], axis=0).tolist(),
    }


def percents(shares: Iterable[float], between: str) -> str:
    """Shares as percentages in one line."""
    return between.join(f"{100 * share:.1f}" for share in shares)


def print_table(split: str, found: dict[str, Any]) -> None:
    """Print one split's table, ready for docs/results.md."""
    print(f"\n**{split}**, {found['test_images']} test images\n")
    print(f"| model | seeds | mIoU (each seed) | 95 % interval | {' | '.join(DUBAI.names[:5])} |")
    print("|---|---:|---:|---:|" + "---:|" * 5)
    for kind, row in found["models"].items():
        each, classes = percents(row["seeds"], ", "), percents(row["iou"][:5], " | ")
        interval = percents(row["interval"], " to ")
        print(f"| {kind} | {len(row['seeds'])} | {100 * row['miou']:.1f} ({each}) | {interval} | {classes} |")
    for name, row in found["differences"].items():
        low, high = row["interval"]
        print(f"\n{name}: {100 * row['difference']:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}")


if __name__ == "__main__":
    main()

"""Teacher, student alone, and distilled student on the Dubai data: three splits, several seeds.

    python benchmarks/dubai.py --data DIR --out runs/campaign            # train what is missing, then score
    python benchmarks/dubai.py --data DIR --out runs/campaign --score    # score what is there

The splits are `dubai` (by image), `dubai-tiles` (whole tiles held out), and `patches`, the leaky one that others
publish: every image is cut into patches of 256 x 256, and the patches are split at random, so that neighbours of test
patches are trained on. A run that was stopped is resumed. OMP_NUM_THREADS sets the number of cores that a training
uses. The script prints one table per split and writes campaign.json.
"""

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from dubai_runs import ScoreTable, finish, summary, without_teacher
from PIL import Image

from skystill.classes import DUBAI
from skystill.data import find_pairs, read_image, read_pairs
from skystill.predict import Predictor
from skystill.report.metrics import Evaluation, compare, evaluate
from skystill.report.records import read_split
from skystill.run_folder import RunFolder, write_json, written_whole
from skystill.settings import DistillSettings, TrainSettings

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
    found: dict[str, ScoreTable] = {}
    for split in chosen.splits:
        data = cut_patches(chosen.data, chosen.out / "patches-data") if split == "patches" else chosen.data
        if not chosen.score:
            train(data, chosen.out / split, split, range(chosen.seeds))
        found[split] = score(data, chosen.out / split)
        found[split].show(split)
    write_json(chosen.out / "campaign.json", {split: asdict(table) for split, table in found.items()})


def cut_patches(data: Path, out: Path) -> Path:
    """Cut every image and mask into patches. Patches that are there already stay."""
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
    teacher = out / "teacher"
    finish(TrainSettings(
        data=data, classes="dubai", split=rule, out=teacher, network=TEACHER, epochs=teacher_epochs,
    ))  # fmt: skip
    if split == "patches":
        rule = str(RunFolder(teacher).split)  # fractions are drawn by the seed; all students take the teacher's split
    for seed in seeds:
        distilled = DistillSettings(
            data=data, classes="dubai", split=rule, out=out / f"kite-{seed}", student="kite", teacher=[str(teacher)],
            epochs=student_epochs, seed=seed, alpha=0.3, alpha_end=0.3, temperature=2.0, distillation_stride=1,
            alone=False,
        )  # fmt: skip
        finish(without_teacher(distilled, out / f"alone-{seed}"))
        finish(distilled)


def score(data: Path, out: Path) -> ScoreTable:
    """Score every finished run of a split on the same whole test images."""
    pairs = {pair.key: pair for pair in find_pairs(data).pairs}
    runs = sorted(path for path in out.glob("*") if RunFolder(path).model.exists())
    test = [pairs[key] for key in read_split(RunFolder(runs[0])).test]
    kinds: dict[str, list[Evaluation]] = {"teacher": [], "teacher, 8 symmetries": [], "alone": [], "kite": []}
    for path in runs:
        predictor = Predictor(RunFolder(path).model)
        kinds[path.name.split("-")[0]].append(evaluate(predictor.probabilities, read_pairs(test, DUBAI), DUBAI))
        if path.name == "teacher":
            over_views = evaluate(partial(predictor.probabilities, views=8), read_pairs(test, DUBAI), DUBAI)
            kinds["teacher, 8 symmetries"].append(over_views)
    wanted = (("kite", "alone"), ("kite", "teacher"), ("alone", "teacher"))
    return ScoreTable(
        test_images=len(test),
        models={kind: summary(evaluations) for kind, evaluations in kinds.items() if evaluations},
        differences={
            f"{one} minus {other}": compare(kinds[one], kinds[other])
            for one, other in wanted
            if kinds[one] and kinds[other]
        },
    )


if __name__ == "__main__":
    main()

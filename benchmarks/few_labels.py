"""Ten labelled images of Dubai, the other 38 training images without labels: what the teacher adds, three seeds.

    python benchmarks/few_labels.py --data DIR --teacher RUN --out runs/few           # train, then score
    python benchmarks/few_labels.py --data DIR --teacher RUN --out runs/few --score

Arms, all the same student and the same ten labelled images (drawn by the seed), all but one the same steps:

  alone          labels only
  alone, longer  the same for a quarter more steps: at least the seconds that a distilled student takes
  ten            distilled on the ten images, logits cached in 8 bits
  ten, 16 bits   the same with 16 bits: what 8 bits cost
  all            half of each batch from the 38 images, through the teacher alone

Prints test mIoU of each seed, the seconds of training, and differences with 95 % intervals over images; writes
few_labels.json. Runs resume; `--arms` chooses a part; OMP_NUM_THREADS says how many cores one takes.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

from dubai import evaluated, learn, logged, print_table, summary

from skystill.data import find_pairs, sample_images, split_pairs
from skystill.report.metrics import Evaluation, compare
from skystill.run_folder import RunFolder, write_json

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


def folder(out: Path, arm: str, seed: int) -> Path:
    """Where a run goes."""
    return out / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"


def train(arm: str, data: Path, teacher: Path, out: Path, epochs: int, seed: int) -> None:
    """One arm of one seed."""
    teaching = [] if arm.startswith("alone") else [f"--teacher={teacher}"]
    if arm == "ten, 16 bits":
        teaching.append("--cache-bits=16")
    if arm == "all":
        teaching.append(f"--unlabeled={without_labels(data, out, seed)}")
    epochs = epochs * 5 // 4 if arm == "alone, longer" else epochs
    learn("kite", data, folder(out, arm, seed), f"--epochs={epochs}", f"--seed={seed}", f"--limit-images={LABELED}",
          teaching=teaching)  # fmt: skip


def without_labels(data: Path, out: Path, seed: int) -> Path:
    """A folder with links to the training images that the seed did not draw."""
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
        paths = sorted(out.glob(f"{folder(out, arm, 0).name[:-1]}[0-9]"))
        done = [path for path in paths if RunFolder(path).model.exists()]
        found[arm] = [evaluated(RunFolder(path).model, test) for path in done]
        if done:
            print(f"{arm}: {mean(sum(logged(path, 'seconds')) for path in done):.0f} s of training")
    table = {arm: summary(evaluations) for arm, evaluations in found.items() if evaluations}
    pairs = (("ten", "alone"), ("all", "alone"), ("all", "alone, longer"), ("all", "ten"), ("ten", "ten, 16 bits"))
    differences = {f"{a} minus {b}": compare(found[a], found[b]).to_dict() for a, b in pairs if found[a] and found[b]}
    result = {"test_images": len(test), "models": table, "differences": differences}
    print_table("dubai, 10 labelled images", result)
    write_json(out / "few_labels.json", json.loads(json.dumps(result)))


if __name__ == "__main__":
    main()

"""Ten labelled images of Dubai, the other 38 training images without labels: what the teacher adds, three seeds.

    python benchmarks/few_labels.py --data DIR --teacher RUN --out runs/few           # train, then score
    python benchmarks/few_labels.py --data DIR --teacher RUN --out runs/few --score

Arms, all the same student, the same steps and the same ten labelled images (drawn by the seed):

  alone          labels only
  ten            distilled on the ten images, logits cached in 8 bits
  ten, 16 bits   the same with 16 bits: what 8 bits cost
  all            half of each batch from the 38 images, through the teacher alone

Prints test mIoU of each seed, and differences with 95 % intervals over images; writes few_labels.json. Runs resume;
OMP_NUM_THREADS says how many cores one takes.
"""

import argparse
import json
from pathlib import Path

from dubai import evaluated, print_table, run, summary

from skystill.dataset import find_pairs, sample_images, split_pairs
from skystill.evaluate import Evaluation, compare
from skystill.run_folder import write_json

EPOCHS, LABELED = 24, 10
ARMS = ("alone", "ten", "ten, 16 bits", "all")


def main() -> None:
    """Train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True, help="run folder; trained on split dubai")
    parser.add_argument("--out", type=Path, default=Path("runs/few"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--score", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    if not chosen.score:
        for seed in range(chosen.seeds):
            train(chosen.data, chosen.teacher, chosen.out, seed)
    score(chosen.data, chosen.out)


def folder(out: Path, arm: str, seed: int) -> Path:
    """Where a run goes."""
    return out / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"


def train(data: Path, teacher: Path, out: Path, seed: int) -> None:
    """All arms of one seed."""
    shared = [f"--data={data}", "--split=dubai", f"--limit-images={LABELED}", f"--seed={seed}", f"--epochs={EPOCHS}",
              "--no-report", "--resume"]  # fmt: skip
    teaching = [*shared, "--student=kite", f"--teacher={teacher}", "--alpha=0.3", "--temperature=2", "--no-alone",
                "--teacher-mode=cached"]  # fmt: skip
    run("train", *shared, f"--out={folder(out, 'alone', seed)}", "--network=kite")
    run("distill", *teaching, f"--out={folder(out, 'ten', seed)}")
    run("distill", *teaching, f"--out={folder(out, 'ten, 16 bits', seed)}", "--cache-bits=16")
    run("distill", *teaching, f"--out={folder(out, 'all', seed)}", f"--unlabeled={without_labels(data, out, seed)}")


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
        done = sorted(p.parent for p in out.glob(f"{folder(out, arm, 0).name[:-1]}[0-9]/student.onnx"))
        found[arm] = [evaluated(path / "student.onnx", test) for path in done]
    table = {arm: summary(evaluations) for arm, evaluations in found.items() if evaluations}
    pairs = (("ten", "alone"), ("all", "alone"), ("all", "ten"), ("ten", "ten, 16 bits"))
    differences = {f"{a} minus {b}": compare(found[a], found[b]).to_dict() for a, b in pairs if found[a] and found[b]}
    result = {"test_images": len(test), "models": table, "differences": differences}
    print_table("dubai, 10 labelled images", result)
    write_json(out / "few_labels.json", json.loads(json.dumps(result)))


if __name__ == "__main__":
    main()

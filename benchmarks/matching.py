"""Function matching: what mixed crops are worth, on *validation* images of any labelled data.

    python benchmarks/matching.py --data DIR --split dubai --teacher RUN --out runs/matching
    python benchmarks/matching.py --data DIR --split dubai --teacher RUN --out runs/matching --score

All arms have the same student, teacher, seeds and number of steps:

  no mix                 the teacher's logits from a cache, which all arms with a cache share
  cutmix                 CutMix, with the cached logits of each part
  no mix, online         the teacher answers to each crop, without the colour jitter that the student sees
  cutmix, online         CutMix, and the teacher answers to the mixed crop, with the same jitter
  mixup, online          mixup, and the same
  confident              no mix, and pixels without labels count where the teacher is sure; with --unlabeled only

`--jitter`, `--zoom` and `--mix-fraction` make the views stronger, and `--epochs` the training longer: function matching
(Beyer 2022, arXiv 2106.05237) asks for both. `--unlabeled` adds images without labels, as in skystill distill. The
script prints the validation mIoU of the last epoch of each seed, the seconds of a training, and the difference to the
first arm that is finished, and writes matching.json. Runs that were stopped are resumed, and finished ones are kept, so
that the same command goes on after any stop; other settings need another --out. `--arms` and `--seeds` choose a part,
for several processes. OMP_NUM_THREADS sets the number of cores that a training uses.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from dubai_runs import arm_folder, finish, logged

from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings, build_settings

ARMS: Mapping[str, Mapping[str, object]] = {
    "no mix": {"teacher_mode": "cached"},
    "cutmix": {"teacher_mode": "cached", "mix": "cutmix"},
    "no mix, online": {},
    "cutmix, online": {"mix": "cutmix"},
    "mixup, online": {"mix": "mixup"},
    "confident": {"teacher_mode": "cached", "min_confidence": 0.8},
}
SHARED = ("student", "epochs", "crop", "batch_size", "crops_per_image", "jitter", "zoom", "precision", "unlabeled")
"""Options that go to every training as they are."""


def main() -> None:
    """Train what is missing, print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="auto")
    parser.add_argument("--teacher", type=Path, required=True, help="run folder, trained on the same split")
    parser.add_argument("--student", default="swift-small")
    parser.add_argument("--out", type=Path, default=Path("runs/matching"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--crops-per-image", type=int)
    parser.add_argument("--jitter", type=float, default=0.2)
    parser.add_argument("--zoom", type=float, default=0.0)
    parser.add_argument("--mix-fraction", type=float, default=0.5)
    parser.add_argument("--unlabeled", type=Path, action="append", default=[])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), help="by default all that can be trained")
    parser.add_argument("--score", action="store_true", help="train nothing")
    chosen = parser.parse_args()
    arms = chosen.arms or [arm for arm in ARMS if chosen.unlabeled or arm != "confident"]
    for seed in [] if chosen.score else chosen.seeds:
        for arm in arms:
            finish(settings_of(chosen, arm, seed))
    report(chosen, arms)


def settings_of(chosen: argparse.Namespace, arm: str, seed: int) -> DistillSettings:
    """Return the settings of an arm and a seed."""
    own = dict(ARMS[arm])
    if "mix" in own:
        own["mix_fraction"] = chosen.mix_fraction
    if own.get("teacher_mode") == "cached":
        own["cache"] = chosen.out / "logits"
    given = {name: getattr(chosen, name) for name in SHARED}
    run = {"data": chosen.data, "split": chosen.split, "teacher": [str(chosen.teacher)], "seed": seed, "alone": False}
    return build_settings(DistillSettings, {**given, **run, **own, "out": arm_folder(chosen.out, arm, seed)})


def report(chosen: argparse.Namespace, arms: list[str]) -> None:
    """Print a table in Markdown, and write it."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    first: dict[int, float] | None = None
    print("| arm | validation mIoU (each seed) | seconds | minus the first, each seed |\n|---|---:|---:|---:|")
    for arm in arms:
        own, seconds = logs(chosen, arm, "validation_miou"), logs(chosen, arm, "seconds")
        if not own:
            continue
        scores = {seed: rows[-1] for seed, rows in own.items()}
        first = scores if first is None else first
        change = {seed: 100 * (scores[seed] - first[seed]) for seed in scores if seed in first}
        found[arm] = {"miou": scores, "minus_first": change}
        each = ", ".join(f"{100 * score:.1f}" for score in scores.values())
        mean_change = f"{mean(change.values()):+.1f}" if change else "none in common"
        changes = ", ".join(f"{value:+.1f}" for value in change.values())
        taken = mean(sum(rows) for rows in seconds.values())
        print(f"| {arm} | {100 * mean(scores.values()):.1f} ({each}) | {taken:.0f} | {mean_change} ({changes}) |")
    write_json(chosen.out / "matching.json", found)


def logs(chosen: argparse.Namespace, arm: str, column: str) -> dict[int, list[float]]:
    """Return a column of the log by seed, one number per epoch, of runs that are finished."""
    runs = {seed: RunFolder(arm_folder(chosen.out, arm, seed)) for seed in chosen.seeds}
    return {seed: logged(run.path, column) for seed, run in runs.items() if run.model.exists()}


if __name__ == "__main__":
    main()

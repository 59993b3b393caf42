"""What distillation gives in the demo, seed by seed.

    python benchmarks/demo_seeds.py --seeds 10 --out runs/demo-seeds

Each seed draws scenes of its own, trains its own teacher, the student with it and the same student alone, with the
settings of `skystill demo`, and scores all three on the ten test images. The script prints the mIoU of each in percent
and the difference with its 95 % interval over the images, a line per seed, and writes demo_seeds.json. Seeds that are
finished are not run again; those that were stopped go on.
"""

import argparse
from pathlib import Path

from dubai_runs import evaluated, finish, interval, points, scored_part, without_teacher

from skystill.api.demo_settings import prepare_demo
from skystill.progress import ignore_progress
from skystill.report.metrics import compare
from skystill.run_folder import RunFolder, write_json
from skystill.settings import DemoSettings


def main() -> None:
    """Run every seed and print its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-seeds"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    found = {}
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        found[seed] = run(chosen.out / str(seed), seed)
        write_json(chosen.out / f"demo_seeds-{chosen.first}.json", found)


def run(out: Path, seed: int) -> dict[str, float]:
    """Train and score one seed."""
    teacher, student = prepare_demo(DemoSettings(out=out, seed=seed), True, ignore_progress)
    student = student.model_copy(update={"alone": False})
    alone = without_teacher(student, out / "alone")
    for settings in (teacher, student, alone):
        finish(settings)
    test, classes = scored_part(student.data, student.split)
    runs = {"teacher": teacher.out, "student": student.out, "alone": alone.out}
    scores = {name: evaluated(RunFolder(path).model, test, classes) for name, path in runs.items()}
    miou = {name: float(evaluation.scores().miou or 0) for name, evaluation in scores.items()}
    difference = compare([scores["student"]], [scores["alone"]])
    shown = ", ".join(f"{name} {100 * value:.1f}" for name, value in miou.items())
    print(f"seed {seed}: {shown}; student minus alone {points(difference)} ({interval(difference)})", flush=True)
    return miou | {"low": difference.low, "difference": difference.difference, "high": difference.high}


if __name__ == "__main__":
    main()

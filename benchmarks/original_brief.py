"""The experiment of the original brief: ten sampled images, 50 epochs, U-Net teacher, two-level student.

    python benchmarks/original_brief.py --data DIR --out runs/original-brief

alpha is 0.1, the temperature 10, and student and teacher are compared pixel by pixel. Teacher training, distillation
and inference each run in a process of their own, so that each peak of memory is its own. Both networks train on the
same ten images with the same batch size and the same number of steps. The script prints a table and writes
original_brief.json. Runs that were stopped are resumed.
"""

import argparse
from pathlib import Path

from skystill.api.processes import call_command
from skystill.report.records import ModelRecord, read_results
from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings, TrainSettings


def main() -> None:
    """Run the experiment, and print the table. What is finished is not run again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/original-brief"))
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--crops-per-image", type=int, default=4, help="crops of 256 x 256 per image and epoch")
    chosen = parser.parse_args()
    results = read_results(train(chosen))
    rows = {role: row(results.models[role]) for role in ("teacher", "student")}
    write_json(chosen.out / "original_brief.json", {"settings": results.settings, **rows})
    print(f"| | {' | '.join(rows)} | student / teacher |\n|---|---:|---:|---:|")
    for name, value in rows["teacher"].items():
        other = rows["student"][name]
        print(f"| {name} | {value:,.4g} | {other:,.4g} | {other / value:.2f} |")


def train(chosen: argparse.Namespace) -> RunFolder:
    """Train the teacher, distil the student, and write the report. Return the run of the student."""
    teacher, student = chosen.out / "teacher", RunFolder(chosen.out / "student")
    shared = {
        "data": chosen.data,
        "epochs": chosen.epochs,
        "limit_images": chosen.images,
        "batch_size": chosen.batch_size,
        "crops_per_image": chosen.crops_per_image,
        "student_loss": "ce",
        "average": 0.0,
        "learning_rate": 1e-3,
    }
    distilled = DistillSettings(
        **shared, out=student.path, teacher=[str(teacher)], student="two-level", alpha=0.1, alpha_end=0.1,
        temperature=10.0, distillation_stride=1, alone=False,
    )  # fmt: skip
    # Processes and not skystill.api: the peak memory of each training is one of the results.
    call_command("train", TrainSettings(**shared, out=teacher, network="unet"), "--resume", "--no-report")
    call_command("distill", distilled, "--resume")
    return student


def row(model: ModelRecord) -> dict[str, float]:
    """Return the figures of one model by name."""
    scores, cost, training = model.scores, model.cost, model.training
    last = training.history[-1]
    return {
        "training loss against labels": last["student_loss"],
        "validation loss against labels": last["validation_student_loss"],
        "precision, mean over classes": number(scores.mprecision),
        "recall, mean over classes": number(scores.mrecall),
        "mIoU": number(scores.miou),
        "pixel accuracy": number(scores.pixel_accuracy),
        "parameters": cost.parameters,
        "peak memory of training, MB": training.peak_rss_bytes / 1e6,
        "peak memory of inference, MB": cost.peak_rss_bytes / 1e6,
        "inference, ms per megapixel": cost.latency_ms_per_mp,
        "model file, MB": cost.size_bytes / 1e6,
        "training, s": training.seconds,
    }


def number(score: float | None) -> float:
    """Return a score that is there as soon as the test images hold a scored class.

    Raises:
        ValueError: they hold none.
    """
    if score is None:
        raise ValueError("the test images hold no scored class.")
    return score


if __name__ == "__main__":
    main()

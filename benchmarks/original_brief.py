"""The mission's own experiment: ten sampled images, 50 epochs, U-Net teacher, two-level student, alpha 0.1, T 10.

    python benchmarks/mission.py --data DIR --out runs/mission

Teacher training, distillation, and inference each run in a process of their own, so that each peak is its own. Both
networks train on the same ten images with the same batch and the same steps. Prints a table and writes mission.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from skystill.run_folder import write_json


def command(verb: str, *flags: str) -> None:
    """Run one of our commands in its own process."""
    subprocess.run([sys.executable, "-m", "skystill", verb, *flags], check=True)


def main() -> None:
    """Run the experiment; what is done already is not done again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/mission"))
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument(
        "--crops-per-image", type=int, default=4, help="crops of 256 x 256 an epoch draws for each image"
    )
    chosen = parser.parse_args()
    teacher, student = chosen.out / "teacher", chosen.out / "student"
    shared = [
        f"--data={chosen.data}",
        f"--epochs={chosen.epochs}",
        f"--limit-images={chosen.images}",
        f"--batch-size={chosen.batch_size}",
        f"--crops-per-image={chosen.crops_per_image}",
        "--student-loss=ce",
        "--average=0",
        "--learning-rate=1e-3",
        "--resume",
    ]
    command("train", *shared, f"--out={teacher}", "--network=unet", "--no-report")
    command(
        "distill", *shared, f"--out={student}", f"--teacher={teacher}", "--student=two-level",
        "--alpha=0.1", "--alpha-end=0.1", "--temperature=10", "--no-alone",
    )  # fmt: skip
    results = json.loads((student / "results.json").read_text(encoding="utf-8"))
    rows = {role: row(results["models"][role]) for role in ("teacher", "student")}
    write_json(chosen.out / "mission.json", {"settings": results["settings"], **rows})
    print(f"| | {' | '.join(rows)} | student / teacher |\n|---|---:|---:|---:|")
    for name, value in rows["teacher"].items():
        other = rows["student"][name]
        print(f"| {name} | {value:,.4g} | {other:,.4g} | {other / value:.2f} |")


def row(model: dict[str, Any]) -> dict[str, float]:
    """The figures of one model."""
    scores, cost, training = model["scores"], model["cost"], model["training"]
    last = training["history"][-1]
    return {
        "training loss against labels": last["student_loss"],
        "validation loss against labels": last["validation_student_loss"],
        "precision, mean over classes": scores["mprecision"],
        "recall, mean over classes": scores["mrecall"],
        "mIoU": scores["miou"],
        "pixel accuracy": scores["pixel_accuracy"],
        "parameters": cost["parameters"],
        "peak memory of training, MB": training["peak_rss_bytes"] / 1e6,
        "peak memory of inference, MB": cost["peak_rss_bytes"] / 1e6,
        "inference, ms a megapixel": cost["latency_ms_per_mp"],
        "model file, MB": cost["size_bytes"] / 1e6,
        "training, s": training["seconds"],
    }


if __name__ == "__main__":
    main()

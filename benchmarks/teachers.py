"""Several teachers, each as the mean over its 8 symmetries, and all of them averaged, on split dubai.

    python benchmarks/teachers.py --data DIR --teachers RUN RUN ... --part validation    # choose which to take
    python benchmarks/teachers.py --data DIR --teachers RUN RUN ... --part test          # then look once

`skystill distill --teacher RUN --teacher RUN` learns from the same average. `--scales 0.75 1 1.33` averages the image
enlarged and reduced as well, which distilling does not. Prints mIoU over the five named classes with its 95 % interval
over images, each teacher and after each the average so far.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from dubai import summary
from PIL import Image

from skystill.classes import DUBAI
from skystill.dataset import find_pairs, read_scenes, split_pairs
from skystill.evaluate import Evaluation, evaluate
from skystill.predict import Predictor
from skystill.run_folder import RunFolder

Floats = npt.NDArray[np.float32]


def main() -> None:
    """Score each teacher, and the average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teachers", type=Path, nargs="+", required=True, help="run folders")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    chosen = parser.parse_args()
    scenes = list(read_scenes(getattr(split_pairs(find_pairs(chosen.data).pairs, "dubai", 0), chosen.part), DUBAI))
    print(f"| {chosen.part}, {len(scenes)} images | mIoU | 95 % interval | {' | '.join(DUBAI.names[:5])} |")
    print("|---|---:|---:|" + "---:|" * 5)
    totals = [np.zeros((len(DUBAI), *labels.shape), np.float32) for _, _, labels in scenes]
    for count, path in enumerate(chosen.teachers, 1):
        predictor = Predictor(RunFolder(path).model)
        found = [at_scales(predictor, image, chosen.scales) for _, image, _ in scenes]
        totals = [total + one for total, one in zip(totals, found, strict=True)]
        print_row(path.name, judge(found, scenes))
        if count > 1:
            print_row(f"these {count} averaged", judge([total / count for total in totals], scenes))


def at_scales(predictor: Predictor, image: npt.NDArray[np.uint8], scales: Sequence[float]) -> Floats:
    """Probabilities (C, H, W), the mean over the 8 symmetries of the image at each scale."""
    height, width = image.shape[:2]
    total = np.zeros((len(predictor.classes), height, width), np.float32)
    for scale in scales:
        size = round(width * scale), round(height * scale)
        seen = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) if scale != 1 else image
        for channel, sum_of_it in zip(predictor.symmetric_probabilities(seen), total, strict=True):
            back = Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR)
            sum_of_it += np.asarray(back) if scale != 1 else channel
    return total / len(scales)


def judge(
    probabilities: Sequence[Floats], scenes: Sequence[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]
) -> Evaluation:
    """Score what was predicted of these scenes, in their order."""
    found = iter(probabilities)
    return evaluate(lambda image: next(found), scenes, DUBAI)


def print_row(name: str, evaluation: Evaluation) -> None:
    """One line, ready for docs/results.md."""
    row = summary([evaluation])
    interval = " to ".join(f"{100 * value:.1f}" for value in row["interval"])
    classes = " | ".join(f"{100 * value:.1f}" for value in row["iou"][:5])
    print(f"| {name} | {100 * row['miou']:.1f} | {interval} | {classes} |", flush=True)


if __name__ == "__main__":
    main()

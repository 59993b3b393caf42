"""Make the bundled model: quantise a student trained on split dubai, score it on the test images, write its card.

    python benchmarks/bundled_model.py --run runs/family/swift-small-distilled-0 --data DIR

The student is the `swift-small` of benchmarks/family.py that is best on *validation* images in INT8. The script writes
dubai.onnx and dubai.md in src/skystill/model/weights.
"""

import argparse
from pathlib import Path

from dubai_runs import NAMED, evaluated, summary

from skystill.api import quantize
from skystill.cli.bars import progress_display
from skystill.data import find_pairs, split_pairs
from skystill.model.bundled import bundled_model
from skystill.model.measure import ModelCost
from skystill.report.metrics import Evaluation, compare
from skystill.report.records import read_split, read_training
from skystill.run_folder import RunFolder, write_text

CARD = """# The model in the box
`dubai.onnx`, a `{network}` of {parameters:,} parameters in INT8, {size:.0f} kB: it labels aerial photographs with the
classes Building, Land, Road, Vegetation, Water and Unlabeled. It is meant for trying SkyStill out, and as a start.

## What it was trained on
The {train} training images of "Semantic segmentation of aerial imagery" (Humans in the Loop with the Mohammed Bin
Rashid Space Centre; licence CC0 1.0): satellite images of Dubai, split by image (in every tile parts 001 to 006).
Trained for {steps:,} steps on their labels and on the answers of two networks averaged, a U-Net of 1.9 million
parameters and one like itself of twice the size (docs/results.md). No image is in the file; its licence is MIT.

## How good it is
On the {test} test images of the same tiles (parts 008 and 009), whole images:

| | IoU, % |
|---|---:|
{rows}
| **mean of the five** | **{miou:.1f}** |

95 % interval over the images: {low:.1f} to {high:.1f}. INT8 against float: {drop:+.2f} points ({drop_low:+.2f} to
{drop_high:+.2f}). docs/results.md has the time it takes.

## Where it fails
- **Other places.** Students of this kind fall from about 60 to 48 % mIoU on tiles of Dubai that they have not seen
  (docs/results.md), and further on other cities, seasons, sensors and ground resolutions. Train on your own images.
- **Vegetation and roads**: the labels it learnt from are rough there.
- **Unlabeled** is learnt as a class and hardly ever right.

Made by `benchmarks/bundled_model.py`.
"""


def main() -> None:
    """Quantise, score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    chosen = parser.parse_args()
    run, out = RunFolder(chosen.run), bundled_model()
    with progress_display() as on_progress:
        done = quantize(model=run.model, data=chosen.data, out=out, on_progress=on_progress)
    test = split_pairs(find_pairs(chosen.data).pairs, "dubai", 0).test
    small, full = (evaluated(path, test) for path in (out, run.model))
    card = card_of(run, done.costs[1], small, full)
    write_text(out.with_suffix(".md"), card)
    print(card)


def card_of(run: RunFolder, cost: ModelCost, small: Evaluation, full: Evaluation) -> str:
    """Return the model card.

    Args:
        run: the run of the student.
        cost: of the INT8 file.
        small: evaluation of the INT8 file on the test images.
        full: evaluation of the float file on the same images.
    """
    scores, difference = summary([small]), compare([small], [full])
    iou = scores.iou[: len(NAMED)]
    return CARD.format(
        network=cost.network,
        parameters=cost.parameters,
        size=cost.size_bytes / 1e3,
        train=len(read_split(run).train),
        steps=read_training(run).steps,
        test=len(small.keys),
        rows="\n".join(f"| {name} | {100 * value:.1f} |" for name, value in zip(NAMED, iou, strict=True)),
        miou=100 * scores.miou,
        low=100 * scores.interval[0],
        high=100 * scores.interval[1],
        drop=100 * difference.difference,
        drop_low=100 * difference.low,
        drop_high=100 * difference.high,
    )


if __name__ == "__main__":
    main()

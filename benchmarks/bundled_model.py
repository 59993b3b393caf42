"""Make the model in the box: quantise a student trained on split dubai, score it on the test images, write its card.

    python benchmarks/box.py --run runs/family/swift-small-distilled-0 --data DIR   # writes src/skystill/models/dubai.*

The student is the `swift-small` of benchmarks/family.py that is best on *validation* images in INT8.
"""

import argparse
import json
from pathlib import Path

from dubai import evaluated

from skystill.classes import DUBAI
from skystill.data import find_pairs, split_pairs
from skystill.model.bundled import bundled_model
from skystill.report.int8 import quantize_on_data
from skystill.report.metrics import compare
from skystill.run_folder import RunFolder, write_text
from skystill.settings import QuantizeSettings

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

Made by `benchmarks/box.py`.
"""


def main() -> None:
    """Quantise, score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    chosen = parser.parse_args()
    folder, out = RunFolder(chosen.run), bundled_model()
    out.parent.mkdir(exist_ok=True)
    made = quantize_on_data(QuantizeSettings(model=folder.model, data=chosen.data, out=out), print)
    test = split_pairs(find_pairs(chosen.data).pairs, "dubai", 0).test
    small, full = (evaluated(path, test) for path in (out, folder.model))
    scores, difference = small.scores(), compare([small], [full])
    cost, split = made.costs[1], json.loads(folder.split.read_text(encoding="utf-8"))
    iou = scores["per_class"]["iou"]
    card = CARD.format(
        network=cost["network"],
        parameters=cost["parameters"],
        size=cost["size_bytes"] / 1e3,
        train=len(split["train"]),
        steps=folder.read_json(folder.training)["steps"],
        test=len(test),
        rows="\n".join(f"| {name} | {100 * value:.1f} |" for name, value in zip(DUBAI.names[:5], iou[:5], strict=True)),
        miou=100 * scores["miou"],
        low=100 * scores["miou_interval"][0],
        high=100 * scores["miou_interval"][1],
        drop=100 * difference.difference,
        drop_low=100 * difference.low,
        drop_high=100 * difference.high,
    )
    write_text(out.with_suffix(".md"), card)
    print(card)


if __name__ == "__main__":
    main()

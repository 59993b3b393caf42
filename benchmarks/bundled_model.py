"""Make the bundled model: quantise a student trained on split dubai, score it here and elsewhere, write its card.

    python benchmarks/bundled_model.py --run runs/features-60/pretrained-distilled-0 --data DUBAI --elsewhere TOKYO

The student is the `swift-small` of benchmarks/features.py that docs/results/bundled-model.md describes. TOKYO are the
tiles of OpenEarthMap; of their classes, those are scored that Dubai has as well. The script writes dubai.onnx and
dubai.md in src/skystill/model/weights, and prints what the model that was there and the new one have on the validation
and test images of Dubai.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from dubai_runs import NAMED, evaluated, interval, logged, points, score_cells, summary

from skystill.api import check, quantize
from skystill.classes import VOID, Labels
from skystill.cli.bars import progress_display
from skystill.data import find_pairs, read_pairs, split_pairs
from skystill.model.bundled import bundled_model
from skystill.model.measure import ModelCost
from skystill.predict import Predictor
from skystill.report.metrics import Evaluation, compare, confusion_counts, iou_per_class
from skystill.report.records import read_split, read_training
from skystill.run_folder import RunFolder, write_text

SHARED = {
    "Building": ("building",),
    "Road": ("road",),
    "Vegetation": ("rangeland", "tree", "agriculture land"),
    "Water": ("water",),
}
"""Classes of Dubai to those of Tokyo that are the same."""
REST = len(SHARED)

CARD = """# The bundled model
`dubai.onnx`, a `{network}` of {parameters:,} parameters in INT8, {size:.0f} kB: it labels aerial photographs with the
classes Building, Land, Road, Vegetation, Water and Unlabeled. It is meant for trying SkyStill out.

## What it was trained on
The {train} training images of "Semantic segmentation of aerial imagery" (Humans in the Loop with the Mohammed Bin
Rashid Space Centre; licence CC0 1.0): satellite images of Dubai, split by image (in every tile parts 001 to 006).
It first learnt the features of a `lite0` on these images for {features} epochs, then for {steps:,} steps their labels
and the answers of that `lite0`, a U-Net on EfficientNet-Lite0 whose encoder began with weights of ImageNet. No image is
in the file. Its licence is MIT; the weights of EfficientNet-Lite are under Apache-2.0.

## How good it is
On the {test} test images of the same tiles (parts 008 and 009), whole images:

| | IoU, % |
|---|---:|
{rows}
| **mean of the five** | **{miou:.1f}** |

95 % interval over the images: {low:.1f} to {high:.1f}. The score is a little too good: these images were looked at when
the model was chosen. INT8 against float: {drop:+.2f} points ({drop_low:+.2f} to {drop_high:+.2f}).

## Where it fails
- **Other places: it is of no use there.** It takes most of Tokyo for Land. On {tiles} tiles (OpenEarthMap, 0.5 m per
  pixel) the IoU is {elsewhere};
  vegetation stands for trees, rangeland and fields. Already on tiles of Dubai that it has not seen, a `swift-small`
  has 54 % mIoU instead of 68 (without a teacher). Train on your own images.
- **Vegetation and roads**: the labels it learnt from are rough there.
- **Unlabeled** is learnt as a class and hardly ever right.

Made by `benchmarks/bundled_model.py`.
"""


def main() -> None:
    """Quantise, score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--elsewhere", type=Path, required=True)
    chosen = parser.parse_args()
    run, out = RunFolder(chosen.run), bundled_model()
    split = split_pairs(find_pairs(chosen.data).pairs, "dubai", 0)
    before = {part: evaluated(out, getattr(split, part)) for part in ("validation", "test")}
    with progress_display() as on_progress:
        done = quantize(model=run.model, data=chosen.data, out=out, on_progress=on_progress)
    for part, old in before.items():
        new = evaluated(out, getattr(split, part))
        difference = compare([new], [old])
        scores = f"{score_cells(summary([old]))} before, {score_cells(summary([new]))} now"
        print(f"{part}: {scores}; {points(difference)} ({interval(difference)})")
    small, full = (evaluated(path, split.test) for path in (out, run.model))
    card = card_of(run, done.costs[1], small, full, elsewhere(out, chosen.elsewhere))
    write_text(out.with_suffix(".md"), card)
    print(card)


def elsewhere(model: Path, data: Path) -> tuple[int, dict[str, float]]:
    """Return the number of tiles of Tokyo, and the IoU of each class of Dubai that they have as well, as ratios."""
    found = check(data=data).check
    predictor, place = Predictor(model), {name: label for label, name in enumerate(SHARED)}
    of_tokyo = [next((place[name] for name, own in SHARED.items() if one in own), REST) for one in found.classes.names]
    of_dubai = [place.get(name, REST) for name in predictor.classes.names]
    total = np.zeros((REST + 1, REST + 1), np.int64)
    pairs = [record.pair for record in found.records]
    for _, image, labels in read_pairs(pairs, found.classes):
        predicted = lookup(of_dubai)[predictor.labels(image)]
        total += confusion_counts(lookup(of_tokyo)[labels], predicted, REST + 1)
    return len(pairs), dict(zip(SHARED, iou_per_class(total)[:REST].tolist(), strict=True))


def lookup(places: Sequence[int]) -> Labels:
    """Return the table from labels to places; void stays void."""
    table = np.full(256, VOID, np.uint8)
    table[: len(places)] = places
    return table


def card_of(
    run: RunFolder, cost: ModelCost, small: Evaluation, full: Evaluation, far: tuple[int, dict[str, float]]
) -> str:
    """Return the model card.

    Args:
        run: the run of the student.
        cost: of the INT8 file.
        small: evaluation of the INT8 file on the test images.
        full: evaluation of the float file on the same images.
        far: result of `elsewhere`.
    """
    scores, difference = summary([small]), compare([small], [full])
    iou = scores.iou[: len(NAMED)]
    return CARD.format(
        network=cost.network,
        parameters=cost.parameters,
        size=cost.size_bytes / 1e3,
        train=len(read_split(run).train),
        steps=read_training(run).steps,
        features=len(logged(run.path.parent / "features-0", "seconds")),
        tiles=far[0],
        elsewhere=", ".join(f"{100 * value:.0f} % for {name.lower()}" for name, value in far[1].items()),
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

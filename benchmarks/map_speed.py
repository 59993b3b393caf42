"""Images per second of a training on a map, against pairs of images and masks in memory.

    python benchmarks/map_speed.py                # 8,192 x 8,192 pixels, tiled and compressed

A map is generated (`map_memory.py`), and its training windows are written as PNG files with masks. The same network is
trained for an epoch on each, side by side: some steps on the map, then as many on the pairs, which are all held in
memory. The script prints the images per second of both and their ratio, for training on labels alone, which is the
least that is computed for each image. The draws are the same, so that the losses are compared, too.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from map_memory import make_map
from PIL import Image
from torch.nn.functional import cross_entropy

from skystill.classes import ClassMap, read_classes
from skystill.data import Pair, find_pairs, read_pair
from skystill.run_folder import write_json
from skystill.train.batches.batches import CropSampler, TrainBatches
from skystill.train.batches.images import labeled_images
from skystill.train.networks.table import build_network

STEPS = 16  # on each side, one after the other


def main() -> None:
    """Make the data, train on both, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/map_speed"))
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--network", default="swift-small")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10**9, help="fewer than an epoch has")
    chosen = parser.parse_args()
    data = make_map(chosen.out / f"map-{chosen.side}", chosen.side)
    classes = read_classes(data / "classes.yaml")
    windows = [pair for pair in find_pairs(data).pairs if has_labels(pair, classes)]
    sides = {"map": windows, "pairs": write_pairs(chosen.out / f"pairs-{chosen.side}", windows, classes)}
    batches = {name: batches_of(pairs, classes, chosen) for name, pairs in sides.items()}
    print(f"{len(windows)} windows; all of the map in memory: {batches['map'].sampler.images.fits}")
    networks = {name: build_network(chosen.network, len(classes)).train() for name in sides}
    networks["pairs"].load_state_dict(networks["map"].state_dict())
    seconds, images = dict.fromkeys(sides, 0.0), 0
    optimizers = {name: torch.optim.AdamW(network.parameters()) for name, network in networks.items()}
    steps = min(chosen.steps, batches["map"].steps_per_epoch)
    for first in range(-2, steps, STEPS):  # the first two warm up
        here = range(max(0, first), min(steps, first + STEPS)) if first >= 0 else range(2)
        for name in sides:
            began = time.perf_counter()
            for step in here:
                train_step(networks[name], optimizers[name], batches[name], step)
            seconds[name] += time.perf_counter() - began if first >= 0 else 0.0
        images += len(here) * chosen.batch_size if first >= 0 else 0
    rates = {name: images / time_s for name, time_s in seconds.items()}
    ratio = rates["map"] / rates["pairs"]
    print(f"images per second: map {rates['map']:.1f}, pairs in memory {rates['pairs']:.1f}, ratio {ratio:.2f}")
    write_json(chosen.out / "map_speed.json", {"images_per_second": rates, "ratio": ratio, "steps": steps})


def has_labels(pair: Pair, classes: ClassMap) -> bool:
    """Return whether a window has a labelled pixel with data."""
    return bool((read_pair(pair, classes)[1].labels != 255).any())


def write_pairs(folder: Path, windows: list[Pair], classes: ClassMap) -> list[Pair]:
    """Write windows as images with masks of label numbers, unless they are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for place, window in enumerate(windows):
        pair = Pair(f"{place:05}", folder / f"{place:05}.png", folder / f"{place:05}_mask.png")
        if not pair.mask.exists():
            picture, reading = read_pair(window, classes)
            Image.fromarray(picture.image).save(pair.image, compress_level=1)
            Image.fromarray(reading.labels).save(pair.mask, compress_level=1)
        found.append(pair)
    return found


def batches_of(pairs: list[Pair], classes: ClassMap, chosen: argparse.Namespace) -> TrainBatches:
    """Return batches as `skystill train` draws them by default."""
    indexed = ClassMap(classes.names, classes.colors, sources=classes.sources, indexed=True)
    images = labeled_images(pairs, indexed)
    for index in range(len(images) if images.fits else 0):
        _ = images[index]  # read before the clock starts
    return TrainBatches(CropSampler(images, chosen.crop, 0.2, [], 0.5), chosen.batch_size, seed=0)


def train_step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: TrainBatches, step: int) -> None:
    """Draw a batch and make a step on it."""
    batch = batches.batch(0, step)
    loss = cross_entropy(network(batch.images), batch.labels, ignore_index=255)
    if np.isfinite(loss.item()):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()

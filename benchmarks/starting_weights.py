"""Make the weights of the package that a student can begin with, and their card, from a run of `skystill pretrain`.

    skystill pretrain --data DIR --split dubai --teacher runs/lite0-ten --epochs 24 --precision bf16 --out runs/start
    python benchmarks/starting_weights.py --run runs/start --name dubai

The script writes swift-small-dubai.safetensors in half precision, and swift-small-dubai.md beside it, in
src/skystill/model/weights.
"""

import argparse
from pathlib import Path

import torch
from dubai_runs import logged

from skystill.classes import ClassMap
from skystill.data import find_pairs, split_pairs
from skystill.raster.input_spec import RGB
from skystill.run_folder import RunFolder, write_text
from skystill.train.networks.shipped import shipped_file
from skystill.train.networks.start import image_digest, network_name, recorded_input, start_network
from skystill.train.networks.table import count_parameters
from skystill.train.networks.weights import IMAGES, NetworkRecord, write_network

CARD = """# Weights to begin with
`{file}`, {size:.0f} kB: the {parameters:,} weights of a `{network}` that has learnt features of aerial
photographs, and no classes. `--student {network}?weights={name}` and `--network {network}?weights={name}` begin with
them.

## What they were trained on
The {train} training images of "Semantic segmentation of aerial imagery" (Humans in the Loop with the Mohammed Bin
Rashid Space Centre; licence CC0 1.0): satellite images of Dubai, split by image (in every tile parts 001 to 006). For
{epochs} epochs the network learnt the features of a `lite0` on these images, without their labels. That `lite0` began
with weights of EfficientNet-Lite0 that were trained on ImageNet (Apache-2.0), and was trained on the labels of the same
images. No image is in the file; its licence is MIT, and that of EfficientNet-Lite is Apache-2.0.

## What they are worth
docs/results/features.md, "Features of another place".

## Where they must not be used
Not to measure on these {train} images. A training whose test images are among them says so: the file lists digests of
their bytes. It does not know copies of them in another format, nor runs and teachers that began with these weights.

Made by `benchmarks/starting_weights.py`.
"""


def main() -> None:
    """Store the weights, write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--name", default="dubai")
    chosen = parser.parse_args()
    run = RunFolder(chosen.run)
    weights = str(run.weights)
    name, spec = network_name(weights), recorded_input(weights)
    torch.manual_seed(0)  # of the head, which has learnt nothing
    network = start_network(weights, 1, spec or RGB)
    path = shipped_file(name, chosen.name)
    train = split_pairs(find_pairs(Path(str(run.read_config()["data"]))).pairs, str(run.split), 0).train
    record = NetworkRecord(
        name,
        ClassMap(("none",), ((0, 0, 0),)),
        {IMAGES: [image_digest(pair.image) for pair in train]},
        input_spec=spec or RGB,
        pretrained="lite0",
    )
    write_network(path, network.half(), record)
    card = CARD.format(
        file=path.name,
        size=path.stat().st_size / 1e3,
        parameters=count_parameters(network),
        network=name,
        name=chosen.name,
        train=len(train),
        epochs=len(logged(run.path, "seconds")),
    )
    write_text(path.with_suffix(".md"), card)
    print(card)


if __name__ == "__main__":
    main()

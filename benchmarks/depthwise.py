"""Training of depthwise convolutions on a CPU: which number format and which way is fastest, by layer and by step.

    python benchmarks/depthwise.py                  # on one thread
    python benchmarks/depthwise.py --network lite2 --threads 2

Forward and backward pass of each depthwise layer of the network, in turn: float32, bf16, bf16 with the layer in float32
(what `make_depthwise_fast` does where it is faster), and sums of shifted products. Then a whole step of the network, in
bf16 as torch has it and with `make_depthwise_fast`. It prints medians in milliseconds, and writes depthwise.json.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.run_folder import write_json
from skystill.train.networks.blocks import to_memory_format
from skystill.train.networks.depthwise import Float32Depthwise, make_depthwise_fast
from skystill.train.networks.table import build_network


def main() -> None:
    """Time the layers and the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="lite0")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/depthwise"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    images = torch.randint(0, 256, (chosen.batch_size, 3, chosen.crop, chosen.crop), dtype=torch.uint8)
    layers = [time_layer(layer, shape, chosen.rounds) for layer, shape in depthwise_layers(chosen.network, images)]
    steps = time_steps(chosen.network, images, chosen.rounds)
    print("whole step: " + ", ".join(f"{name} {1e3 * seconds:.0f} ms" for name, seconds in steps.items()))
    print(f"ratio: {steps['bf16'] / steps['bf16, make_depthwise_fast']:.2f}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "depthwise.json", {"layers": layers, "steps": steps})


def depthwise_layers(network: str, images: Tensor) -> list[tuple[nn.Conv2d, tuple[int, ...]]]:
    """Return the depthwise layers that differ, with the shapes of their inputs."""
    built, found = build_network(network, 5), {}

    def remember(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        shape = tuple(inputs[0].shape)
        found[shape, layer.kernel_size, layer.stride] = layer

    for layer in built.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1:
            layer.register_forward_pre_hook(remember)
    with torch.no_grad():
        built.eval()(images)
    for layer in found.values():
        layer._forward_pre_hooks.clear()
    return [(layer, shape) for (shape, _, _), layer in found.items()]


def time_layer(layer: nn.Conv2d, shape: tuple[int, ...], rounds: int) -> dict[str, object]:
    """Time one layer in each way, in turn, and print a line."""
    in_float32 = copy.deepcopy(layer)
    in_float32.__class__ = Float32Depthwise
    ways: dict[str, tuple[bool, Callable[[Tensor], Tensor]]] = {
        "float32": (False, layer), "bf16": (True, layer), "bf16, layer in float32": (True, in_float32),
        "bf16, shifted products": (True, partial(shifted_products, layer)),
    }  # fmt: skip
    values = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, (half, forward) in ways.items():
            features = values.to(torch.bfloat16 if half else torch.float32).requires_grad_()
            with torch.autocast("cpu", enabled=half):
                began = time.perf_counter()
                forward(features).float().sum().backward()
                taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times[1:]) for name, times in taken.items()}
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    print(f"{shape[1]:5} channels of {shape[2]:3}, kernel {kernel}, stride {stride}: "
          + ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in medians.items()), flush=True)  # fmt: skip
    return {"shape": shape, "kernel": kernel, "stride": stride, "seconds": medians}


def shifted_products(layer: nn.Conv2d, features: Tensor) -> Tensor:
    """The same convolution as a sum of shifted products."""
    (rows, columns), (row_step, column_step) = layer.kernel_size, layer.stride
    above, left = layer.padding
    padded = F.pad(features, (left, left, above, above))
    height = (padded.shape[2] - rows) // row_step + 1
    width = (padded.shape[3] - columns) // column_step + 1
    total = features.new_zeros(())
    weights = layer.weight[:, 0].to(features.dtype)
    for row in range(rows):
        for column in range(columns):
            part = padded[:, :, row::row_step, column::column_step][:, :, :height, :width]
            total = total + part * weights[:, row, column][:, None, None]
    return total


def time_steps(network: str, images: Tensor, rounds: int) -> dict[str, float]:
    """Time forward and backward pass of the whole network, in turn."""
    ways = {"float32": (False, False), "bf16": (True, False), "bf16, make_depthwise_fast": (True, True)}
    networks, taken = {}, {}
    for name, (_, fast) in ways.items():
        networks[name] = to_memory_format(build_network(network, 5).train(), torch.channels_last)
        taken[name] = list[float]()
        if fast:
            make_depthwise_fast(networks[name])
    for _ in range(rounds + 1):
        for name, (half, _) in ways.items():
            began = time.perf_counter()
            with torch.autocast("cpu", enabled=half):
                loss = networks[name](images).float().square().mean()
            loss.backward()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


if __name__ == "__main__":
    main()

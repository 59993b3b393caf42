"""The other peer of distill_vs_keras.py: torchdistill's DistillationBox with the two U-Nets of the original brief.

    python benchmarks/peer_torchdistill.py CROPS.npz BATCH STEPS   # in an environment of torchdistill-requirements.txt

It prints one line of JSON: images per second, peak resident memory, parameters of student and teacher.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "tests" / "foreign"))
import cpu_torchvision  # noqa: F401 - torchdistill imports torchvision
from torchdistill.core.distillation import DistillationBox

WARM_UP = 5


class UNet(nn.Module):
    """The same network as skystill's `unet`: two 3x3 convolutions per level, no BatchNorm, scaled pixels."""

    def __init__(self, classes: int, channels: int, depth: int) -> None:
        super().__init__()
        sizes = [channels * 2**level for level in range(depth)]
        pairs = list(zip([3, *sizes], sizes, strict=False))
        self.encoder = nn.ModuleList(double(*pair) for pair in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, stride=2) for size in reversed(sizes[:-1]))
        self.decoder = nn.ModuleList(double(2 * size, size) for size in reversed(sizes[:-1]))
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, C, H, W) of images (N, 3, H, W) uint8."""
        features = (images.float() - 128) / 64
        skips = []
        for level, block in enumerate(self.encoder):
            features = block(nn.functional.max_pool2d(features, 2) if level else features)
            skips.append(features)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            features = block(torch.cat([skips.pop(), up(features)], dim=1))
        logits: Tensor = self.head(features)
        return logits


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Return two 3x3 convolutions with ReLU."""
    first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))


def main() -> None:
    """Distil for some steps."""
    crops, batch, steps = np.load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    images = torch.from_numpy(crops["images"]).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(crops["labels"]).long()
    chosen = np.arange((steps + WARM_UP) * batch) % len(images)
    teacher, student = UNet(6, 16, 5).eval(), UNet(6, 16, 2)
    whole = {"student_module_path": ".", "student_module_io": "output"}
    whole |= {"teacher_module_path": ".", "teacher_module_io": "output"}
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "crops",
            "sampler": {"class_or_func": torch.utils.data.SequentialSampler},
            "kwargs": {"batch_size": batch},
        },
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": 2e-3}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {
                    "kd": {
                        "criterion": {"key": "KDLoss", "kwargs": {**whole, "temperature": 10.0, "alpha": 0.1}},
                        "weight": 1.0,
                    }
                }
            },
        },
    }
    data = {"crops": torch.utils.data.TensorDataset(images[chosen], labels[chosen])}
    box = DistillationBox(teacher, student, data, config, torch.device("cpu"), None, False, 1)
    box.pre_epoch_process(epoch=0)
    began = 0.0
    for step, (sample, targets, supplement) in enumerate(box.train_data_loader):
        if step == WARM_UP:
            began = time.perf_counter()
        box.post_forward_process(box.forward_process(sample, targets, supplement))
    seconds = time.perf_counter() - began
    counts = {
        name: sum(p.numel() for p in net.parameters()) for name, net in (("student", student), ("teacher", teacher))
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"images_per_second": steps * batch / seconds, "peak_bytes": peak, **counts}))


if __name__ == "__main__":
    main()

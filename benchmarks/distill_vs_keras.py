"""Distilling side by side: Keras's own Distiller and SkyStill; images per second and peak resident memory.

    python -m venv peer && peer/bin/pip install -r benchmarks/keras-requirements.txt
    python benchmarks/distill_vs_keras.py --peer peer/bin/python --data DIR

For (t), in another environment that has torch's CPU build already:

    other/bin/pip install --no-deps -r benchmarks/torchdistill-requirements.txt
    python benchmarks/distill_vs_keras.py --peer peer/bin/python --torchdistill other/bin/python --data DIR

  (a) keras.distillation.Distiller on TensorFlow, the two U-Nets of the original brief
  (a16) the same in Keras's mixed_bfloat16
  (t) torchdistill's DistillationBox on torch, the same networks
  (b) SkyStill online, the same networks
  (c) SkyStill with cached logits, the same networks
  (d) SkyStill, cached logits and an efficient student, `kite-small`; (e) `kite-tiny`; (f) `kite`. These compare means
      over 2 x 2 pixels with those of the teacher, as the commands do. (e1) `kite-tiny`, compared pixel by pixel as in
      (a) to (c)

alpha is 0.1 and the temperature 10. SkyStill runs in `--precision`, by default what the commands choose: bf16 where the
processor has matrix units (AMX), float32 elsewhere. Ten sampled images, crops of 256 x 256, the same batch size. Every
way is a process of its own. In each of five rounds all ways run in turn. The table has medians over the rounds, and the
ratio to (a) in each round. The peers get their crops ready in memory; SkyStill reads, cuts, flips, rotates and jitters
its own, and clips gradients. No way computes metrics. The cache is filled once, in a separate process, and the seconds
of that are printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from skystill.classes import ClassMap
from skystill.data import Pair, find_pairs, resolve_classes, sample_images

WAYS = {
    "a": "Keras Distiller, TensorFlow",
    "a16": "the same in mixed_bfloat16",
    "t": "torchdistill",
    "b": "SkyStill online",
    "c": "SkyStill cached",
    "d": "SkyStill cached, kite-small",
    "e": "SkyStill cached, kite-tiny",
    "e1": "the same, --distillation-stride 1",
    "f": "SkyStill cached, kite",
}
KERAS = {"a": "float32", "a16": "mixed_bfloat16"}  # Keras's names of precisions
STUDENTS = {"d": "kite-small", "e": "kite-tiny", "e1": "kite-tiny", "f": "kite"}
STRIDES = {"d": 2, "e": 2, "f": 2}  # --distillation-stride
WARM_UP = 5  # in the first five steps SkyStill also computes the gradient of each part of the loss


def main() -> None:
    """Measure all ways, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="images and masks of Dubai; default: procedural scenes")
    parser.add_argument("--peer", type=Path, help="python of the environment with Keras; without it (a) is left out")
    parser.add_argument("--torchdistill", type=Path, help="python of its environment; without it (t) is left out")
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="the first is the one compared with"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=["auto", "32", "bf16"], default="auto")
    parser.add_argument("--way", choices=[*WAYS, "fill"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        (fill if chosen.way == "fill" else ours)(chosen)
        return
    with tempfile.TemporaryDirectory() as folder:
        chosen.work = Path(folder)
        chosen.data = chosen.data or paint(chosen.work / "scenes")
        write_crops(chosen)
        absent = {*([] if chosen.peer else KERAS), *([] if chosen.torchdistill else "t")}
        ways = [way for way in chosen.ways if way not in absent]
        if not {"b", "t", *KERAS}.issuperset(ways):
            print(f"filling the cache: {measure(chosen, 'fill')['seconds']:.1f} s, once for all epochs")
        rounds = [{way: measure(chosen, way) for way in ways} for _ in range(chosen.rounds)]
    report(ways, rounds)


def paint(folder: Path) -> Path:
    """Write procedural scenes as large as Dubai's images."""
    from skystill.data.scenes import write_scene, write_scene_classes

    write_scene_classes(folder)
    for index in range(10):
        write_scene(folder, index, 768, seed=0)
    return folder


def sampled(data: Path) -> tuple[ClassMap, list[Pair]]:
    """Return the classes, and ten pairs drawn by seed 0."""
    pairs = find_pairs(data).pairs
    return resolve_classes(data, None, pairs)[0], list(sample_images(pairs, 10, 0))


def write_crops(chosen: argparse.Namespace) -> None:
    """Write crops for the peers."""
    from skystill.train.batches.batches import CropSampler, TrainBatches
    from skystill.train.batches.images import labeled_images

    classes, pairs = sampled(chosen.data)
    batches = TrainBatches(CropSampler(labeled_images(pairs, classes), 256, 0.2, []), chosen.batch, seed=0)
    drawn = [batches.batch(0, step) for step in range(8)]
    images = np.concatenate([batch.images.permute(0, 2, 3, 1).numpy() for batch in drawn])
    labels = np.concatenate([batch.labels.numpy() for batch in drawn])
    np.savez(chosen.work / "crops.npz", images=images, labels=np.where(labels == 255, 0, labels).astype(np.int32))


def measure(chosen: argparse.Namespace, way: str) -> dict[str, float]:
    """Run one way in a process of its own: its peak memory is one of the results."""
    peer = [str(chosen.work / "crops.npz"), str(chosen.batch), str(chosen.steps)]
    if way in KERAS:
        command = [str(chosen.peer), str(Path(__file__).with_name("peer_keras.py")), *peer, KERAS[way]]
    elif way == "t":
        command = [str(chosen.torchdistill), str(Path(__file__).with_name("peer_torchdistill.py")), *peer]
    else:
        command = [sys.executable, __file__, f"--way={way}", f"--data={chosen.data}", f"--work={chosen.work}",
                   f"--batch={chosen.batch}", f"--steps={chosen.steps}",
                   f"--precision={chosen.precision}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def fill(chosen: argparse.Namespace) -> None:
    """Fill the caches of both resolutions, and print the seconds that one of them took as JSON."""
    import torch

    from skystill.allocator import keep_freed_memory
    from skystill.data.unlabeled import whole_images
    from skystill.train.networks.blocks import to_memory_format
    from skystill.train.networks.table import build_network
    from skystill.train.teachers.logit_cache import LogitCache
    from skystill.train.teachers.teacher import Teacher

    keep_freed_memory()  # as the commands do
    torch.manual_seed(0)
    _, pairs = sampled(chosen.data)
    teacher = Teacher(to_memory_format(build_network("unet", 6), torch.channels_last))
    seconds = 0.0
    for side in (2, 1):
        began = time.perf_counter()
        cache = LogitCache(chosen.work / "logits", "teacher", bits=8, stride=side)
        cache.fill(whole_images(pairs), teacher, torch.device("cpu"))
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds}))


def ours(chosen: argparse.Namespace) -> None:
    """Run one way of SkyStill with the objects that `skystill distill` and `skystill cache` use, and print JSON."""
    import torch
    from lightning_fabric import Fabric

    from skystill.allocator import keep_freed_memory
    from skystill.model.measure import peak_rss_bytes
    from skystill.train.batches.batches import CropSampler, TrainBatches
    from skystill.train.batches.images import labeled_images
    from skystill.train.fitting import choose_precision
    from skystill.train.loop.distiller import Distiller
    from skystill.train.networks.table import build_network, count_parameters
    from skystill.train.teachers.logit_cache import LogitCache

    keep_freed_memory()  # as the commands do
    torch.manual_seed(0)
    classes, pairs = sampled(chosen.data)
    stride = STRIDES.get(chosen.way, 1)
    cache = LogitCache(chosen.work / "logits", "teacher", bits=8, stride=stride)
    student = build_network(STUDENTS.get(chosen.way, "two-level"), 6)
    teacher = build_network("unet", 6) if chosen.way == "b" else None
    fabric = Fabric(accelerator="cpu", devices=1, precision=choose_precision(chosen.precision))  # type: ignore[arg-type]
    distiller = Distiller(student, teacher, fabric)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3, fused=True)
    distiller.compile(optimizer, alpha=0.1, temperature=10.0, metrics={}, stride=stride)
    distiller.stepper.plan(chosen.steps + WARM_UP, "one-cycle", 0.0)
    sampler = CropSampler(labeled_images(pairs, classes), 256, 0.2, [] if teacher else [cache], stride=stride)
    batches = TrainBatches(sampler, chosen.batch, seed=0)
    batches.steps_per_epoch = chosen.steps + WARM_UP
    began = 0.0
    for step, batch in enumerate(batches.epoch(0)):
        if step == WARM_UP:
            began = time.perf_counter()
        distiller.train_step(batch)
    seconds = time.perf_counter() - began
    found = {"images_per_second": chosen.steps * chosen.batch / seconds, "peak_bytes": peak_rss_bytes()}
    found |= {"student": count_parameters(student), "teacher": count_parameters(teacher) if teacher else 0}
    print(json.dumps(found))


def report(ways: list[str], rounds: list[dict[str, dict[str, float]]]) -> None:
    """Print the table, ready for docs/results/keras.md."""

    def ratios(way: str, key: str) -> str:
        each = sorted(one[way][key] / one[ways[0]][key] for one in rounds)
        return f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"

    print(f"| way | student | images/s | of ({ways[0]}) | peak memory, MB | of ({ways[0]}) |")
    print("|---|---:|---:|---:|---:|---:|")
    for way in ways:
        speed = statistics.median(one[way]["images_per_second"] for one in rounds)
        memory = statistics.median(one[way]["peak_bytes"] for one in rounds) / 1e6
        cells = [f"{rounds[0][way]['student']:,.0f}", f"{speed:.1f}", ratios(way, "images_per_second")]
        print(f"| ({way}) {WAYS[way]} | {' | '.join(cells)} | {memory:.0f} | {ratios(way, 'peak_bytes')} |")


if __name__ == "__main__":
    main()

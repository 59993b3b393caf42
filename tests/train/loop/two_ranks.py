"""Run by test_ranks.py under torchrun: eight steps of a distillation, the losses of each written by the first rank."""

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from skystill.data import find_pairs
from skystill.data.scenes import SCENE_CLASSES
from skystill.errors import RanksDiffer
from skystill.train.alike import check_alike
from skystill.train.batches.batches import Batch, CropSampler, TrainBatches, WholeImages
from skystill.train.batches.images import labeled_images
from skystill.train.batches.mixing import Mixing
from skystill.train.loop.distiller import Distiller, FeatureTerm
from skystill.train.loop.machines import from_first_rank, notice_lost_machines
from skystill.train.loop.ranks import leave_process_group
from skystill.train.losses.on_features import FEATURE_LOSSES, FeatureHook
from skystill.train.losses.on_labels import STUDENT_LOSSES
from skystill.train.losses.on_logits import DISTILLATION_LOSSES
from skystill.train.networks.table import build_network

STEPS = 8


def check_machines(fabric: Fabric) -> None:
    """Try what several machines need, on the connections that are there."""
    notice_lost_machines()
    others = [one for one in psutil.Process().net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
    assert others
    for one in others:
        with socket.fromfd(one.fd, one.family, one.type) as connection:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000

    rank = fabric.global_rank
    for content in (b"", bytes(range(256)) * 300):
        assert from_first_rank(fabric, content if rank == 0 else b"of another disk") == content

    check_alike(fabric, {"--seed": "1", "the images": "6 files"})
    try:
        check_alike(fabric, {"--seed": "1", "the images": f"{6 - rank} files", "--crop": str(32 + rank)})
    except RanksDiffer as error:
        assert "rank 1 has other settings or data than rank 0" in str(error), error
        assert f"has the images: {6 - rank} files; --crop: {32 + rank}. Give" in str(error), error
    else:
        raise AssertionError("the ranks differ")


def mixed_by_ranks(batch: Batch, key: tuple[int, int, int], places: Sequence[int]) -> Batch:
    """Mix the crops of each of two ranks, also in one process: mixup in the first step, CutMix in the second."""
    if key[2] > 1:
        return batch
    mix = Mixing("cutmix" if key[2] else "mixup", 0.7)
    if len(places) == 2:
        return mix(batch, key, places)
    halves = []
    for rank in range(2):
        here = slice(2 * rank, 2 * rank + 2)
        images, labels, valid, distill = (
            part[here] for part in (batch.images, batch.labels, batch.valid, batch.distill_valid)
        )
        halves.append(mix(Batch(images, images, labels, valid, distill), key, places[here]))
    images, labels, valid, distill = (
        torch.cat([getattr(half, name) for half in halves]) for name in ("images", "labels", "valid", "distill_valid")
    )
    seconds = [half.second_labels for half in halves if half.second_labels is not None]
    second, weight = torch.cat(seconds) if seconds else None, halves[0].first_weight
    return Batch(images, images, labels, valid, distill, second_labels=second, first_weight=weight)


def main(scenes: Path, out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = build_network("kite?channels=(8,12)&blocks=(1,1)", 6)
    teacher = build_network("kite?channels=(8,20)&blocks=(1,1)", 6)
    projection = FEATURE_LOSSES["fitnet"](12, 20)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    fabric = Fabric(accelerator="cpu", devices=ranks, strategy=DDPStrategy() if ranks > 1 else "auto")
    if ranks > 1:
        fabric.launch()
        check_machines(fabric)
    distiller = Distiller(student, teacher, fabric)
    hooks = FeatureHook(student, None, "student"), FeatureHook(distiller.teachers[0].network, None, "teacher")
    distiller.compile(
        # A gradient that is zero up to rounding would move its weight by a whole step, in a random direction, with the
        # default eps of 1e-8: a weight whose channel is dead. Then curves part that have the same gradients.
        torch.optim.AdamW(student.parameters(), lr=2e-3, eps=1e-5),
        student_loss=STUDENT_LOSSES["ce+dice"](),
        distillation_loss={
            "kl": (1.0, DISTILLATION_LOSSES["kl"](2.0)),
            "dist": (0.5, DISTILLATION_LOSSES["dist"](2.0)),
        },
        alpha=0.5,
        temperature=2.0,
        features=[FeatureTerm("fitnet", 0.1, projection, *hooks)],
    )
    distiller.stepper.plan(STEPS, "one-cycle", 0.9)
    pairs = find_pairs(scenes).pairs
    sampler = CropSampler(labeled_images(pairs[:4], SCENE_CLASSES), 64, 0.2, [])
    batches = TrainBatches(sampler, 4, seed=1, rank_of=(fabric.global_rank, fabric.world_size))
    batches.mix = mixed_by_ranks
    rows = []
    for step in range(STEPS):
        distiller.meter.reset()
        rows.append(distiller.train_step(batches.batch(0, step)))
    held_out = WholeImages(labeled_images(pairs[4:7], SCENE_CLASSES), rank=fabric.global_rank, ranks=fabric.world_size)
    rows.append(distiller.evaluate(held_out))
    if fabric.is_global_zero:
        out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    leave_process_group()

"""Several processes as one: the same global batch gives the same losses, whatever the number of ranks.

Each rank runs the networks on its part of the batch, gathers the others' logits, and computes the loss of the whole
batch; gradients flow through its own part only, and their sum over the ranks is that of one process. So every loss is
right, also one that is no mean over pixels.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch import Tensor, nn

from skystill.errors import RankLost

_OF_RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def gather_ranks(fabric: Fabric, part: Tensor) -> Tensor:
    """The parts of all ranks along the first axis; gradients reach this rank's own part."""
    if fabric.world_size == 1:
        return part
    parts = list(fabric.all_gather(part.detach()))
    parts[fabric.global_rank] = part
    return torch.cat(parts)


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - torch's own type of it is not public
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _over_ranks(values: Tensor) -> Tensor:
    """The sum over ranks; its gradient is the sum of the ranks' gradients."""
    total: Tensor = _SumOverRanks.apply(values)  # type: ignore[no-untyped-call]
    return total


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the batches of all ranks, on every device; torch's SyncBatchNorm wants a GPU."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(features)
        values = features.float()
        count = _over_ranks(values.new_tensor(values.numel() / values.shape[1])).item()
        mean = _over_ranks(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _over_ranks(centred.square().sum(dim=(0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return (scaled * self.weight[:, None, None] + self.bias[:, None, None]).to(features.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def use_global_batch_norm(network: nn.Module) -> None:
    """Turn every BatchNorm2d of a network into a `GlobalBatchNorm`, in place, weights and names as they are."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            # It adds no state: weights, buffers and the optimiser's hold on them stay.
            module.__class__ = GlobalBatchNorm


@contextmanager
def name_lost_ranks(fabric: Fabric) -> Iterator[None]:
    """Turn the many errors of a connection that broke into one that says so.

    Raises:
        RankLost: another rank is gone.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error).lower()
        if fabric.world_size > 1 and (isinstance(error, dist.DistError) or "gloo" in said or "nccl" in said):
            raise RankLost(fabric.global_rank, fabric.world_size) from error
        raise


def leave_process_group() -> None:
    """Leave the group, once all that trained in it is out of reach.

    A thread of gloo lets go of the last tensors a moment after it has answered, and needs the GIL for it; whoever
    ends the group waits for that thread. A process that just ends takes the GIL away from it and aborts, and torch's
    `DistributedDataParallel`, where it is the last to hold the group, ends it with the GIL in hand: it waits for ever.
    `destroy_process_group` gives the GIL away first, and so must come last.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def launched() -> bool:
    """Whether this process is one of several that torchrun or SLURM started."""
    return "RANK" in os.environ or SLURMEnvironment.detect()


def rank_and_count() -> tuple[int, int]:
    """This process's rank and how many there are, as torchrun or SLURM says; (0, 1) where there is one."""
    if not launched():
        return 0, 1
    get = os.environ.get
    return int(get("RANK") or get("SLURM_PROCID") or 0), int(get("WORLD_SIZE") or get("SLURM_NTASKS") or 1)


def environment_of_one() -> dict[str, str]:
    """The environment for a process of its own beside a rank, on the rank's own GPU."""
    inherited = {
        k: v for k, v in os.environ.items() if k not in _OF_RANKS and not k.startswith(("TORCHELASTIC", "SLURM"))
    }
    local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID")
    if local and torch.cuda.device_count() > 1 and "CUDA_VISIBLE_DEVICES" not in inherited:
        inherited["CUDA_VISIBLE_DEVICES"] = local
    return inherited

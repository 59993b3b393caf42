"""Training on several ranks: the same global batch gives the same losses, whatever the number of ranks.

Each rank runs the networks on its part of the batch. It gathers the logits of the other ranks and computes the loss of
the whole batch. Gradients flow through its own part only, and their sum over the ranks is the gradient of one process.
Every loss is therefore right, also a loss that is not a mean over pixels.

Two functions here have a counterpart in `torch.distributed.nn.functional`. They are kept, because torch 2.13 deprecates
both counterparts (a FutureWarning in each call) in favour of a private module. `all_reduce` is equal to
`_sum_over_ranks` to the bit. `all_gather` is not equal to `gather_ranks`: its backward pass sums the gradients of all
ranks. All ranks compute the same loss, so that the gradient would be multiplied by the number of ranks once too often,
at the cost of one more exchange of tensors as large as all logits.
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

from skystill.errors import RankLost, SettingsError

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def gather_ranks(fabric: Fabric, part: Tensor) -> Tensor:
    """Concatenate the parts of all ranks along the first axis. Gradients flow to the part of this rank only.

    Args:
        fabric: the ranks.
        part: (N, ...) of this rank; all ranks give the same shape.
    """
    if fabric.world_size == 1:
        return part
    parts = list(fabric.all_gather(part.detach()))
    parts[fabric.global_rank] = part
    return torch.cat(parts)


class _SumOverRanks(torch.autograd.Function):
    """The sum over ranks. The gradient is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - the type that torch uses is not public
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum_over_ranks(values: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(values)  # type: ignore[no-untyped-call]
    return total


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm with the statistics of the batches of all ranks. It runs on every device; SyncBatchNorm needs a GPU."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(features)
        values = features.float()
        count = _sum_over_ranks(values.new_tensor(values.numel() / values.shape[1])).item()
        mean = _sum_over_ranks(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _sum_over_ranks(centred.square().sum(dim=(0, 2, 3))) / count
        self._update_running_statistics(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return (scaled * self.weight[:, None, None] + self.bias[:, None, None]).to(features.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def use_global_batch_norm(network: nn.Module) -> None:
    """Turn every BatchNorm2d of a network into a `GlobalBatchNorm`, in place. Weights and names stay the same."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            # The class adds no state, so that weights and buffers stay the objects that the optimiser holds.
            module.__class__ = GlobalBatchNorm


@contextmanager
def name_lost_ranks(fabric: Fabric) -> Iterator[None]:
    """Turn the many errors of a broken connection between ranks into one clear error.

    Raises:
        RankLost: another rank was lost.
    """
    try:
        yield
    except RuntimeError as error:
        message = str(error).lower()
        if fabric.world_size > 1 and (isinstance(error, dist.DistError) or "gloo" in message or "nccl" in message):
            raise RankLost(fabric.global_rank, fabric.world_size) from error
        raise


def leave_process_group() -> None:
    """Leave the process group, after nothing that trained in it can be reached any more.

    A thread of gloo releases the last tensors a moment after it has answered, and needs the GIL for this. Whoever ends
    the group waits for this thread. A process that just ends takes the GIL away from the thread, and aborts. torch's
    `DistributedDataParallel`, if it is the last to hold the group, ends the group while it holds the GIL, and waits for
    ever. `destroy_process_group` releases the GIL first. It must therefore come last.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def launched() -> bool:
    """Whether torchrun or SLURM started this process as one of several ranks."""
    return "RANK" in os.environ or SLURMEnvironment.detect()


def rank_and_count() -> tuple[int, int]:
    """The rank of this process and the number of ranks, from torchrun or SLURM. A single process is (0, 1)."""
    if not launched():
        return 0, 1
    get = os.environ.get
    return int(get("RANK") or get("SLURM_PROCID") or 0), int(get("WORLD_SIZE") or get("SLURM_NTASKS") or 1)


def check_launched(devices: int, nodes: int) -> None:
    """Compare the processes that torchrun or SLURM started with the settings.

    Raises:
        SettingsError: they are not as many. Processes that do not know of each other would all train the same.
    """
    ranks, get = rank_and_count()[1], os.environ.get
    here = int(get("LOCAL_WORLD_SIZE") or devices)
    if launched() and (ranks, here) != (devices * nodes, devices):
        raise SettingsError(
            f"--devices {devices} --nodes {nodes} are {devices * nodes} process(es), {devices} on each machine; "
            f"{ranks} were started, {here} of them on this machine. Give --devices {here} --nodes "
            f"{max(1, ranks // here)}, or start others (torchrun --nnodes, --nproc-per-node; srun --ntasks)."
        )


def environment_of_one() -> dict[str, str]:
    """The environment for a separate process that a rank starts. It is not a rank, and uses the same GPU."""
    inherited = {
        k: v for k, v in os.environ.items() if k not in _RANK_VARIABLES and not k.startswith(("TORCHELASTIC", "SLURM"))
    }
    local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID")
    if local and torch.cuda.device_count() > 1 and "CUDA_VISIBLE_DEVICES" not in inherited:
        inherited["CUDA_VISIBLE_DEVICES"] = local
    return inherited

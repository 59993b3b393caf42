"""The optimiser steps of a training: schedule, backward pass, clipping, step, moving average of the weights."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from skystill.errors import LossNotFinite, SettingsError
from skystill.train.loop.ranks import use_global_batch_norm
from skystill.train.networks.blocks import to_memory_format
from skystill.train.networks.depthwise import make_depthwise_fast
from skystill.train.networks.stochastic_depth import set_draws

SCHEDULES = ("one-cycle", "cosine", "constant")
_CLIP = 1.0  # Largest norm of the gradient. It limits how far a bad batch early in a one-cycle run moves the weights.


class Stepper:
    """Makes the optimiser steps: schedule, backward pass, clipping, step, moving average of the weights.

    Args:
        fabric: devices and precision.
        network: the network that is trained.
        optimizer: optimiser over the weights of this network. Its learning rates are the peaks of the schedule.
    """

    def __init__(self, fabric: Fabric, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.fabric = fabric
        self.plain_network = network
        if fabric.world_size > 1:
            use_global_batch_norm(network)
        make_depthwise_fast(network)
        self._beside: list[nn.Module] = []
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]
        # Convolutions on a CPU are up to twice as fast in the channels-last layout (docs/design.md).
        wrapped: Any = fabric.setup(to_memory_format(network, torch.channels_last), optimizer)
        self.network, self.optimizer = wrapped
        self.steps, self.total = 0, 0
        self.seed = torch.initial_seed()
        self.schedule = "constant"
        self.decay = 0.0
        self.average: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}

    def learn_beside(self, module: nn.Module) -> None:
        """Let the weights of a loss learn beside the network. Every rank must compute the same gradients for them.

        Args:
            module: the loss. A module without weights is allowed, and changes nothing.
        """
        own = list(module.parameters())
        if own:
            self._beside.append(module)
            self.peaks.append(self.peaks[0])
            self.optimizer.add_param_group({"params": own})

    def plan(self, total: int, schedule: str, decay: float) -> None:
        """Set the number of steps, the schedule of the learning rate and the moving average, and start at step 0.

        Args:
            total: number of steps.
            schedule: a name of `SCHEDULES`.
            decay: decay of the moving average, 0 to below 1; 0 for no average.

        Raises:
            SettingsError: there is no such schedule, or the decay is outside its range.
        """
        if schedule not in SCHEDULES:
            raise SettingsError(f"no schedule is called {schedule!r}; there are {', '.join(SCHEDULES)}.")
        if not 0 <= decay < 1:
            raise SettingsError(f"the moving average's decay is {decay:g}; it must be in 0..1, without 1.")
        self.steps, self.total, self.schedule, self.decay = 0, total, schedule, decay
        self.average = _copy(self.plain_network.state_dict()) if decay else {}
        self.kept = {}

    def forward(self, images: Tensor) -> Tensor:
        """The logits (N, C, H, W) of the network. One rank needs the precision of Fabric, but not its wrapper."""
        set_draws(self.plain_network, self.seed, self.steps, self.fabric.global_rank, self.fabric.world_size)
        if self.fabric.world_size > 1:
            logits: Tensor = self.network(images)
            return logits
        with self.fabric.autocast():
            logits = self.plain_network(images)
        return logits

    def step(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Make one optimiser step on `losses["loss"]`.

        Returns:
            the losses as numbers.

        Raises:
            LossNotFinite: the loss is NaN or infinite. The weights were not changed.
        """
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(values["loss"]):
            raise LossNotFinite(self.steps + 1, values, None)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = learning_rate(self.schedule, peak, self.steps, self.total)
        self.optimizer.zero_grad()
        ranks = self.fabric.world_size
        # Fabric averages the gradients over the ranks. Each rank has those of its own part, so they must be summed.
        self.fabric.backward(losses["loss"] * ranks)
        for module in self._beside:  # Every rank has the whole gradient of these weights, multiplied in the line above.
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.grad /= ranks
        torch.nn.utils.clip_grad_norm_(self.plain_network.parameters(), _CLIP)
        self.optimizer.step()
        self.steps += 1
        self._update_average()
        return values

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network the averaged weights inside the context, if there is an average."""
        own = _copy(self.plain_network.state_dict()) if self.average else {}
        if own:
            self.plain_network.load_state_dict(self.average)
        try:
            yield
        finally:
            if own:
                self.plain_network.load_state_dict(own)

    def keep(self) -> None:
        """Keep a copy of the weights that the network has now: those of the best epoch so far."""
        self.kept = _copy(self.plain_network.state_dict())

    def take_result(self) -> None:
        """Give the network the kept weights at the end of training, or else the averaged ones, if there are any."""
        if result := self.kept or self.average:
            self.plain_network.load_state_dict(result)

    @torch.no_grad()
    def _update_average(self) -> None:
        # The average covers at most the last ninth of the steps so far (Shamir, Zhang 2013, arXiv 1212.1824: averaging
        # with polynomial decay). Otherwise it would contain the random start for thousands of steps.
        # `torch.optim.swa_utils.AveragedModel` with an `avg_fn` of ours gives the same bits in as many lines. It is not
        # used, because it copies the network with `copy.deepcopy`, which fails while the hook of a feature loss holds
        # the features of an interrupted step, and because an update takes 1.4 instead of 0.5 ms (swift, one core).
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self.plain_network.state_dict().items():
            if name in self.average and value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            elif name in self.average:
                self.average[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs to resume."""
        kept = {"kept": self.kept} if self.kept else {}
        return kept | {
            "steps": self.steps,
            "seed": self.seed,
            "network": self.plain_network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "beside": [module.state_dict() for module in self._beside],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.plain_network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for module, own in zip(self._beside, state["beside"], strict=True):
            module.load_state_dict(own)
        self.average = _copy(state["average"])
        self.kept = _copy(state.get("kept", {}))
        self.steps = int(state["steps"])
        self.seed = int(state.get("seed", self.seed))  # checkpoints of earlier versions hold none, and draw nothing


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def learning_rate(schedule: str, peak: float, step: int, total: int) -> float:
    """The learning rate of a step. It is a pure function, so that a checkpoint does not need to store it.

    - one-cycle: up from peak/25 to the peak in the first fifth of the steps, then down to peak/10^4, each along half a
      cosine (Smith 2017, arXiv 1708.07120).
    - cosine: down from the peak to 0 along half a cosine (Loshchilov 2016, arXiv 1608.03983).
    - constant: the peak.

    Args:
        schedule: a name of `SCHEDULES`.
        peak: the largest learning rate.
        step: number of the step, from 0.
        total: number of steps.
    """
    if schedule == "constant" or total <= 1:
        return peak
    done = min(step / (total - 1), 1.0)
    if schedule == "cosine":
        return _along_cosine(peak, 0.0, done)
    rise = 0.2
    return (
        _along_cosine(peak / 25, peak, done / rise)
        if done < rise
        else _along_cosine(peak, peak / 1e4, (done - rise) / (1 - rise))
    )


def _along_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2

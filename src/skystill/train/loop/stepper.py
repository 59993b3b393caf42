"""One optimiser step after another: schedule, backward pass, clipping, step, moving average."""

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

SCHEDULES = ("one-cycle", "cosine", "constant")
_CLIP = 1.0  # norm of the gradient; a bad batch early in a one-cycle run moves the weights by no more than this


class Stepper:
    """One optimiser step after another: schedule, backward, clip, step, moving average.

    Args:
        fabric: devices and precision.
        network: what is trained; all its weights.
        optimizer: over this network's weights; its learning rates are the peaks of the schedule.
    """

    def __init__(self, fabric: Fabric, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.fabric = fabric
        self.plain_network = network
        if fabric.world_size > 1:
            use_global_batch_norm(network)
        self._beside: list[nn.Module] = []
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]
        # channels_last: convolutions on a CPU are up to twice as fast in it (docs/design.md)
        wrapped: Any = fabric.setup(to_memory_format(network, torch.channels_last), optimizer)
        self.network, self.optimizer = wrapped
        self.steps, self.total = 0, 0
        self.schedule = "constant"
        self.decay = 0.0
        self.average: dict[str, Tensor] = {}

    def learn_beside(self, module: nn.Module) -> None:
        """Let weights that belong to a loss learn with the network; they are computed alike on every rank."""
        own = list(module.parameters())
        if own:
            self._beside.append(module)
            self.peaks.append(self.peaks[0])
            self.optimizer.add_param_group({"params": own})

    def plan(self, total: int, schedule: str, decay: float) -> None:
        """Say how many steps there will be, how the learning rate goes, and the decay of the moving average (0: none).

        Raises:
            SettingsError: no such schedule, or a decay outside 0..1.
        """
        if schedule not in SCHEDULES:
            raise SettingsError(f"no schedule is called {schedule!r}; there are {', '.join(SCHEDULES)}.")
        if not 0 <= decay < 1:
            raise SettingsError(f"the moving average's decay is {decay:g}; it must be in 0..1, without 1.")
        self.steps, self.total, self.schedule, self.decay = 0, total, schedule, decay
        self.average = _copy(self.plain_network.state_dict()) if decay else {}

    def forward(self, images: Tensor) -> Tensor:
        """The network's logits (N, C, H, W). One process alone needs no wrapper around it, only its precision."""
        if self.fabric.world_size > 1:
            logits: Tensor = self.network(images)
            return logits
        with self.fabric.autocast():
            logits = self.plain_network(images)
        return logits

    def step(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Move the weights once down the gradient of `losses["loss"]`.

        Returns:
            the losses as numbers.

        Raises:
            LossNotFinite: the loss is NaN or infinite; the weights were not moved.
        """
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(values["loss"]):
            raise LossNotFinite(self.steps + 1, values, None)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = learning_rate(self.schedule, peak, self.steps, self.total)
        self.optimizer.zero_grad()
        ranks = self.fabric.world_size
        self.fabric.backward(losses["loss"] * ranks)  # Fabric takes the mean over ranks; their parts must be summed
        for module in self._beside:
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
        """Inside, the network has the averaged weights, where an average is kept."""
        own = _copy(self.plain_network.state_dict()) if self.average else {}
        if own:
            self.plain_network.load_state_dict(self.average)
        try:
            yield
        finally:
            if own:
                self.plain_network.load_state_dict(own)

    def take_average(self) -> None:
        """Give the network the averaged weights for good: the end of training."""
        if self.average:
            self.plain_network.load_state_dict(self.average)

    @torch.no_grad()
    def _update_average(self) -> None:
        # It looks back over the last ninth of the steps so far at most (Shamir, Zhang 2013, arXiv 1212.1824: averaging
        # with polynomial decay), or it would remember the random start for thousands of steps.
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self.plain_network.state_dict().items():
            if name in self.average and value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            elif name in self.average:
                self.average[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "steps": self.steps,
            "network": self.plain_network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "beside": [module.state_dict() for module in self._beside],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.plain_network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for module, own in zip(self._beside, state["beside"], strict=True):
            module.load_state_dict(own)
        self.average = _copy(state["average"])
        self.steps = int(state["steps"])


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def learning_rate(schedule: str, peak: float, step: int, total: int) -> float:
    """Learning rate at a step, a pure function, so that a checkpoint need not hold it.

    one-cycle: from peak/25 up to the peak in the first fifth, then down to peak/10^4, both as half a cosine (Smith
    2017, arXiv 1708.07120). cosine: from the peak down to 0 (Loshchilov 2016, arXiv 1608.03983). constant: the peak.
    """
    if schedule == "constant" or total <= 1:
        return peak
    done = min(step / (total - 1), 1.0)
    if schedule == "cosine":
        return _between(peak, 0.0, done)
    rise = 0.2
    return (
        _between(peak / 25, peak, done / rise)
        if done < rise
        else _between(peak, peak / 1e4, (done - rise) / (1 - rise))
    )


def _between(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2

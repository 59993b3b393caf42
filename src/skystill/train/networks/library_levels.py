"""The levels of an encoder of another library: which of its modules run before each of the features that it returns."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Encoding:
    """What one forward pass of an encoder shows.

    Args:
        features: the features that it returns, the finest first, without the images themselves and empty ones.
        levels: for each level of the encoder the paths of its modules. An encoder whose levels cannot be told apart is
            one level, with the empty path.
        readers: paths of the layers with weights that are fed the images themselves. Most encoders have one; those that
            add branches have several.
    """

    features: tuple[Tensor, ...]
    levels: tuple[tuple[str, ...], ...]
    readers: tuple[str, ...]


@torch.no_grad()
def watch_encoder(encoder: nn.Module, images: Tensor) -> Encoding:
    """Run an encoder once, and find its levels.

    A module belongs to the first level whose features are made after it has started. Then everything that a level
    depends on is in this level or in a finer one, so that frozen levels never change. An activation that works in place
    returns the features that were made before it, and counts for the next level, where it has nothing to learn.

    Args:
        encoder: images to a list of features. It is left in eval mode.
        images: (N, B, H, W) float.
    """
    names = {module: name for name, module in encoder.named_modules() if _has_own(module) or not any(module.children())}
    watched = _Watch({module: [] for module in names})
    handles = [module.register_forward_pre_hook(watched.begin) for module in encoder.modules()]
    handles += [module.register_forward_hook(watched.end) for module in encoder.modules()]
    try:
        features = tuple(one for one in encoder.eval()(images) if one is not images and one.numel())
    finally:
        for handle in handles:
            handle.remove()
    started = watched.started
    ends = [watched.ends.get(id(one), 0) for one in features]
    levels = _by_level(encoder, names, started, ends)
    readers = tuple(
        names[module] for module in watched.fed(images) if any(True for _ in module.parameters(recurse=False))
    )
    return Encoding(features, levels or (("",),), readers)


class _Watch:
    """Hooks that count the modules that start, and note after how many of them each tensor was finished.

    Args:
        started: for each module that is counted an empty list, which gets its places in this order.
    """

    def __init__(self, started: dict[nn.Module, list[int]]) -> None:
        self.started = started
        self.ends: dict[int, int] = {}
        """By the id of a tensor: how many of the counted modules had started when it was finished."""
        self._count, self._calls = 0, 0
        self._open: list[int] = []
        self._fed: list[tuple[nn.Module, object]] = []
        self._made: dict[int, tuple[Tensor, int]] = {}  # holds the tensor, so that no other gets its id

    def begin(self, module: nn.Module, given: object) -> None:
        """Count a module that starts."""
        self._open.append(self._calls)
        self._calls += 1
        if module in self.started:
            self.started[module].append(self._count)
            self._count += 1
            self._fed.append((module, given))

    def fed(self, images: Tensor) -> list[nn.Module]:
        """Return the counted modules that were given the images themselves."""
        found = [module for module, given in self._fed if isinstance(given, tuple) and given and given[0] is images]
        return list(dict.fromkeys(found))

    def end(self, module: nn.Module, given: object, output: object) -> None:
        """Note the output of a module.

        A residual block adds to the output of one of its layers in place, and returns it: it is finished when the block
        ends, which started before it was made. A module that starts later and returns it as it is does not count.
        """
        start = self._open.pop()
        if isinstance(output, Tensor):
            _, made = self._made.setdefault(id(output), (output, self._calls))
            if start < made:
                self.ends[id(output)] = self._count


def _has_own(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))


def _by_level(
    encoder: nn.Module, names: dict[nn.Module, str], started: dict[nn.Module, list[int]], ends: Sequence[int]
) -> tuple[tuple[str, ...], ...] | None:
    """The paths of the modules of each level, or None if the levels cannot be told apart."""
    if not ends or not all(before < after for before, after in pairwise([0, *ends])):
        return None
    last = len(ends) - 1
    of_module: dict[nn.Module, int] = {}
    for module in names:
        found = {min(bisect_right(ends, place), last) for place in started[module]} or {last}
        if len(found) > 1 and _has_own(module):
            return None  # it runs in two levels
        of_module[module] = min(found)
    owners = {module: level for module, level in of_module.items() if _has_own(module)}
    if any(owners.get(part, level) != level for module, level in owners.items() for part in module.modules()):
        return None  # a module with weights of its own reaches over two levels
    return tuple(
        tuple(names[module] for module, level in of_module.items() if level == number) for number in range(last + 1)
    )

"""`Leveled`: the base of networks whose encoder has levels, the first of which can be frozen."""

from torch import nn

from skystill.errors import SettingsError
from skystill.train.networks.contract import MARGIN


class Leveled(nn.Module):
    """A network with an encoder of levels, each at half of the resolution of the level before.

    Frozen levels do not learn: their weights get no gradients, and they stay in eval mode, so that the running
    statistics of their BatchNorms do not move either.
    """

    levels: nn.ModuleList
    """The levels of the encoder, the finest first."""
    frozen = 0
    """The number of frozen levels, from the finest on."""
    margin = MARGIN
    """Pixels of context around the core of a tile that hold 99 % of the field; see `contract.Network`."""
    library = ""
    """The library whose layers the network is made of; empty for layers of torch, as `contract.Network` describes."""
    notes: tuple[str, ...] = ()
    """What the user should know about the weights that it begins with, one sentence or more each."""

    def freeze(self, count: int, name: str) -> None:
        """Freeze the first levels of the encoder for good.

        Args:
            count: number of levels; 0 changes nothing.
            name: of the network, for the message.

        Raises:
            SettingsError: the encoder has fewer levels.
        """
        if count > len(self.levels):
            raise SettingsError(
                f"--freeze {count}: the encoder of {name} has {len(self.levels)} levels. Freeze 0 to "
                f"{len(self.levels)} of them, counted from the finest."
            )
        self.frozen = count
        for level in self.levels[:count]:
            level.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Leveled":
        """Switch between training and eval mode. Frozen levels stay in eval mode."""
        super().train(mode)
        for level in self.levels[: self.frozen]:
            level.eval()
        return self


def as_leveled(network: nn.Module) -> Leveled:
    """Return a network of the table as the class that its encoder makes it."""
    assert isinstance(network, Leveled), "every network of the table is"
    return network

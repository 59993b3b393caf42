"""The training half: everything that needs torch. Install it with `pip install "skystill[train]"`."""

from skystill.train.loop.distiller import Distiller
from skystill.train.loop.supervised import Supervised

__all__ = ["Distiller", "Supervised"]

"""Everything that needs torch: training, distillation, compression. Install with `pip install "skystill[train]"`."""

from skystill.train.loop.distiller import Distiller
from skystill.train.loop.supervised import Supervised

__all__ = ["Distiller", "Supervised"]

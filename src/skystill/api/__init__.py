"""What each command does from beginning to end, as a Python function.

    from skystill.api import distill, predict, train

    teacher = train(data="photos", out="runs/teacher")
    student = distill(data="photos", teacher=[str(teacher.path)], out="runs/student")
    predict(inputs=["ortho.tif"], model=student.model, out="classes.tif")

Every function takes the settings of its command (`skystill.settings`) or the same values as keywords, and returns what
it made. It raises errors of `skystill.errors`, and reports to `on_progress` (see `skystill.progress`). torch is
imported inside the functions that need it, so `import skystill.api` costs nothing.
"""

from skystill.api.running import check, evaluate, export, measure, predict, quantize
from skystill.api.training import cache, demo, distill, prune, train, tune

__all__ = [
    "cache",
    "check",
    "demo",
    "distill",
    "evaluate",
    "export",
    "measure",
    "predict",
    "prune",
    "quantize",
    "train",
    "tune",
]

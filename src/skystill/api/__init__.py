"""The commands as Python functions. Each function does all that its command does.

    from skystill.api import distill, predict, train

    teacher = train(data="photos", out="runs/teacher")
    student = distill(data="photos", teacher=teacher.path, out="runs/student")
    predict(inputs="ortho.tif", model=student.model, out="classes.tif")

Every function takes the settings of its command (`skystill.settings`), or the same values as keyword arguments, and
returns the result. It raises exceptions of `skystill.errors` and reports to `on_progress` (see `skystill.progress`).
torch is imported only inside the functions that need it, so `import skystill.api` is fast.
"""

from skystill.api.running import (
    check,
    count_ahead,
    evaluate,
    export,
    measure,
    predict,
    predict_each,
    quantize,
    serve,
    status,
)
from skystill.api.training import cache, demo, distill, pretrain, prune, train, tune

__all__ = [
    "cache",
    "check",
    "count_ahead",
    "demo",
    "distill",
    "evaluate",
    "export",
    "measure",
    "predict",
    "predict_each",
    "pretrain",
    "prune",
    "quantize",
    "serve",
    "status",
    "train",
    "tune",
]

"""One frozen model per command. A field's docstring is its help, and `config.yaml` is the model written down."""

from skystill.settings.base import ByteSize, Settings, build_settings, parse_bytes, with_current_names
from skystill.settings.running import (
    EvaluateSettings,
    ExportSettings,
    MeasureSettings,
    PredictSettings,
    QuantizeSettings,
    RasterSettings,
)
from skystill.settings.training import (
    BudgetSettings,
    CacheSettings,
    DemoSettings,
    DistillSettings,
    FitSettings,
    LearnSettings,
    Precision,
    PruneSettings,
    Schedule,
    StudentLossName,
    TeacherSettings,
    TrainSettings,
    TuneSettings,
)

__all__ = [
    "BudgetSettings",
    "ByteSize",
    "CacheSettings",
    "DemoSettings",
    "DistillSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FitSettings",
    "LearnSettings",
    "MeasureSettings",
    "Precision",
    "PredictSettings",
    "PruneSettings",
    "QuantizeSettings",
    "RasterSettings",
    "Schedule",
    "Settings",
    "StudentLossName",
    "TeacherSettings",
    "TrainSettings",
    "TuneSettings",
    "build_settings",
    "parse_bytes",
    "with_current_names",
]

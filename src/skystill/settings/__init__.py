"""One immutable pydantic model per command.

The docstring of a field is the help text of its command-line option. `config.yaml` in a run folder holds the fields of
one model.
"""

from skystill.settings.amounts import split_amount
from skystill.settings.base import (
    FROM_DATA,
    TRUST,
    Settings,
    build_settings,
    run_settings,
    settings_from,
    size_in_bytes,
    with_current_names,
)
from skystill.settings.class_weights import AUTO, parse_weights
from skystill.settings.cluster import ClusterSettings, StatusSettings
from skystill.settings.fitting import LOGGERS, FitSettings, Precision, Schedule, StudentLossName
from skystill.settings.running import (
    ArraySettings,
    CheckSettings,
    EvaluateSettings,
    ExportSettings,
    MeasureSettings,
    PredictSettings,
    QuantizeSettings,
    RasterSettings,
)
from skystill.settings.serving import ServeSettings
from skystill.settings.training import (
    BudgetSettings,
    CacheSettings,
    DemoSettings,
    DistillSettings,
    LearnSettings,
    PretrainSettings,
    PruneSettings,
    TeacherSettings,
    TrainSettings,
    TuneSettings,
)

__all__ = [
    "AUTO",
    "FROM_DATA",
    "LOGGERS",
    "TRUST",
    "ArraySettings",
    "BudgetSettings",
    "CacheSettings",
    "CheckSettings",
    "ClusterSettings",
    "DemoSettings",
    "DistillSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FitSettings",
    "LearnSettings",
    "MeasureSettings",
    "Precision",
    "PredictSettings",
    "PretrainSettings",
    "PruneSettings",
    "QuantizeSettings",
    "RasterSettings",
    "Schedule",
    "ServeSettings",
    "Settings",
    "StatusSettings",
    "StudentLossName",
    "TeacherSettings",
    "TrainSettings",
    "TuneSettings",
    "build_settings",
    "parse_weights",
    "run_settings",
    "settings_from",
    "size_in_bytes",
    "split_amount",
    "with_current_names",
]

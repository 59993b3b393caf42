"""One frozen model per command. A field's docstring is its help, and `config.yaml` is the model written down."""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skystill.errors import SettingsError

Schedule = Literal["one-cycle", "cosine", "constant"]
Precision = Literal["auto", "32", "bf16"]
StudentLossName = Literal["ce", "focal", "ce+dice", "focal+dice"]
DistillationLossName = Literal["kl", "mse"]

_S = TypeVar("_S", bound="Settings")


class Settings(BaseModel):
    """What all commands share: nothing unknown is taken, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def to_config(self) -> dict[str, Any]:
        """Plain values for YAML."""
        return self.model_dump(mode="json")


class FitSettings(Settings):
    """How a network is trained, whoever teaches it."""

    data: Path
    """Folder with images and masks."""
    out: Path
    """Run folder to make, such as runs/NAME."""
    classes: str | None = None
    """Classes: a YAML or JSON file, or a built-in name (dubai). Default: the classes file beside the data."""
    split: str = "auto"
    """auto, folders, dubai, dubai-tiles, fractions such as 0.7/0.15/0.15, or a file that names images."""
    epochs: int = Field(24, ge=1)
    """Passes over the training images."""
    crop: int = Field(256, ge=32)
    """Side in pixels of the crops that are trained on. Larger shows more of the scene; memory grows by its square."""
    batch_size: int = Field(4, ge=1)
    """Crops a step."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of AdamW."""
    schedule: Schedule = "one-cycle"
    """How the learning rate goes: one-cycle, cosine or constant."""
    student_loss: StudentLossName = "ce+dice"
    """Loss against the labels: ce (cross-entropy), focal, ce+dice or focal+dice."""
    average: float = Field(0.99, ge=0, lt=1)
    """Decay of the moving average of the weights, which is what remains; 0 for none."""
    jitter: float = Field(0.2, ge=0, le=1)
    """Strength of the colour jitter, 0 for none."""
    precision: Precision = "auto"
    """32, bf16, or auto: bf16 on a GPU, or a CPU with matrix units (AMX), that has it, otherwise 32."""
    seed: int = Field(0, ge=0)
    """Draws the weights, the crops, the sampled images and the split fractions."""
    crops_per_image: int | None = Field(None, ge=1)
    """Crops an epoch draws for each image. Default: as many as cover the images, so that an epoch shows every pixel."""
    limit_images: int | None = Field(None, ge=1)
    """Train on this many images, drawn by the seed and named in config.yaml."""


class TrainSettings(FitSettings):
    """`skystill train`."""

    network: str = "unet-large"
    """A network by name, other sizes behind it: unet-large, unet?channels=32&depth=4. See skystill networks."""


class DistillSettings(FitSettings):
    """`skystill distill`."""

    teacher: Path
    """Run folder of the teacher."""
    student: str = "kite"
    """A network by name: kite, two-level. See skystill networks."""
    alpha: float = Field(0.1, ge=0, le=1)
    """Weight of the student loss; the distillation loss gets 1 - alpha."""
    temperature: float = Field(10.0, gt=0)
    """Softens teacher and student alike; 1 leaves them as they are."""
    distillation_loss: DistillationLossName = "kl"
    """Loss against the teacher: kl (Hinton) or mse on logits."""
    alone: bool = True
    """Also train the same student without the teacher, same steps: the baseline that the report compares with."""


class EvaluateSettings(Settings):
    """`skystill evaluate`."""

    run: Path
    """Run folder of train or distill."""
    data: Path | None = None
    """Folder with images and masks. Default: the run's own."""
    split: str | None = None
    """Whose test images to score on. Default: the run's own split."""


class DemoSettings(Settings):
    """`skystill demo`."""

    out: Path = Path("runs/demo")
    """Folder to make, with data, teacher and student below it."""
    seed: int = Field(0, ge=0)
    """Draws the scenes and everything else."""


def build_settings(kind: type[_S], values: dict[str, Any]) -> _S:
    """Settings from a command's values.

    Raises:
        SettingsError: values that do not fit, all of them named.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        lines = [f"--{'.'.join(map(str, e['loc'])).replace('_', '-')} {e['input']}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(lines)) from error

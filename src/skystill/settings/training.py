"""Settings of the commands that train: how a network is fitted, who teaches it, what it may cost."""

import re
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field, field_validator, model_validator

from skystill.settings.base import Settings

Schedule = Literal["one-cycle", "cosine", "constant"]
Precision = Literal["auto", "32", "bf16"]
StudentLossName = Literal["ce", "focal", "ce+dice", "focal+dice"]
_LATENCY = re.compile(r"(\d+(?:\.\d+)?)\s*(?:ms/MP|ms)?", re.IGNORECASE)


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
    """Decay of the moving average of the weights, which is what remains; it looks back over the last ninth of the steps
    so far at most. 0 for none."""
    jitter: float = Field(0.2, ge=0, le=1)
    """Strength of the colour jitter, 0 for none."""
    zoom: float = Field(0.0, ge=0, le=3)
    """Scale jitter: what a crop shows is up to 1 + zoom times larger or smaller than it, and resized. 0 for none."""
    precision: Precision = "auto"
    """32, bf16, or auto: bf16 on a GPU, or a CPU with matrix units (AMX), that has it, otherwise 32."""
    seed: int = Field(0, ge=0)
    """Draws the weights, the crops, the sampled images and the split fractions."""
    crops_per_image: int | None = Field(None, ge=1)
    """Crops an epoch draws for each image. Default: as many as cover the images, so that an epoch shows every pixel."""
    limit_images: int | None = Field(None, ge=1)
    """Train on this many images, drawn by the seed and named in config.yaml."""
    devices: int = Field(1, ge=1)
    """Processes on this machine, one a GPU (or on CPUs): they share each batch."""
    nodes: int = Field(1, ge=1)
    """Machines; start the command on each with torchrun or SLURM."""


class TrainSettings(FitSettings):
    """`skystill train`."""

    network: str = "swift"
    """A network by name, other sizes behind it: swift, unet?channels=32&depth=4 (see skystill networks). Or a file
    of weights to begin with (.safetensors)."""


class TeacherSettings(Settings):
    """Whose answers are learnt, and where they are kept."""

    teacher: list[str] = Field(min_length=1)
    """A run folder, .onnx, .pt2, .keras, .h5 or .hdf5 file, smp:UNET/ENCODER?classes=N&weights=FILE,
    torchvision:NAME?classes=N&weights=FILE, or hf:DIR. Several are averaged. ?input=0..255, 0..1 or imagenet: what
    pixels it wants."""
    teacher_classes: str | None = None
    """Classes of teachers that do not name them, in their order: names joined by commas, or a classes file. They are
    mapped to the data's by name; what the teacher lacks is learnt from labels alone."""
    unlabeled: Path | None = None
    """Folder of images without masks, from which the teacher teaches alone; large rasters are cut into windows."""
    cache: Path | None = None
    """Folder of the cached logits. Default: logits in the teacher's run folder, or, with another kind of teacher, in
    this one."""
    cache_symmetry: Literal["d4", "none"] = "d4"
    """d4: the mean over the 8 symmetries of the square, right under every flip and turn. none: one pass, an eighth of
    the work, and wrong under flips by as much as is then printed."""
    cache_bits: Literal["8", "16"] = "8"
    """Bits of a cached logit."""
    distillation_stride: int = Field(2, ge=1, le=8)
    """Losses on logits compare means of logits over blocks of this side, and the cache holds these: at 2 a quarter of
    the disk, a fifth more images a second for a small student, and no mIoU lost that could be measured
    (docs/results.md). Labels are learnt pixel by pixel all the same."""

    @field_validator("teacher", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [str(value)] if isinstance(value, str | Path) else value

    @property
    def run_teacher(self) -> Path | None:
        """The teacher's run folder, where it is one SkyStill run."""
        run = Path(self.teacher[0])
        return run if len(self.teacher) == 1 and (run / "config.yaml").is_file() else None


class LearnSettings(TeacherSettings, FitSettings):
    """How a student learns from labels and teachers."""

    teacher_mode: Literal["online", "cached"] = "online"
    """online runs the teacher in every step. cached runs it once over each image, keeps its logits on disk, and lets go
    of it: less memory and time. The cached teacher sees whole images, and is the mean over their 8 symmetries."""
    teacher_weight: list[float] = Field([])
    """Weight of each of several teachers; all alike by default."""
    unlabeled_fraction: float = Field(0.5, gt=0, lt=1)
    """Share of each batch that comes from --unlabeled."""
    # Measured (docs/results.md, One change at a time). `Distiller.compile` keeps the mission's 0.1 and 10.
    alpha: float = Field(0.3, ge=0, le=1)
    """Weight of the student loss; the distillation loss gets 1 - alpha."""
    alpha_end: float | None = Field(None, ge=0, le=1)
    """Where alpha goes, in a straight line over all steps. Default: 1, the labels have the last word; with --unlabeled
    it stays, since labels say nothing of those images."""
    temperature: float = Field(2.0, gt=0)
    """Softens teacher and student alike; 1 leaves them as they are."""
    distillation_loss: str = "kl"
    """Loss against the teacher: kl (Hinton), mse on logits, cwd (channel-wise), dist (correlation), boundary-kl; on
    features pkd, at, fitnet, ifvd, cirkd; or several with weights, such as kl+0.5*pkd."""
    student_layer: str | None = None
    """Module path of the student's layer for losses on features. Default: its deepest level."""
    teacher_layer: str | None = None
    """The same of the teacher's."""

    @property
    def alpha_at_end(self) -> float:
        """`alpha_end`, or what it is where nothing is said."""
        stays = self.alpha if self.unlabeled else 1.0
        return stays if self.alpha_end is None else self.alpha_end


class BudgetSettings(Settings):
    """What a student may cost in use, in INT8."""

    max_latency: str | None = None
    """Budget of the student in use, in INT8: milliseconds per megapixel, such as 40ms/MP."""
    max_memory: ByteSize | None = None
    """The same for the peak memory of the process, such as 200MB."""
    max_size: ByteSize | None = None
    """The same for the model file, such as 300KB."""

    @property
    def has_budget(self) -> bool:
        """Whether anything is limited."""
        return any(limit is not None for limit in (self.max_latency, self.max_memory, self.max_size))

    @property
    def latency_ms(self) -> float | None:
        """`max_latency` in milliseconds per megapixel."""
        return None if self.max_latency is None else float(_LATENCY.fullmatch(self.max_latency.strip())[1])  # type: ignore[index]

    @field_validator("max_latency")
    @classmethod
    def _check_latency(cls, value: str | None) -> str | None:
        if value is not None and not _LATENCY.fullmatch(value.strip()):
            raise ValueError("write milliseconds per megapixel as 40ms/MP")
        return value


class DistillSettings(BudgetSettings, LearnSettings):
    """`skystill distill`. With a budget the most capable of the family that keeps it takes the place of `student`."""

    student: str = "swift-small"
    """A network by name: swift-small, kite (see skystill networks), or a file of weights to begin with (.safetensors).
    With a budget it is chosen: the most capable of the family, measured before training."""
    measured: Path | None = None
    """What students cost on another, weaker computer, as skystill measure --save wrote it there. Default: this one."""
    quantize: bool = False
    """Afterwards fine-tune with INT8's rounding, the teacher still teaching, for a quarter of the epochs at a tenth of
    the learning rate, and write student-int8.onnx."""
    alone: bool = True
    """Also train the same student without the teacher, same steps: the baseline that the report compares with."""


class PruneSettings(BudgetSettings, LearnSettings):
    """`skystill prune`."""

    run: Path
    """Run folder of the network to prune."""
    teacher: list[str] = Field([])
    """As in distill. Default: the unpruned network."""

    @model_validator(mode="after")
    def _check_budget(self) -> "PruneSettings":
        if not self.has_budget:
            raise ValueError("say what the pruned network may cost: --max-latency, --max-memory or --max-size")
        return self


class TuneSettings(TeacherSettings):
    """`skystill tune`. What it searches over is drawn: learning rate, width, alpha, temperature, loss."""

    data: Path
    """Folder with images and masks; trials are compared on the validation images."""
    out: Path
    """Folder of the study, to make or to join."""
    trials: int = Field(30, ge=1)
    """Trials in all, of all processes that share the study."""
    storage: str | None = None
    """Database of the study, such as postgresql://HOST/NAME. Default: study.db in --out, which processes of one machine
    can share."""
    classes: str | None = None
    """As in distill."""
    split: str = "auto"
    """As in distill."""
    epochs: int = Field(8, ge=1)
    """Passes over the training images in each trial."""
    crop: int = Field(256, ge=32)
    """As in distill."""
    batch_size: int = Field(4, ge=1)
    """As in distill."""
    crops_per_image: int | None = Field(None, ge=1)
    """As in distill."""
    limit_images: int | None = Field(None, ge=1)
    """As in distill."""
    seed: int = Field(0, ge=0)
    """As in distill; the same for all trials."""


class CacheSettings(TeacherSettings):
    """`skystill cache`."""

    data: Path
    """Folder with images and masks."""
    share: str = Field("1/1", pattern=r"^\d+/\d+$")
    """Which part of the images to do here, such as 2/3, where several machines fill one folder."""
    classes: str | None = None
    """As in distill."""
    split: str = "auto"
    """As in distill; the training images are cached."""
    seed: int = Field(0, ge=0)
    """As in distill."""
    limit_images: int | None = Field(None, ge=1)
    """As in distill."""


class DemoSettings(Settings):
    """`skystill demo`."""

    out: Path = Path("runs/demo")
    """Folder to make, with data, teacher and student below it."""
    seed: int = Field(0, ge=0)
    """Draws the scenes and everything else."""

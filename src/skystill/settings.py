"""One frozen model per command. A field's docstring is its help, and `config.yaml` is the model written down."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from skystill.errors import SettingsError

Schedule = Literal["one-cycle", "cosine", "constant"]
Precision = Literal["auto", "32", "bf16"]
StudentLossName = Literal["ce", "focal", "ce+dice", "focal+dice"]

_LATENCY = re.compile(r"(\d+(?:\.\d+)?)\s*(?:ms/MP|ms)?", re.IGNORECASE)
_S = TypeVar("_S", bound="Settings")


def parse_bytes(text: str) -> int:
    """Turn "256MB" into 256,000,000; kB, MB, GB, KiB, MiB and GiB are known, and a plain number is bytes.

    Raises:
        ValueError: not such a text.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?i?B?)", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError("write a size as 256MB or 1GiB")
    unit = found[2].upper().removesuffix("B")
    base = 1024 if unit.endswith("I") else 1000
    return int(float(found[1]) * base ** ("", "K", "M", "G").index(unit.removesuffix("I")))


def _readable(text: str | None) -> str | None:
    if text is not None:
        parse_bytes(text)
    return text


ByteSize = Annotated[str | None, AfterValidator(_readable)]
"""A size that `parse_bytes` reads, as it was written."""


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
    devices: int = Field(1, ge=1)
    """Processes on this machine, one a GPU (or on CPUs): they share each batch."""
    nodes: int = Field(1, ge=1)
    """Machines; start the command on each with torchrun or SLURM."""


class TrainSettings(FitSettings):
    """`skystill train`."""

    network: str = "unet-large"
    """A network by name, other sizes behind it: unet-large, unet?channels=32&depth=4. See skystill networks."""


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
    teacher_share: list[float] = []
    """Weight of each of several teachers; all alike by default."""
    unlabeled_share: float = Field(0.5, gt=0, lt=1)
    """Share of each batch that comes from --unlabeled."""
    alpha: float = Field(0.1, ge=0, le=1)
    """Weight of the student loss; the distillation loss gets 1 - alpha."""
    temperature: float = Field(10.0, gt=0)
    """Softens teacher and student alike; 1 leaves them as they are."""
    distillation_loss: str = "kl"
    """Loss against the teacher: kl (Hinton), mse on logits, cwd (channel-wise), dist (correlation), boundary-kl; on
    features pkd, at, fitnet, ifvd, cirkd; or several with weights, such as kl+0.5*pkd."""
    student_layer: str | None = None
    """Module path of the student's layer for losses on features. Default: its deepest level."""
    teacher_layer: str | None = None
    """The same of the teacher's."""


class BudgetSettings(Settings):
    """What a student may cost in use, in INT8."""

    max_latency: str | None = None
    """Budget of the student in use, in INT8: milliseconds a megapixel, such as 40ms/MP."""
    max_memory: ByteSize = None
    """The same for the peak memory of the process, such as 200MB."""
    max_size: ByteSize = None
    """The same for the model file, such as 300KB."""

    @property
    def has_budget(self) -> bool:
        """Whether anything is limited."""
        return any(limit is not None for limit in (self.max_latency, self.max_memory, self.max_size))

    @property
    def latency_ms(self) -> float | None:
        """`max_latency` in milliseconds a megapixel."""
        return None if self.max_latency is None else float(_LATENCY.fullmatch(self.max_latency.strip())[1])  # type: ignore[index]

    @property
    def memory_bytes(self) -> int | None:
        """`max_memory` in bytes."""
        return None if self.max_memory is None else parse_bytes(self.max_memory)

    @property
    def size_bytes(self) -> int | None:
        """`max_size` in bytes."""
        return None if self.max_size is None else parse_bytes(self.max_size)

    @field_validator("max_latency")
    @classmethod
    def _check_latency(cls, value: str | None) -> str | None:
        if value is not None and not _LATENCY.fullmatch(value.strip()):
            raise ValueError("write milliseconds a megapixel as 40ms/MP")
        return value


class DistillSettings(BudgetSettings, LearnSettings):
    """`skystill distill`. With a budget the most capable of the family that keeps it takes the place of `student`."""

    student: str = "kite"
    """A network by name: kite, two-level (see skystill networks), or a file of weights to begin with (.safetensors).
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
    teacher: list[str] = []
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


class EvaluateSettings(Settings):
    """`skystill evaluate`."""

    run: Path
    """Run folder of train or distill."""
    data: Path | None = None
    """Folder with images and masks. Default: the run's own."""
    split: str | None = None
    """Whose test images to score on. Default: the run's own split."""


class RasterSettings(Settings):
    """How one raster is predicted."""

    mode: Literal["crop", "blend"] = "crop"
    """crop keeps the valid centre of each tile; blend lets neighbours fade into each other, for networks whose tiles
    show: slower, and more memory."""
    tile: int | None = Field(default=None, ge=64)
    """Side of the tiles in pixels, margins included. Default: the model's. Memory grows by its square."""
    overlap: int | None = Field(default=None, ge=0)
    """Pixels that neighbouring tiles share. Default: the model's. More is smoother; time grows by
    (tile / (tile - overlap))^2."""
    bands: str | None = None
    """Which bands are red, green and blue, such as 4,3,2; one number for grey. Default: as the file says, or 1,2,3."""
    scale: str | None = None
    """LOW,HIGH: values that become black and white. Default: 0,255 of 8-bit images, else 2nd and 98th percentile."""
    resolution: float | None = Field(default=None, gt=0)
    """Metres a pixel to resample to before predicting, such as the model's own. The result has this resolution."""
    cog: bool = False
    """Write Cloud Optimized GeoTIFFs."""
    confidence: bool = False
    """Also write the probability of the chosen class, OUT-confidence.tif."""
    probabilities: bool = False
    """Also write the probability of each class, OUT-probabilities.tif."""
    max_memory: ByteSize = None
    """Largest memory of the process, such as 256MB: chooses tiles and threads to stay under it."""

    @property
    def blend(self) -> bool:
        """Whether tiles are blended."""
        return self.mode == "blend"

    @property
    def band_numbers(self) -> list[int] | None:
        """`bands` as numbers."""
        return None if self.bands is None else [int(part) for part in self.bands.split(",")]

    @property
    def scale_range(self) -> tuple[float, float] | None:
        """`scale` as numbers."""
        if self.scale is None:
            return None
        low, high = (float(part) for part in self.scale.split(","))
        return low, high

    @property
    def memory_bytes(self) -> int | None:
        """`max_memory` in bytes."""
        return None if self.max_memory is None else parse_bytes(self.max_memory)

    @field_validator("bands")
    @classmethod
    def _check_bands(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\d+(,\d+,\d+)?", value):
            raise ValueError("write three band numbers as 1,2,3, or one for grey")
        return value

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, value: str | None) -> str | None:
        number = r"-?\d+(?:\.\d+)?"
        if value is not None:
            found = re.fullmatch(f"({number}),({number})", value)
            if not found or not float(found[1]) < float(found[2]):
                raise ValueError("write the value that becomes black and a larger one that becomes white, as 0,4095")
        return value


class PredictSettings(RasterSettings):
    """`skystill predict`."""

    inputs: list[str]
    """Images and rasters: files, folders, patterns such as 'photos/*.jpg', URLs, anything that GDAL opens."""
    model: Path | None = None
    """Model file, as skystill export or a run writes it. Default: the student in the box, trained on aerial photographs
    of Dubai (see skystill box)."""
    out: Path = Path("classes")
    """File to write (.tif or .png) for one input, or a folder."""
    classes: str | None = None
    """Classes of a model file that SkyStill did not write: a YAML or JSON file, or a built-in name."""
    threads: int = Field(0, ge=0)
    """Tiles at once; 0 for all cores."""
    runtime: Literal["auto", "onnxruntime", "openvino"] = "auto"
    """auto takes the faster one of those that are installed."""
    vector: Literal["gpkg", "geojson"] | None = None
    """Also write polygons, merged across tiles, with class and area."""
    areas: bool = False
    """Also write a table of the area of each class, OUT-areas.csv."""
    overlay: bool = False
    """Also write a picture of the classes over the image, OUT-overlay.png, at most 2,048 pixels a side."""

    def for_raster(self) -> RasterSettings:
        """The part that decides a raster's result."""
        return RasterSettings(**{name: getattr(self, name) for name in RasterSettings.model_fields})


class ExportSettings(Settings):
    """`skystill export`."""

    run: Path
    """Run folder of train or distill."""
    out: Path
    """File to write: .onnx, or .xml for OpenVINO."""
    format: Literal["onnx", "deepness", "openvino"] = "onnx"
    """onnx; deepness: the variant that QGIS's plugin Deepness reads; openvino: .xml and .bin."""
    resolution: float | None = Field(default=None, gt=0)
    """Metres a pixel of the training images, to be kept in the file."""
    stac: bool = False
    """Also write a STAC item (Machine Learning Model extension) beside it."""


class QuantizeSettings(Settings):
    """`skystill quantize`."""

    model: Path
    """Float model file."""
    data: Path
    """Folder with images and masks: training images calibrate, validation images score."""
    out: Path | None = None
    """File to write. Default: beside the model, NAME-int8.onnx."""
    split: str | None = None
    """As in train. Default: that of the run the model lies in, otherwise auto."""
    max_drop: float = Field(0.5, ge=0)
    """Points of mIoU that may be lost; layers stay in float until it is less."""
    images: int = Field(24, ge=1)
    """Crops of 512 x 512 to calibrate on."""
    seed: int = Field(0, ge=0)
    """Draws the crops."""


class MeasureSettings(Settings):
    """`skystill measure`."""

    models: list[Path]
    """Model files."""
    save: Path | None = None
    """Also write the figures as JSON."""
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    """What runs them."""


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
        raise SettingsError("; ".join(_said(e["loc"], e["input"], e["msg"]) for e in error.errors())) from error


def _said(where: tuple[int | str, ...], value: object, message: str) -> str:
    """One complaint: of a field with its flag and value, of all together as it is."""
    return f"--{'.'.join(map(str, where)).replace('_', '-')} {value}: {message}" if where else message

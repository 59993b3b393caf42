"""Settings of the commands that train: teachers, students, and the budget of a student."""

import re
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field, field_validator, model_validator

from skystill.settings.band_lists import BandList
from skystill.settings.base import Settings, list_of_texts
from skystill.settings.cluster import ClusterSettings
from skystill.settings.fitting import FitSettings, Precision

_LATENCY = re.compile(r"(\d+(?:\.\d+)?)\s*(?:ms/MP|ms)?", re.IGNORECASE)


class TrainSettings(FitSettings):
    """Settings of `skystill train`."""

    network: str = "swift"
    """Network to train: a name that skystill networks lists, with other sizes if you like, such as
    unet?channels=32&depth=4, or with weights that come with SkyStill, such as swift-small?weights=dubai; a file of
    weights (.safetensors) to start from; or a network of another library with weights for its encoder,
    timm:NAME?weights=FILE or smp:Unet/ENCODER?weights=FILE. With ?weights=imagenet the library downloads them; without
    weights it starts from random ones."""


class TeacherSettings(Settings):
    """The teachers, and the cache of their logits."""

    teacher: list[str] = Field(min_length=1)
    """Trained network to learn from: a run folder, an .onnx, .keras, .h5, .hdf5 or .pt2 file (--trust-teacher),
    smp:Unet/ENCODER?classes=N&weights=FILE, torchvision:NAME?classes=N&weights=FILE, or hf:DIR. ?input=0..255,
    ?input=0..1 or ?input=imagenet at the end sets the pixel values that it expects, and
    ?bands=red,green,blue,nir&input=values&divide=10000&mean=0.2&std=0.1 feeds it the values of these bands. If the
    option is repeated, the teachers are averaged."""
    teacher_classes: str | None = None
    """Classes of a teacher that does not store their names, in its own order: names separated by commas, or a classes
    file. They are matched with the classes of the data by name; classes that the teacher lacks are learnt from labels
    alone. By default they are taken to be the classes of the data."""
    trust_teacher: bool = False
    """Load teachers whose files can run code on this computer: .pt2 files of torch.export. Only for files that you made
    yourself, or trust as you trust a program. By default they are refused; an ONNX file needs no trust. --config does
    not set it."""
    unlabeled: list[Path] = Field(default=[])
    """Additional images without masks, on which the student learns from the teacher alone: a folder, one image or
    raster, or a pattern in quotes, such as 'scenes/*.tif'. Repeat the option for several. An image that is there twice
    counts once. Large rasters are cut into windows. The data folder of a map stands for what has no labels in it,
    outside of its layer area. By default there are none."""
    cache: Path | None = None
    """Folder of the cached logits of the teacher. By default logits/ in the run folder of the teacher. With another
    kind of teacher, or with several, it is logits/ in the output folder, and skystill cache needs this option."""
    cache_symmetry: Literal["d4", "none"] = "d4"
    """d4 caches the mean of the logits over the 8 rotations and flips of the image, which is exactly equivariant to
    them. none runs the teacher once, in an eighth of the time; its error under flips is printed."""
    cache_bits: Literal["8", "16"] = "8"
    """Bits per cached logit. 16 takes twice the disk space of 8."""
    distillation_stride: int = Field(default=2, ge=1, le=8)
    """Side in pixels of the blocks over which logits are averaged before student and teacher are compared; the cache
    stores these means. 2 instead of 1 takes a quarter of the disk space and trains a small student a fifth faster,
    without a measurable loss of mIoU (docs/results.md). The loss on labels is computed per pixel in any case."""

    @field_validator("teacher", "unlabeled", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return list_of_texts(value)

    @field_validator("unlabeled", mode="before")
    @classmethod
    def _none_or_many(cls, value: object) -> object:
        return [] if value is None else value

    @property
    def run_teacher(self) -> Path | None:
        """The run folder of the teacher, or None if the teacher is not exactly one run of SkyStill."""
        run = Path(self.teacher[0])
        return run if len(self.teacher) == 1 and (run / "config.yaml").is_file() else None


class LearnSettings(TeacherSettings, FitSettings):
    """How a student is trained on labels and teachers."""

    teacher_mode: Literal["online", "cached"] = "online"
    """online runs the teacher in every step. cached runs it once over each whole image before training and stores its
    logits on disk (see --cache-symmetry), which takes less memory and time."""
    teacher_weight: list[float] = Field(default=[])
    """Weight of a teacher; repeat the option, once per teacher. By default all teachers have the same weight."""
    unlabeled_fraction: float = Field(default=0.5, gt=0, lt=1)
    """Fraction of each batch that comes from the images of --unlabeled."""
    min_confidence: float = Field(default=0.0, ge=0, lt=1)
    """Least probability of the teacher's most likely class for a pixel of --unlabeled to count in losses on logits.
    metrics.csv says which part of all pixels it keeps (confident). By default all count."""
    mix: Literal["cutmix", "mixup"] | None = None
    """Mix the crops of a batch with each other, and feed the teacher the pixels of the student, with its colour jitter
    (function matching). cutmix pastes a rectangle of one crop into another, with its labels and its cached logits.
    mixup averages two crops, and needs --teacher-mode online. By default crops are not mixed, and the teacher sees no
    jitter."""
    mix_fraction: float | None = Field(default=None, gt=0, le=1)
    """Fraction of the crops that --mix changes. By default 0.5."""
    # Alpha 0.3 and temperature 2 were 1.4 points of mIoU better than 0.1 and 10 (docs/results.md, "One change at a
    # time"). `Distiller.compile` keeps 0.1 and 10, the values of the original brief (docs/results/original-brief.md).
    alpha: float = Field(default=0.3, ge=0, le=1)
    """Weight of the loss on the labels (student loss) at the start; the distillation loss has the weight 1 - alpha."""
    alpha_end: float | None = Field(default=None, ge=0, le=1)
    """Value of alpha in the last step; alpha changes linearly over all steps. By default 1, so that the labels decide
    at the end. With --unlabeled alpha stays constant by default, because those images have no labels."""
    temperature: float = Field(default=2.0, gt=0)
    """Temperature by which the logits of teacher and student are divided before the softmax. Higher values give softer
    probabilities; 1 leaves them unchanged."""
    distillation_loss: str = "kl"
    """Loss between student and teacher. On logits: kl (Hinton), mse, cwd (channel-wise), dist (correlation),
    boundary-kl. On features: pkd, at, fitnet, ifvd, cirkd; these need --teacher-mode online. Several can be added with
    weights, such as kl+0.5*pkd."""
    student_layer: str | None = None
    """Module path of the layer of the student that losses on features compare. By default its deepest level."""
    teacher_layer: str | None = None
    """Module path of the layer of the teacher that losses on features compare. By default its deepest level."""

    @property
    def mixed_fraction(self) -> float:
        """`mix_fraction`, or its default."""
        return 0.5 if self.mix_fraction is None else self.mix_fraction

    @property
    def alpha_at_end(self) -> float:
        """`alpha_end`, or its default: `alpha` with unlabelled images, otherwise 1."""
        stays = self.alpha if self.unlabeled else 1.0
        return stays if self.alpha_end is None else self.alpha_end


class BudgetSettings(Settings):
    """Limits for the cost of the INT8 model file in use."""

    max_latency: str | None = None
    """Limit for the latency of the student in INT8, in milliseconds per megapixel, such as 40ms/MP. By default there is
    no limit."""
    max_memory: ByteSize | None = None
    """Limit for the peak memory of a process that runs the student in INT8, such as 200MB. By default there is no
    limit."""
    max_size: ByteSize | None = None
    """Limit for the size of the INT8 model file, such as 300KB. By default there is no limit."""

    @property
    def has_budget(self) -> bool:
        """Whether at least one limit is set."""
        return any(limit is not None for limit in (self.max_latency, self.max_memory, self.max_size))

    @property
    def latency_ms(self) -> float | None:
        """`max_latency` as a number in milliseconds per megapixel, or None if it is not set."""
        return None if self.max_latency is None else float(_LATENCY.fullmatch(self.max_latency.strip())[1])  # type: ignore[index]

    @field_validator("max_latency")
    @classmethod
    def _check_latency(cls, value: str | None) -> str | None:
        if value is not None and not _LATENCY.fullmatch(value.strip()):
            raise ValueError("write milliseconds per megapixel as 40ms/MP")
        return value


class DistillSettings(BudgetSettings, LearnSettings):
    """Settings of `skystill distill`.

    With a budget, `student` is replaced by the most capable network of the student family that keeps the budget.
    """

    student: str = "swift-small"
    """Network to train: a name that skystill networks lists, such as kite or swift-small?weights=dubai, a file of
    weights (.safetensors) to start from, or a network of another library, as in train. With --max-latency, --max-memory
    or --max-size it is not used: candidates are measured before training, and the most capable one that keeps the
    limits is taken."""
    measured: Path | None = None
    """JSON file with the cost of candidate students on another computer, written there by skystill measure --save. By
    default the candidates are measured on this computer."""
    quantize: bool = False
    """After training, fine-tune the student with the rounding of INT8 and with the teacher, for a quarter of the epochs
    at a tenth of the learning rate, and write student-int8.onnx."""
    feature_epochs: int = Field(default=0, ge=0)
    """Number of passes over the images, with and without labels, in which the student learns the features of its
    teacher before it is trained, as in skystill pretrain. By default 0: they pay in short training, and no more than
    longer training does (docs/results/features.md)."""
    alone: bool = True
    """Also train the same student without the teacher, as the baseline in the report: for the same number of steps, and
    for as many more as --feature-epochs takes in time."""


class PruneSettings(BudgetSettings, LearnSettings):
    """Settings of `skystill prune`."""

    run: Path
    """Run folder of the network to prune."""
    teacher: list[str] = Field(default=[])
    """Teacher of the pruned network, written as in distill. By default the unpruned network."""

    @model_validator(mode="after")
    def _check_budget(self) -> "PruneSettings":
        if not self.has_budget:
            raise ValueError("say what the pruned network may cost: --max-latency, --max-memory or --max-size")
        if self.freeze or self.from_scratch:
            raise ValueError(
                "a pruned network begins with what pruning leaves of its weights, and every level must learn to do "
                "without the rest; leave out --freeze and --from-scratch"
            )
        return self


class PretrainSettings(Settings):
    """Settings of `skystill pretrain`."""

    teacher: str
    """Network whose features the student learns: lite0, lite1 or lite2 with their weights of ImageNet, or a network of
    SkyStill that was trained: its run folder or its file of weights (.safetensors)."""
    student: str = "swift-small"
    """Network to train: a name that skystill networks lists, or a file of weights (.safetensors) to start from."""
    out: Path
    """Run folder to create. Its checkpoints/model.safetensors is what a training then starts from: --student FILE in
    distill, --network FILE in train."""
    images: list[Path] = Field(default=[])
    """Folder with images, of any place; masks in it are skipped. Or one image or raster, or a pattern in quotes, such
    as 'scenes/*.tif'. Repeat the option for several."""
    data: Path | None = None
    """Folder with images and their masks, or a file that lists them, as in train. Its training images are learnt from,
    too. Its validation and test images are not, and an image of --images that is one of them is refused, so that later
    scores stay honest."""
    classes: str | None = None
    """Classes of --data, as in train. They are used to read its masks for the split."""
    split: str = "auto"
    """How the images of --data are split, as in train."""
    fit_masks: bool = False
    """Fit masks that have another size than their image, as in train."""
    bands: BandList = None
    """Bands of the images that the networks are fed, as in train. By default those of the teacher, if it was
    trained."""
    epochs: int = Field(default=8, ge=1)
    """Number of passes over the images."""
    crop: int = Field(default=256, ge=64)
    """Side in pixels of the square crops."""
    batch_size: int = Field(default=8, ge=1)
    """Crops per step."""
    crops_per_image: int | None = Field(default=None, ge=1)
    """Crops per image and epoch. By default an epoch draws as many crops as are needed to cover the area of all
    images."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak learning rate of the optimiser AdamW. Its schedule is one-cycle."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of the optimiser AdamW."""
    jitter: float = Field(default=0.2, ge=0, le=1)
    """Strength of the colour jitter, as in train. Both networks see it."""
    zoom: float = Field(default=0.0, ge=0, le=3)
    """Strength of the scale jitter, as in train."""
    precision: Precision = "auto"
    """Number format, as in train."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""

    @field_validator("images", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return list_of_texts(value)

    @model_validator(mode="after")
    def _check_images(self) -> "PretrainSettings":
        if not self.images and self.data is None:
            raise ValueError("say which images to learn from: --images DIR, --data DIR, or both")
        return self


class TuneSettings(ClusterSettings, TeacherSettings):
    """Settings of `skystill tune`.

    They leave out what the search itself chooses: learning rate, number of channels, alpha, temperature and loss.
    """

    data: Path
    """Folder with images and their masks, or a file that lists them, as in train. Trials are compared on the validation
    images."""
    out: Path
    """Folder of the study. It is created, or the process joins the study that is there."""
    trials: int = Field(default=30, ge=1)
    """Total number of trials of all processes that share the study."""
    storage: str | None = None
    """Database of the study, such as postgresql://HOST/NAME. By default study.db in --out, which processes on one
    machine can share."""
    classes: str | None = None
    """Names and colours of the classes: a YAML or JSON file, or a built-in name (dubai). By default the classes file in
    the data folder."""
    split: str = "auto"
    """How the images are split into training, validation and test, as in distill."""
    fit_masks: bool = False
    """Fit masks that have another size than their image, as in distill."""
    bands: BandList = None
    """Bands of the images that the network is fed, as in distill."""
    epochs: int = Field(default=8, ge=1)
    """Number of passes over the training images in each trial."""
    crop: int = Field(default=256, ge=32)
    """Side in pixels of the square training crops. Memory grows with its square."""
    batch_size: int = Field(default=4, ge=1)
    """Crops per step. Memory grows with it."""
    crops_per_image: int | None = Field(default=None, ge=1)
    """Crops per image and epoch. By default an epoch draws as many crops as are needed to cover the area of all
    images."""
    limit_images: int | None = Field(default=None, ge=1)
    """Number of training images to use, chosen at random with the seed. By default all."""
    seed: int = Field(default=0, ge=0)
    """Seed of the training, the same in all trials, and of the search."""


class CacheSettings(ClusterSettings, TeacherSettings):
    """Settings of `skystill cache`."""

    data: Path
    """Folder with images and their masks, or a file that lists them, as in train."""
    share: str = Field(default="1/1", pattern=r"^\d+/\d+$")
    """Part of the images to process, such as 2/3 for the second of three parts. With it, several machines can fill one
    folder. By default all images are processed."""
    classes: str | None = None
    """Names and colours of the classes: a YAML or JSON file, or a built-in name (dubai). By default the classes file in
    the data folder."""
    split: str = "auto"
    """How the images are split, as in distill. The logits of the training images are cached."""
    fit_masks: bool = False
    """Fit masks that have another size than their image, as in distill."""
    bands: BandList = None
    """Bands of the images that the network is fed, as in distill."""
    seed: int = Field(default=0, ge=0)
    """Seed of --limit-images, and of a split by fractions or auto. Use the seed of the distillation."""
    limit_images: int | None = Field(default=None, ge=1)
    """Number of training images to use, chosen at random with the seed. Use the value of the distillation. By default
    all."""


class DemoSettings(Settings):
    """Settings of `skystill demo`."""

    out: Path = Path("runs/demo")
    """Folder to create. It will contain the data and the run folders of teacher and student."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random: scenes, split, weights and crops."""

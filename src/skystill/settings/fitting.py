"""Settings of everything that trains a network on labels, with or without a teacher."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from skystill.settings.band_lists import BandList, ShownBands
from skystill.settings.base import FROM_DATA, Settings, list_of_texts
from skystill.settings.class_weights import ClassWeights

Schedule = Literal["one-cycle", "cosine", "constant"]
Precision = Literal["auto", "32", "bf16"]
StudentLossName = Literal["ce", "focal", "ce+dice", "focal+dice"]
LOGGERS = ("tensorboard", "mlflow", "wandb")


class FitSettings(Settings):
    """How a network is trained, with or without a teacher."""

    data: Path
    """Folder with images and their masks, or with one raster and the features that label it (docs/maps.md). Or a file
    that lists images with their labels: CSV, GeoParquet, or a STAC item, item collection, collection or catalog."""
    out: Path
    """Run folder to create, such as runs/NAME."""
    classes: str | None = None
    """Names and colours of the classes: a YAML or JSON file, or a built-in name (dubai). By default the classes file in
    the data folder."""
    split: str = "auto"
    """How the images are split into training, validation and test: folders (train, val and test folders of the data),
    dubai or dubai-tiles (fixed splits of the Dubai data), fractions such as 0.7/0.15/0.15, a file that lists the images
    of each part, or auto: folders or dubai if the data is such; otherwise the split of a teacher that was trained on
    the same images, or else 70, 15 and 15 % of the images, with each class spread over the parts by its area. A map is
    split in space: by its layer split, or by blocks, blocks:SIDE or blocks:SIDE/GAP, in metres."""
    fit_masks: bool = False
    """Fit masks that have another size than their image, but the same shape: each pixel of the image takes the label of
    the nearest pixel of the mask. Without it such masks are refused."""
    bands: BandList = None
    """Bands of the images that the network is fed: names such as red,green,blue,nir, numbers such as 4,3,2 (the first
    band is 1), or all. Each keeps its values, and the network normalises them. By default red, green and blue, or the
    only band: in bytes, or in the images' own values if these have more bits."""
    show: ShownBands = None
    """Bands that pictures in the report show as red, green and blue: three names or numbers, or one for grey. By
    default red, green and blue if the images name them, otherwise the first three bands."""
    epochs: int = Field(default=24, ge=1)
    """Number of passes over the training images. Training time is proportional to it."""
    patience: int | None = Field(default=None, ge=1)
    """Number of epochs without a better validation mIoU after which the training stops. The weights of the best epoch
    are kept instead of those of the last one. The split must have validation images with labels. By default all epochs
    are trained, and the weights of the last one are kept."""
    crop: int = Field(default=256, ge=32)
    """Side in pixels of the square crops that are cut from the training images. Larger crops show more context; memory
    grows with the square of the side."""
    batch_size: int = Field(default=4, ge=1)
    """Crops per step, of all processes together. Memory grows with it."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of the optimiser AdamW."""
    from_scratch: bool = False
    """Begin with random weights in every layer. By default the encoders of lite0, lite1, lite2, lite and lite-small
    begin with weights of ImageNet, which the extra pretrained installs; other networks always begin with random
    weights, unless a file names theirs."""
    freeze: int = Field(default=0, ge=0)
    """Number of levels of the encoder that keep the weights they begin with, from the finest level on. With 2, lite0
    does not learn at half and at a quarter of the resolution. The network must begin with weights that were trained
    before. If the levels of another library's encoder cannot be told apart, it counts as one level."""
    encoder_rate: float | None = Field(default=None, gt=0, le=1)
    """Learning rate of the encoder, as a fraction of --learning-rate: with 0.1, weights that were trained before change
    a tenth as fast as the rest. By default the same rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of the optimiser AdamW."""
    schedule: Schedule = "one-cycle"
    """Schedule of the learning rate: one-cycle, cosine or constant."""
    student_loss: StudentLossName = "ce+dice"
    """Loss between the prediction and the labels: ce (cross-entropy), focal, ce+dice or focal+dice."""
    class_weights: ClassWeights = None
    """Weights of the classes in the loss against labels, in the order of the classes: numbers such as 1,2,0.5, or auto
    for the median frequency of the classes divided by their own in the training images. A class with a larger weight
    is missed less often, and predicted where it is not more often. By default all classes count by their pixels."""
    average: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the weights; the averaged weights are validated and saved. The average covers at
    most the last ninth of the steps so far. 0 turns it off."""
    jitter: float = Field(default=0.2, ge=0, le=1)
    """Strength of the colour jitter. At 0.2, contrast and brightness change by up to 20 %. 0 turns it off."""
    zoom: float = Field(default=0.0, ge=0, le=3)
    """Strength of the scale jitter: the side of the area that a crop shows is up to 1 + zoom times larger or smaller,
    and the area is resized to the size of the crop. 0 turns it off."""
    precision: Precision = "auto"
    """Number format: 32 (float32), bf16 (mixed precision), or auto. auto is bf16 on a GPU that supports it and on a CPU
    with matrix units (AMX), otherwise 32."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random: initial weights, crops, the images of --limit-images, and a split by fractions or
    auto."""
    crops_per_image: int | None = Field(default=None, ge=1)
    """Crops per image and epoch. By default an epoch draws as many crops as are needed to cover the area of all
    images."""
    limit_images: int | None = Field(default=None, ge=1)
    """Number of training images to use, chosen at random with the seed and listed in config.yaml. By default all."""
    logger: list[str] = Field(default=[])
    """Program that also gets the settings and the columns of metrics.csv after each epoch: tensorboard, mlflow or
    wandb. Each needs its package. Repeat the option for several, or write them with commas."""
    devices: int = Field(default=1, ge=1)
    """Number of training processes on this machine, one per GPU or several on the CPU. They share each batch, so
    --batch-size must be a multiple of the number of all processes."""
    nodes: int = Field(default=1, ge=1)
    """Number of machines. With more than one, start the same command on each of them with torchrun or SLURM."""

    @field_validator("logger", mode="before")
    @classmethod
    def _split_loggers(cls, value: object) -> object:
        texts = list_of_texts(value)
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            return texts
        names = [name.strip() for text in texts for name in text.split(",")]
        if unknown := [name for name in names if name not in LOGGERS]:
            raise ValueError(f"no logger is called {', '.join(map(repr, unknown))}; there are {', '.join(LOGGERS)}")
        return list(dict.fromkeys(names))

    @model_validator(mode="before")
    @classmethod
    def _without_data(cls, values: object) -> object:
        """Take the content of a run's config.yaml, which also says what was found in the data."""
        return {name: v for name, v in values.items() if name not in FROM_DATA} if isinstance(values, dict) else values

"""Settings of the commands that need no torch, and of export."""

import re
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field, field_validator

from skystill.settings.base import Settings


class CheckSettings(Settings):
    """`skystill data check`."""

    data: Path
    """Folder with images and masks."""
    classes: str | None = None
    """Classes: a YAML or JSON file, or a built-in name (dubai). Default: the classes file beside the data."""
    split: str = "auto"
    """How to split; as in train."""


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
    views: Literal["1", "2", "4", "8"] = "1"
    """Mirrored and turned views of each tile whose logits are averaged: more accurate, and so many times slower."""
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
    max_memory: ByteSize | None = None
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

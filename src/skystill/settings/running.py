"""Settings of `export` and of the commands that run without torch."""

import re
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field, field_validator, model_validator

from skystill.settings.amounts import check_amount
from skystill.settings.band_lists import BandList, ShownBands
from skystill.settings.base import Page, Settings, list_of_texts
from skystill.settings.cluster import ClusterSettings


class CheckSettings(Settings):
    """Settings of `skystill data check`."""

    data: Path
    """Folder with images and their masks, or with one raster and the features that label it (docs/maps.md). Or a file
    that lists images with their labels, as in train."""
    classes: str | None = None
    """Names and colours of the classes: a YAML or JSON file, or a built-in name (dubai). By default the classes file in
    the data folder."""
    split: str = "auto"
    """How the images are split into training, validation and test: auto, folders, dubai, dubai-tiles, fractions such as
    0.7/0.15/0.15, or a file that lists the images of each part. A map is split by blocks, blocks:SIDE or
    blocks:SIDE/GAP, in metres."""
    fit_masks: bool = False
    """Fit masks that have another size than their image, but the same shape: each pixel of the image takes the label of
    the nearest pixel of the mask. Without it such masks are refused."""
    bands: BandList = None
    """Bands of the images that a network is fed, as in train."""
    html: Page = None
    """Page to write, such as check.html: a map with its features and its split, the pixels of each class in each part,
    samples with their labels, and all problems. By default none is written."""


class EvaluateSettings(Settings):
    """Settings of `skystill evaluate`."""

    run: Path
    """Run folder that train or distill wrote."""
    data: Path | None = None
    """Folder with images and masks to score on, or a file that lists them, as in train. By default the data of the
    run."""
    split: str | None = None
    """How the images are split, as in train; the test images are scored. By default the split of the run; with --data,
    too, if that folder holds the same images, and otherwise auto."""
    fit_masks: bool | None = None
    """Fit masks that have another size than their image, as in train. By default as in the run."""
    show: ShownBands = None
    """Bands that the pictures of the report show as red, green and blue: three numbers or names, such as 4,3,2 or
    nir,red,green, or one for grey. By default as in the run, otherwise those that the images name red, green and blue,
    otherwise their first three."""


class ArraySettings(Settings):
    """How the pixels of a raster or of an array are predicted."""

    mode: Literal["crop", "blend"] = "crop"
    """How overlapping tiles are joined. crop keeps the centre of each tile. blend averages neighbouring tiles in their
    overlap, for networks whose tile borders are visible; it is slower and needs more memory."""
    tile: int | None = Field(default=None, ge=64)
    """Side of the tiles in pixels, overlap included. By default the value in the model file. Memory grows with its
    square."""
    overlap: int | None = Field(default=None, ge=0)
    """Pixels that neighbouring tiles share. By default the value in the model file. More is smoother; time grows by
    (tile / (tile - overlap))^2."""
    views: Literal["1", "2", "4", "8"] = "1"
    """Number of test-time views: flipped and rotated versions of each tile whose logits are averaged. More is more
    accurate; time grows in proportion to their number."""
    bands: BandList = None
    """Bands that the network is fed, in its order: numbers or names, such as 4,3,2 or red,green,blue,nir. They are as
    many as the network has bands; for red, green and blue, one band is a grey image. By default the bands that the
    raster names as the training images did, otherwise those at the same place. For red, green and blue, this is
    1,2,3."""
    scale: str | None = None
    """LOW,HIGH: pixel values that are mapped to black and white, such as 0,4095. By default 0,255 for 8-bit images,
    otherwise the 2nd and 98th percentile of a sample. It is refused where nothing is scaled: for images of 8 bits or
    less, and for networks that are fed the raster's own values."""
    resolution: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Resolution in metres on the ground per pixel to which the raster is resampled before prediction, such as that of
    the training images. The result has this resolution at its centre. By default nothing is resampled."""

    @property
    def blend(self) -> bool:
        """Whether neighbouring tiles are blended."""
        return self.mode == "blend"

    @property
    def scale_range(self) -> tuple[float, float] | None:
        """The low and the high value of `scale`, or None if it is not set."""
        if self.scale is None:
            return None
        low, high = (float(part) for part in self.scale.split(","))
        return low, high

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, value: str | None) -> str | None:
        number = r"-?\d+(?:\.\d+)?"
        if value is not None:
            found = re.fullmatch(f"({number}),({number})", value)
            if not found or not float(found[1]) < float(found[2]):
                raise ValueError("write the value that becomes black and a larger one that becomes white, as 0,4095")
        return value


class RasterSettings(ArraySettings):
    """How a raster is predicted, and what is written."""

    cog: bool = False
    """Write results as Cloud Optimized GeoTIFF."""
    confidence: bool = False
    """Also write the probability of the predicted class, as OUT-confidence.tif."""
    probabilities: bool = False
    """Also write the probabilities of all classes, as OUT-probabilities.tif with one band per class."""
    smooth: int | None = Field(default=None, ge=3, le=255)
    """Odd number of pixels N: each pixel of the class raster takes the most common class of the N x N pixels around it.
    Pixels without data have no vote and stay as they are. A pixel keeps its class where no single other class is the
    most common one. Areas, overlay and polygons follow. By default nothing is smoothed."""
    min_area: str | None = None
    """Smallest area of a connected part of one class, in square metres on the ground (20m2) or in pixels (50px).
    Smaller parts of the class raster take the class with which they share the longest border, after --smooth. Parts
    that touch no larger part stay, and a note gives their number. Areas, overlay and polygons follow. By default all
    parts stay."""
    max_memory: ByteSize | None = None
    """Limit of the peak memory of the process, such as 256MB. The largest tiles and the most threads that stay below it
    are used. By default there is no limit."""

    @field_validator("smooth")
    @classmethod
    def _check_smooth(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            raise ValueError("write an odd number of pixels, so that a square has a pixel in its middle")
        return value

    @field_validator("min_area")
    @classmethod
    def _check_min_area(cls, value: str | None) -> str | None:
        return check_amount(value, "m2", "write an area above 0, as 20m2 or 50px")


class PredictSettings(ClusterSettings, RasterSettings):
    """Settings of `skystill predict`."""

    inputs: list[str] = Field(min_length=1)
    """Images and rasters to predict: files, folders, patterns such as 'photos/*.jpg', URLs, or other names of
    GDAL. Also buckets (s3://BUCKET/FOLDER/, 's3://BUCKET/**/*.tif', gs://, az://) and lists of images: a table with the
    column image (CSV, GeoParquet), or STAC. Hidden files and masks in folders are passed over."""
    model: Path | None = None
    """Model file from a run folder or from skystill export. By default the bundled model, which was trained on aerial
    photographs of Dubai (skystill box describes it)."""
    out: Path = Path("classes")
    """File to write (.tif or .png) if there is one input. Otherwise a folder, in which each result has the name of its
    input. Either may be in a bucket (s3://BUCKET/FOLDER/): results are made in a folder .skystill-out-... below the
    current one, and copied when they are done."""
    recursive: bool = False
    """Also predict the images in the sub-folders of the folders that are given. The results keep the sub-folders below
    --out; those of a list keep the folders below the list. By default sub-folders are not predicted, and a note says
    how many there are."""
    asset: str | None = None
    """Key of the asset to predict in each item of a STAC list, such as visual. By default the one with the role data,
    otherwise that called image, data or visual, otherwise the only image. Items with several of these are refused, and
    their keys named."""
    classes: str | None = None
    """Classes of a model file that was not written by SkyStill: a YAML or JSON file, or a built-in name (dubai). By
    default the classes in the model file."""
    input: str | None = None
    """Scale of the pixels that a model file of another program expects: 0..1, 0..255, imagenet (0 to 1, then
    standardised with the mean and standard deviation of ImageNet), or values (the raster's own values of the bands in
    --bands). Further numbers follow a question mark: values?divide=10000&mean=0.2,0.3&std=0.1,0.1 gives (value / 10000
    - mean) / std, with one number for each band. By default what the metadata of the file says, otherwise 0..255.
    SkyStill's own files know their scale."""
    threads: int = Field(default=0, ge=0)
    """Number of tiles that are computed at the same time, each in one thread. 0 uses all cores. Memory grows with this
    number."""
    runtime: Literal["auto", "onnxruntime", "openvino"] = "auto"
    """Library that runs the model: onnxruntime, openvino, or auto for the one that skystill measure --choose recorded
    beside the model file, otherwise onnxruntime. They differ in the class of some pixels. --resume goes on with the one
    that a prediction was begun with."""
    vector: Literal["gpkg", "geojson"] | None = None
    """Also write polygons with their class and area, merged across tile borders, as GeoPackage (gpkg) or GeoJSON. By
    default no polygons are written."""
    areas: bool = False
    """Also write a table with the area of each class, as OUT-areas.csv."""
    overlay: bool = False
    """Also write a picture of the classes over the image, as OUT-overlay.png. Its longer side has at most 2,048
    pixels."""
    show: ShownBands = None
    """Bands that --overlay shows as red, green and blue: three numbers or names, such as 4,3,2 or nir,red,green, or one
    for grey. By default those that the raster names red, green and blue, otherwise its first three."""
    simplify: str | None = None
    """Simplify the polygons of --vector by this tolerance, in metres on the ground (1m) or in pixels (2px). A vertex
    goes if its triangle with the vertices beside it is smaller than the square of the tolerance. Neighbours keep
    sharing their borders. By default polygons follow the edges of the pixels."""
    square: str | None = None
    """Names of classes, such as Building or Building,Road: the polygons of these classes in --vector get right angles,
    along the two main directions of each. Edges below 3 pixels, or below the tolerance of --simplify if that is longer,
    are merged. Neighbours no longer share their borders: gaps and overlaps appear between them. A polygon stays as it
    is if the squared one would overlap with less than 85 % of both together, and a note gives the number of these. By
    default no polygon is squared."""

    stac: bool = False
    """Also write a STAC item beside each result, as OUT.stac.json, and if --out is a folder, collection.json with all
    of them. The date is that of the input, if a list says it."""

    mosaic: Path | None = None
    """YAML file of a grid: all results are joined into one Cloud Optimized GeoTIFF, instead of one result for each
    input. The file has crs and resolution, and may have extent (left, bottom, right, top) and order (first, last,
    newest, oldest): which input is on top. Areas and polygons are those of the mosaic. --out is its file, or a folder
    for mosaic.tif. By default each input has its own result."""

    @field_validator("simplify")
    @classmethod
    def _check_simplify(cls, value: str | None) -> str | None:
        return check_amount(value, "m", "write a length above 0, as 1m or 2px")

    @model_validator(mode="after")
    def _check_vector(self) -> "PredictSettings":
        if self.simplify is not None and self.vector is None:
            raise ValueError("--simplify is for polygons: add --vector gpkg or geojson, or leave --simplify out")
        if self.square is not None and self.vector is None:
            raise ValueError("--square is for polygons: add --vector gpkg or geojson, or leave --square out")
        return self

    @model_validator(mode="after")
    def _check_mosaic(self) -> "PredictSettings":
        with_source = [name for name in ("confidence", "probabilities", "overlay") if getattr(self, name)]
        if self.mosaic is not None and with_source:
            raise ValueError(f"--mosaic joins class rasters: leave --{' and --'.join(with_source)} out")
        return self

    @model_validator(mode="after")
    def _check_overlay(self) -> "PredictSettings":
        if self.show is not None and not self.overlay:
            raise ValueError("--show is for the picture of --overlay: add --overlay, or leave --show out")
        return self

    @field_validator("inputs", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return list_of_texts(value)

    def for_raster(self) -> RasterSettings:
        """Return the settings that determine the result for one raster."""
        return RasterSettings(**{name: getattr(self, name) for name in RasterSettings.model_fields})


class ExportSettings(Settings):
    """Settings of `skystill export`."""

    run: Path
    """Run folder that train or distill wrote. With --format html or web also a model file of SkyStill; of a run, the
    INT8 file is taken if there is one."""
    out: Path
    """File to write: .onnx, .xml with --format openvino, or .html with --format html. With --format web a folder, which
    holds nothing else."""
    format: Literal["onnx", "deepness", "openvino", "html", "web"] = "onnx"
    """onnx: the format that skystill predict reads. deepness: ONNX for the QGIS plugin Deepness. openvino: an .xml and
    a .bin file. html: one web page with the model in it, which labels images in a browser, without a server and without
    a network. web: the same page as a folder for a web server, which browsers keep in their caches."""
    resolution: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Ground resolution of the training images in metres per pixel. It is stored in the file. By default it is read
    from the training images, if all of them are GeoTIFFs whose resolutions agree within a factor of 1.1."""
    stac: bool = False
    """Also write a STAC item (Machine Learning Model extension) next to the file."""
    with_: Path | None = None
    """With --format html or web: a second model, as a run or a model file, such as the teacher. The page runs it on the
    part of an image that is shown, and shows where the classes differ, and the time that each model takes."""

    @model_validator(mode="after")
    def _check_with(self) -> "ExportSettings":
        if self.with_ is not None and self.format not in ("html", "web"):
            raise ValueError("--with is for a page: add --format html or web, or leave --with out")
        return self


class QuantizeSettings(Settings):
    """Settings of `skystill quantize`."""

    model: Path
    """Model file in float32."""
    data: Path
    """Folder with images and masks, or a file that lists them, as in train. Training images are used for calibration,
    validation images for scoring."""
    out: Path | None = None
    """File to write. By default NAME-int8.onnx next to the model file."""
    split: str | None = None
    """How the images are split, as in train. By default the split of the run folder that contains the model file, or
    auto if there is none."""
    fit_masks: bool | None = None
    """Fit masks that have another size than their image, as in train. By default as in the run folder that contains the
    model file."""
    max_drop: float = Field(default=0.5, ge=0)
    """Largest acceptable loss of mIoU in percentage points. If INT8 loses more, layers are kept in float until the loss
    is small enough."""
    images: int = Field(default=24, ge=1)
    """Number of images to calibrate on, one crop of at most 512 x 512 pixels from each."""
    seed: int = Field(default=0, ge=0)
    """Seed of the random crops, and of a split by fractions or auto."""


class MeasureSettings(Settings):
    """Settings of `skystill measure`."""

    models: list[Path] = Field(min_length=1)
    """Model files to measure."""
    save: Path | None = None
    """JSON file to which the results are also written, such as for --measured of skystill distill."""
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    """Library that runs the model files: onnxruntime or openvino."""
    choose: bool = False
    """Measure each model file in both libraries, and record the faster one beside it, as MODEL.runtime.json. skystill
    predict then runs the model in that library. It is not taken without being asked for, because the libraries differ
    in the class of some pixels."""

    @field_validator("models", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return list_of_texts(value)

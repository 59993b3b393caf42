"""`skystill quantize`: quantises a model file on a data set, and says if the INT8 file is not faster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.classes import ClassMap
from skystill.data import (
    Pair,
    files_of_data,
    find_named,
    find_pairs,
    mask_areas,
    read_image,
    read_pairs,
    split_pairs,
)
from skystill.data.scale import check_scale
from skystill.errors import DataError
from skystill.model.file import open_session, read_info
from skystill.model.measure import ComparedCost, ModelCost, compare_models
from skystill.model.quantize import Quantized, quantize_model
from skystill.model.trial import try_once
from skystill.predict.predictor import Predictor
from skystill.progress import Message, Note, OnProgress, ignore_progress, tracked
from skystill.raster.input_spec import InputSpec
from skystill.raster.overwriting import check_outputs
from skystill.report.metrics import evaluate
from skystill.report.own_classes import own_classes
from skystill.report.records import read_split
from skystill.run_folder import RunFolder, hold_output
from skystill.settings import QuantizeSettings

_CROP = 512


@dataclass(frozen=True)
class Quantization:
    """The result of a quantisation.

    Args:
        path: the INT8 file.
        quantized: mIoU of both files, and the layers that stay in float.
        costs: cost of the float file and of the INT8 file, as `compare_models` measured them.
    """

    path: Path
    quantized: Quantized
    costs: tuple[ComparedCost, ComparedCost]


def quantize_on_data(settings: QuantizeSettings, on_progress: OnProgress = ignore_progress) -> Quantization:
    """Quantise a model file. Training images calibrate it and validation images score it; test images are not used.

    Args:
        settings: settings of the command.
        on_progress: called with a `Message` after each attempt, and with a `Progress` while images are scored.

    Returns:
        the INT8 file, its score and its cost.

    Raises:
        SettingsError: the file to write is the model file or belongs to the data.
        RunFolderError: another process writes the file, or into the run folder in which it lies.
        ModelFileError: the file is not a float model file of SkyStill.
        DataError: there are no pairs of image and mask, or none for validation.
    """
    out = settings.out or settings.model.with_name(settings.model.stem + "-int8.onnx")
    inputs = [settings.model, RunFolder(settings.model.parent).split, *files_of_data(settings.data)]
    check_outputs([("INT8 file", out)], inputs)
    with hold_output(out, on_progress):
        return _quantize(settings, out, on_progress)


def _quantize(settings: QuantizeSettings, out: Path, on_progress: OnProgress) -> Quantization:
    try_once(settings.model)
    info = read_info(open_session(settings.model), settings.model)
    train, validation, classes = _images(settings, info.classes, on_progress)
    check_scale([pair.image for pair in (*train, *validation)], info.input_spec, f"{settings.model}")
    crops = _calibration(train, settings.images, settings.seed, info.input_spec)

    def score(path: Path) -> float:
        predictor = Predictor(path)
        images = read_pairs(
            tracked(validation, "scoring on the validation images", on_progress, leaves_line=True),
            classes,
            info.input_spec,
        )
        scored = classes if classes.names == info.classes.names else info.classes
        miou = evaluate(predictor.probabilities, images, scored).scores().miou
        if miou is None:
            raise DataError(
                f"the {len(validation)} validation image(s) of {settings.data} have no labelled pixel of a class that "
                "is scored, so that the loss of INT8 cannot be measured; choose another --split."
            )
        return miou

    quantized = quantize_model(settings.model, out, crops, score, settings.max_drop / 100, on_progress)
    float_cost, int8_cost = compare_models([settings.model, out], on_progress=on_progress)
    if int8_cost.latency_ms_per_mp >= float_cost.latency_ms_per_mp:
        on_progress(Message(_slower(float_cost, int8_cost)))
    return Quantization(out, quantized, (float_cost, int8_cost))


def _slower(float_cost: ModelCost, int8_cost: ModelCost) -> str:
    return (
        f"warning: INT8 takes {int8_cost.latency_ms_per_mp:.0f} ms per megapixel on this computer, float "
        f"{float_cost.latency_ms_per_mp:.0f}. Use the float file here; INT8 pays on processors with 8-bit dot products "
        "(VNNI, or ARM's dotprod)."
    )


def _images(
    settings: QuantizeSettings, classes: ClassMap, on_progress: OnProgress
) -> tuple[list[Pair], list[Pair], ClassMap]:
    """Return the training pairs, the validation pairs, and the classes, which for a map say where its features are.

    They come from the split of the run folder that contains the model. If `settings.split` is given, if there is no
    such run, or if the data has none of its images, the data is split anew.

    Raises:
        DataError: some images of the run are gone, there are no validation images, or classes are those of others.
    """
    run, fit_masks = RunFolder(settings.model.parent), settings.fit_masks
    if fit_masks is None:
        fit_masks = run.config.is_file() and bool(run.read_config().get("fit_masks"))
    pairs = find_pairs(settings.data, fit_masks).pairs
    classes = _classes(settings, run, classes, pairs)
    own = read_split(run) if settings.split is None and run.split.exists() else None
    by_key = find_named(pairs, (*own.train, *own.validation)) if own is not None else {}
    gone = [key for key in (*own.train, *own.validation) if key not in by_key] if own is not None else []
    if gone and by_key:
        raise DataError(
            f"{settings.data}: images of the run {run.path} are gone:", gone, "Put them back, or give another --split."
        )
    if own is not None and not gone:
        train, validation = ([by_key[key] for key in keys] for keys in (own.train, own.validation))
    else:
        if gone:
            on_progress(Note(f"{settings.data} has none of the images of {run.path}: they are split anew."))
        how = settings.split or "auto"
        split = split_pairs(pairs, how, settings.seed, lambda found: mask_areas(found, classes))
        train, validation = list(split.train), list(split.validation)
    if not validation:
        raise DataError(f"{settings.data} leaves no validation images to score on; choose another --split.")
    return train, validation, classes


def _classes(settings: QuantizeSettings, run: RunFolder, known: ClassMap, pairs: Sequence[Pair]) -> ClassMap:
    """Return the classes with which the masks are read: those of the data, of the run, or of the model file.

    The last classes of the model may be missing in the data.

    Raises:
        DataError: they are not those of the model.
    """
    classes = own_classes(run.read_config() if run.config.is_file() else {}, settings.data, pairs)
    if classes is not None and classes.names != known.names[: len(classes)]:
        raise DataError(
            f"{settings.model} knows the classes {', '.join(known.names)}; {classes.source} has "
            f"{', '.join(classes.names)}."
        )
    return classes or known


def _calibration(pairs: list[Pair], count: int, seed: int, spec: InputSpec) -> list[npt.NDArray[Any]]:
    """Draw crops, (H, W, B) of the spec with sides up to 512 pixels, each from a different image, by the seed."""
    rng = np.random.default_rng(seed)
    crops = []
    for index in rng.permutation(len(pairs))[:count]:
        image = read_image(pairs[index].image, spec, pairs[index].bounds)
        top = int(rng.integers(0, max(0, image.shape[0] - _CROP) + 1))
        left = int(rng.integers(0, max(0, image.shape[1] - _CROP) + 1))
        crops.append(image[top : top + _CROP, left : left + _CROP])
    return crops

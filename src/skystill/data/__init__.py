"""Images and masks on disk: find pairs, read them as uint8, check all of them, and split them by image."""

from skystill.data.check import DataCheck, ImageRecord, check_data, resolve_classes
from skystill.data.masks import MaskReading, read_labels, read_pair_labels
from skystill.data.pairs import Pair, PairSearch, count_known, files_of_data, find_named, find_pairs
from skystill.data.read import read_image, read_pair, read_pairs
from skystill.data.split import Split, mask_areas, sample_images, split_pairs

__all__ = [
    "DataCheck",
    "ImageRecord",
    "MaskReading",
    "Pair",
    "PairSearch",
    "Split",
    "check_data",
    "count_known",
    "files_of_data",
    "find_named",
    "find_pairs",
    "mask_areas",
    "read_image",
    "read_labels",
    "read_pair",
    "read_pair_labels",
    "read_pairs",
    "resolve_classes",
    "sample_images",
    "split_pairs",
]

"""These tests run where their libraries are (README.md), and are passed over elsewhere.

torchvision asks torch for its compiled operators while it is imported. On a CPU build they do not exist: they are
declared here first; no test calls one.
"""

import importlib.util
import os

import torch

os.environ["KERAS_BACKEND"] = "torch"
collect_ignore_glob = []
if importlib.util.find_spec("torchvision") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    _OPERATORS = torch.library.Library("torchvision", "DEF")
    for _name in (
        "nms", "qnms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_align",
        "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d", "_deform_conv2d_backward",
    ):  # fmt: skip
        _OPERATORS.define(f"{_name}(Tensor x) -> Tensor")

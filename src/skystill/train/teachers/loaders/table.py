"""The table of loaders, with one line for each kind of teacher.

To add a kind, write a file beside this one, and add a line here and in docs/opening.md.
"""

from skystill.train.teachers.loaders.keras import load_keras
from skystill.train.teachers.loaders.loader import Loader, weights_file
from skystill.train.teachers.loaders.onnx import load_onnx, onnx_class_names, onnx_files, onnx_input_spec
from skystill.train.teachers.loaders.program import check_trust, load_program
from skystill.train.teachers.loaders.run import load_run, run_class_names, run_files, run_input_spec
from skystill.train.teachers.loaders.smp import load_smp
from skystill.train.teachers.loaders.torchvision import load_torchvision
from skystill.train.teachers.loaders.transformers import load_transformers, transformers_class_names, transformers_files

_SIZED = ("classes", "weights")

# These keys are part of the key of cached logits. With another key, an existing cache would not be found.
LOADERS: dict[str, Loader] = {
    "run": Loader(
        load_run, "a SkyStill run folder", files=run_files, class_names=run_class_names, input_spec=run_input_spec
    ),
    "onnx": Loader(
        load_onnx, ".onnx", suffixes=(".onnx",), files=onnx_files, class_names=onnx_class_names,
        input_spec=onnx_input_spec,
    ),
    "program": Loader(load_program, ".pt2 (torch.export)", suffixes=(".pt2",), check=check_trust),
    "keras": Loader(load_keras, ".keras, .h5, .hdf5", suffixes=(".keras", ".h5", ".hdf5")),
    "smp": Loader(
        load_smp, "smp:ARCHITECTURE/ENCODER?classes=N&weights=FILE", prefix="smp", required=_SIZED, files=weights_file
    ),
    "torchvision": Loader(
        load_torchvision, "torchvision:NAME?classes=N&weights=FILE", prefix="torchvision", required=_SIZED,
        files=weights_file,
    ),
    "hf": Loader(
        load_transformers, "hf:DIR", prefix="hf", files=transformers_files, class_names=transformers_class_names
    ),
}  # fmt: skip

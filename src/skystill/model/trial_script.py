"""What runs in the process of `skystill.model.trial`: open a model file under a limit, and run it on one small image.

It imports nothing of SkyStill, so that it starts fast. Arguments: the file, the limit in bytes, the number of bands or
0. Its exit code is 0 if the file was run or fails in an ordinary way, and 3 if memory was refused.
"""

import contextlib
import itertools
import os
import sys
from typing import Any

TOO_LARGE = 3
_REFUSED = (
    "alloc", "not enough memory", "out of memory", "exceeds the supported", "require more than", "integer overflow",
    "safeint", "length_error", "vector::", "array is too big",
)  # fmt: skip
"""Parts of messages of ONNX Runtime, in lower case, of memory that it did not get or that no machine has."""
_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(int16)": "int16",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
_SIDES = ((131, 97), (130, 98), (132, 100), (136, 104), (144, 112), (160, 96), (192, 64), (384, 128))
"""Rows and columns that are tried, in this order: multiples of 1, 2, 4 and so on up to 128."""


def limit_memory(most: int) -> None:
    """Limit the address space of this process, where the system can."""
    try:
        import resource
    except ImportError:  # on Windows only time is limited
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def shapes(declared: list[object], bands: int) -> list[tuple[int, ...]]:
    """Return the shapes of images that are tried: what the file declares, with free numbers filled in."""
    fixed = [side if isinstance(side, int) and side > 0 else None for side in declared]
    found = []
    for (rows, columns), channels in itertools.product(_SIDES, dict.fromkeys((bands or 3, 3, 1, 4))):
        for guess in ((1, channels, rows, columns), (1, rows, columns, channels)):
            found.append(tuple(own or other for own, other in zip(fixed, guess, strict=True)))
    return list(dict.fromkeys(found))


def run(path: str, bands: int) -> None:
    """Open a file and run it until one image gives an answer. Raises what ONNX Runtime raises on the last."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = min(4, os.cpu_count() or 1)
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:
        return  # opening it says what is wrong
    failure: Any = None
    for shape in shapes(inputs[0].shape, bands):
        try:
            session.run([session.get_outputs()[0].name], {inputs[0].name: np.zeros(shape, _TYPES[inputs[0].type])})
            return
        except Exception as error:
            if is_refused(error):
                raise
            failure = error
    if failure is not None:
        raise failure


def is_refused(error: BaseException) -> bool:
    """Whether an error says that memory was refused."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _REFUSED)


def main() -> int:
    """Run the trial that the arguments describe, and return the exit code."""
    path, most, bands = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    limit_memory(most)
    try:
        run(path, bands)
    except Exception as error:  # noqa: BLE001 - all others are left to what opens the file
        if is_refused(error):
            sys.stderr.write((str(error).strip() or type(error).__name__).splitlines()[0])
            return TOO_LARGE
    return 0


if __name__ == "__main__":
    sys.exit(main())

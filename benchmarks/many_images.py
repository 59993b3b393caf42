"""Thousands of small images in one `skystill predict`: memory and time against one image and the network alone.

    python benchmarks/many_images.py                       # 2,000 images of 512 x 512
    python benchmarks/many_images.py --count 200 --side 1024

The images are predicted once, and one of them alone, in processes of their own. The script prints
  memory    peak of the process with all images, divided by the peak with one
  time      time of all images but the first, for each of them, divided by the median time of the network alone: the
            same session on the same tiles, one after the other, in the same process after the images
and writes many_images.json.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from skystill.data.scenes import paint_scene
from skystill.model.bundled import bundled_model
from skystill.run_folder import write_json


def main() -> None:
    """Make the images, run both processes, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/many_images"))
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        print(json.dumps(predict_images(chosen, chosen.part)))
        return
    images = make_images(chosen.out / f"images-{chosen.side}", chosen.count, chosen.side)
    found = {}
    for count in (1, len(images)):
        command = [sys.executable, __file__, *sys.argv[1:], "--part", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[count] = json.loads(done.stdout.strip().splitlines()[-1])
    one, all_of_them = found[1], found[len(images)]
    memory, ratio = all_of_them["peak_mb"] / one["peak_mb"], all_of_them["image_ms"] / all_of_them["network_ms"]
    print(f"{len(images):,} images of {chosen.side} x {chosen.side}")
    print(f"memory: {all_of_them['peak_mb']:.0f} MB, with one image {one['peak_mb']:.0f} MB: {memory:.2f}")
    print(f"time: {all_of_them['image_ms']:.1f} ms, the network alone {all_of_them['network_ms']:.1f} ms: {ratio:.2f}")
    write_json(chosen.out / "many_images.json", {"memory": memory, "time": ratio, **all_of_them})


def make_images(folder: Path, count: int, side: int) -> list[Path]:
    """Write JPEG images of procedural scenes, each in the eight views of a square, unless they are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:05d}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        if not path.exists():
            scene = np.rot90(_scene(side, index // 8), index % 4)
            Image.fromarray(scene if index % 8 < 4 else scene[:, ::-1]).save(path)
    return paths


@functools.lru_cache(1)
def _scene(side: int, seed: int) -> np.ndarray:
    return paint_scene(side, seed)[0]


def predict_images(chosen: argparse.Namespace, count: int) -> dict[str, float]:
    """Predict the first images, and time the network on the same tiles."""
    from skystill.allocator import use_one_heap
    from skystill.model.measure import peak_rss_bytes
    from skystill.predict import Predictor
    from skystill.predict.batch import predict_inputs
    from skystill.raster.picture import read_whole
    from skystill.settings import PredictSettings

    use_one_heap()
    paths = make_images(chosen.out / f"images-{chosen.side}", count, chosen.side)
    out = chosen.out / "results" / str(count)
    settings = PredictSettings(inputs=[str(path) for path in paths], model=chosen.model, out=out)
    times = [time.perf_counter()]
    for _ in predict_inputs(settings):
        times.append(time.perf_counter())
    peak = peak_rss_bytes()
    infer, alone = Predictor(chosen.model).single_threaded(), []
    for path in paths[:100]:
        planes = read_whole(path).image.transpose(2, 0, 1)
        began = time.perf_counter()
        infer(planes)
        alone.append(time.perf_counter() - began)
    rest = times[-1] - times[1]
    return {
        "peak_mb": peak / 1e6,
        "image_ms": 1e3 * rest / max(1, len(paths) - 1),
        "network_ms": 1e3 * statistics.median(alone[1:] or alone),
    }


if __name__ == "__main__":
    main()

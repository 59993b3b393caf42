"""The peer of distill_vs_keras.py: Keras's own Distiller on TensorFlow, with the two U-Nets of the original brief.

    python benchmarks/peer_keras.py CROPS.npz BATCH STEPS PRECISION     # in an environment of keras-requirements.txt

It prints one line of JSON: images per second, peak resident memory, parameters of student and teacher.
"""

import json
import os
import resource
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np


def unet(classes: int, channels: int, depth: int) -> keras.Model:
    """Build the same network as skystill's `unet`: two 3x3 convolutions per level, no BatchNorm, scaled pixels."""
    images = keras.Input((256, 256, 3))
    features = keras.layers.Rescaling(1 / 64, offset=-2.0)(images)
    skips = []
    for level in range(depth):
        if level:
            features = keras.layers.MaxPooling2D()(features)
        features = double(features, channels * 2**level)
        skips.append(features)
    skips.pop()
    for level in reversed(range(depth - 1)):
        features = keras.layers.Conv2DTranspose(channels * 2**level, 2, strides=2)(features)
        features = double(keras.layers.Concatenate()([skips.pop(), features]), channels * 2**level)
    return keras.Model(images, keras.layers.Conv2D(classes, 1, dtype="float32")(features))  # losses in float32


def double(features: object, channels: int) -> object:
    """Apply two 3x3 convolutions with ReLU."""
    for _ in range(2):
        features = keras.layers.Conv2D(channels, 3, padding="same", activation="relu")(features)
    return features


class Clock(keras.callbacks.Callback):
    """Measures the time between the end of the warm-up and the end of the last step."""

    def __init__(self, warm_up: int) -> None:
        super().__init__()
        self.warm_up, self.began, self.ended = warm_up, 0.0, 0.0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Note the time."""
        self.ended = time.perf_counter()
        if batch + 1 == self.warm_up:
            self.began = self.ended


def main() -> None:
    """Distil for some steps."""
    crops, batch, steps = np.load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    keras.mixed_precision.set_global_policy(sys.argv[4])
    warm_up = 5
    images, labels = crops["images"], crops["labels"]
    chosen = np.arange((steps + warm_up) * batch) % len(images)
    teacher, student = unet(6, 16, 5), unet(6, 16, 2)
    distiller = keras.distillation.Distiller(
        teacher=teacher,
        student=student,
        distillation_losses=keras.distillation.LogitsDistillation(temperature=10.0),
        student_loss_weight=0.1,
    )
    distiller.compile(optimizer=keras.optimizers.AdamW(2e-3), loss=keras.losses.SparseCategoricalCrossentropy(True))
    clock = Clock(warm_up)
    distiller.fit(images[chosen], labels[chosen], batch_size=batch, epochs=1, verbose=0, callbacks=[clock])
    print(
        json.dumps(
            {
                "images_per_second": steps * batch / (clock.ended - clock.began),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "student": student.count_params(),
                "teacher": teacher.count_params(),
            }
        )
    )


if __name__ == "__main__":
    main()

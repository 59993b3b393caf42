"""How long each student takes in INT8 on this computer, before anything is trained.

    python benchmarks/family_times.py                            # the family
    python benchmarks/family_times.py --students lite lite-small "lite?blocks=9"

The time of a network does not depend on its weights, so random ones are exported, quantised and measured, three times
in turn, on 1,024 x 1,024 pixels in ONNX Runtime. The script prints the fastest of the three medians, on one thread and
on all cores. Run it on a computer that does nothing else.
"""

import argparse
from contextlib import ExitStack

from skystill.classes import ClassMap
from skystill.model.measure import compare_models
from skystill.train.compress.budget import int8_file
from skystill.train.networks.table import FAMILY, build_network

CLASSES = ClassMap(tuple("abcdef"), tuple((value, value, value) for value in range(6)))  # as many as in Dubai
ROUNDS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=list(FAMILY))
    students = parser.parse_args().students
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(int8_file(name, build_network(name, len(CLASSES)).eval(), CLASSES))[1]
            for name in students
        }
        rounds = [compare_models(list(files.values())) for _ in range(ROUNDS)]
    print("| student | parameters | file, kB | ms per megapixel, one thread | all cores |")
    for name, costs in zip(students, zip(*rounds, strict=True), strict=True):
        # Other work of the computer can only make a time longer.
        one, every = (
            min(cost.latency_ms_per_mp_1_thread for cost in costs),
            min(cost.latency_ms_per_mp for cost in costs),
        )
        print(f"| `{name}` | {costs[0].parameters:,} | {costs[0].size_bytes / 1e3:.0f} | {one:.1f} | {every:.1f} |")


if __name__ == "__main__":
    main()

"""Starts a command in several processes on this computer, as `python -m torch.distributed.run` does.

    python -m skystill.train.loop.launch COUNT train --data ...

It ends with the exit code of the process that failed first. torchrun itself always ends with 1, and with a traceback
that hides what the process has printed.
"""

import logging
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun


def main(count: str, *command: str) -> int:
    """Run the command in `count` processes, and return its exit code.

    Args:
        count: number of processes, as text.
        command: arguments of `skystill`.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the traceback again, line by line
    try:
        torchrun(["--standalone", f"--nproc-per-node={count}", "-m", "skystill", *command])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return max(failure.exitcode, 1)  # negative if a signal ended it
    except SignalException as stopped:  # Ctrl-C is 130, as everywhere
        return 128 + int(stopped.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Run the command line: `python -m skystill`, and the program `skystill`."""

import os
import signal

_INTERRUPTED = 130  # as `Interrupted.exit_code`; nothing is imported here before Ctrl-C is quiet


def main() -> None:
    """Import the command line, and run it. Ctrl-C during the imports, which take half a second, ends without a word."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a parent process may have it ignored
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(_INTERRUPTED))
    from skystill.cli.commands import main as run

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()

"""The command line with tasks of a fraction of a second, so that small rasters are cut into pieces."""

import sys

if __name__ == "__main__":
    from skystill.cluster import dispatch

    dispatch.TASK_SECONDS, dispatch.FIRST_PIXELS = 0.2, 40_000
    from skystill.__main__ import main

    sys.exit(main())

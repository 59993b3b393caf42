"""The page of `skystill status`: how far an archive is, which inputs failed and why, and what each machine did."""

import time
from pathlib import Path

from skystill import __version__
from skystill.cluster.status import Status
from skystill.progress import duration
from skystill.report.environment import page_environment
from skystill.run_folder import write_text


def write_archive_page(path: Path, status: Status) -> None:
    """Write a status as one HTML file that needs no other file.

    Args:
        path: the file. It appears complete or not at all.
        status: how far the archive is.

    Raises:
        DiskFull: the file cannot be written.
    """
    template = page_environment().get_template("archive.html.j2")
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.updated))
    left = None if status.seconds_left is None else duration(status.seconds_left)
    write_text(path, template.render(status=status, left=left, moment=moment, version=__version__))

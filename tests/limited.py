"""A limit on the size of files: a write beyond it fails, as on a full disk. It needs neither root nor a small disk."""

import resource  # of Unix; a test that imports this is skipped elsewhere
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """Let no file of this process, and of those that it starts, grow beyond `count` bytes.

    Python ignores SIGXFSZ, so a longer write fails with "File too large"; a part of it may be written before.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

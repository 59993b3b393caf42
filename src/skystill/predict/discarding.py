"""Unfinished work that a resume could not use is deleted."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skystill.errors import AnswersNotFinite, ModelFileError, SourceChanged


@contextmanager
def discarding(journal: Path, model: Path) -> Iterator[None]:
    """Delete the unfinished rasters if the model file is at fault, or the source has changed.

    `resume` would only fail again, or its units would be those of two sources.

    Args:
        journal: the folder of the unfinished work.
        model: the model file.

    Raises:
        AnswersNotFinite: a FloatingPointError was raised inside the context.
    """
    try:
        yield
    except SourceChanged:
        shutil.rmtree(journal, ignore_errors=True)
        raise
    except (FloatingPointError, ModelFileError) as error:
        shutil.rmtree(journal, ignore_errors=True)
        raise error if isinstance(error, ModelFileError) else AnswersNotFinite(model) from error

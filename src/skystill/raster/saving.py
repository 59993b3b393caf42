"""Pictures that appear whole or not at all."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from skystill.run_folder import written_whole


def save_picture(picture: Image.Image, path: Path, **options: Any) -> None:  # noqa: ANN401 - of each format of Pillow
    """Write a picture in the format of its suffix.

    It is encoded in memory first: Pillow's encoders write into the file themselves, and do not see that a disk took
    only the first part of what they wrote.

    Args:
        picture: the picture.
        path: the file. It appears complete or not at all.
        options: as `PIL.Image.Image.save` takes them.

    Raises:
        DiskFull: the file cannot be written.
    """
    content = io.BytesIO()
    picture.save(content, Image.registered_extensions()[path.suffix.lower()], **options)
    with written_whole(path) as part:
        part.write_bytes(content.getvalue())

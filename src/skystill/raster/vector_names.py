"""Names of vector files that pyogrio takes for addresses: it would open another file than the one that is named."""

import re
from pathlib import Path

from skystill.errors import SettingsError

_SCHEMES = ("file", "zip", "tar", "gzip", "http", "https", "ftp", "s3", "gs", "az", "adls", "adl", "hdfs", "webhdfs")
_ADDRESS = re.compile(rf"({'|'.join(_SCHEMES)})(\+({'|'.join(_SCHEMES)}))*:", re.IGNORECASE)


def check_vector_name(path: Path) -> None:
    """Refuse a path of which pyogrio would open only a part, as of ZIP archives: behind "!", or before ";".

    Raises:
        SettingsError: it is one.
    """
    text = str(path)
    if found := sorted(set(text) & set("!;\t\r\n")):
        raise SettingsError(
            f"{path}: the library that reads and writes vector files takes {' and '.join(map(repr, found))} in a path "
            "for a part of an address, and would open another file. Rename it, or the folder."
        )
    if _ADDRESS.match(text) or text.startswith("/vsi"):
        raise SettingsError(f"{path}: its name begins as an address does. Write ./ before it, or rename it.")

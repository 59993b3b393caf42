"""A command of SkyStill in a process of its own, with the memory that it took."""

import os
import re
import subprocess
import sys


def run(*arguments: object, **more: str) -> tuple[int, str, int]:
    """Exit code, output and peak memory in bytes of a command of SkyStill."""
    code = (
        "import re, runpy, sys\n"
        "from pathlib import Path\n"
        "sys.argv[0] = 'skystill'\n"
        "try:\n    runpy.run_module('skystill', run_name='__main__')\n"
        "finally:\n    print('PEAK', *re.findall(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "400", **more}, check=False,
    )  # fmt: skip
    text = done.stdout + done.stderr
    found = re.search(r"PEAK (\d+)", text)
    assert found, text
    return done.returncode, text, int(found[1]) * 1024

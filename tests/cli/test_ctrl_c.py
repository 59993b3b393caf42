"""Ctrl-C while the command line is being imported: no traceback."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest


@pytest.mark.parametrize(
    "module", ["skystill.cli", "skystill.cli.commands", "typer", "rich.console", "skystill.settings"]
)
@pytest.mark.parametrize("start", ["import runpy; runpy.run_module('skystill', run_name='__main__')",
                                   "from skystill.__main__ import main; main()"])  # fmt: skip
def test_ctrl_c_in_an_import_ends_without_a_word(module: str, start: str, tmp_path: Path) -> None:
    # Whoever starts to import the module presses Ctrl-C.
    code = f"""
    import os, signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    class Pressing:
        def find_spec(self, name, *others):
            if name == {module!r}:
                os.kill(os.getpid(), signal.SIGINT)
    sys.meta_path.insert(0, Pressing())
    sys.argv = ["skystill", "--version"]
    {start}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_after_the_imports_ctrl_c_is_as_before() -> None:
    code = """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["skystill", "--version"]
    from skystill.__main__ import main
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("skystill "), done.stderr


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    code = """
    import os, signal, sys
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.argv = ["skystill", "--version"]
    from skystill.__main__ import main
    try:
        main()
    except SystemExit:
        pass
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=os.environ)


def test_the_program_starts_where_ctrl_c_is_quiet() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert 'skystill = "skystill.__main__:main"' in text
    assert signal.SIGINT


PARENT = """
import sys
from skystill.api.processes import call_process
call_process([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"])
print("not reached")
"""


def test_sigterm_ends_the_processes_of_a_command_as_well() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.terminate()
    said, _ = parent.communicate(timeout=60)
    assert parent.returncode == -signal.SIGTERM and not said
    assert not child.is_running()

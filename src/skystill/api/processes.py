"""Run SkyStill commands in separate processes: one per rank, or one whose memory is released when it ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from skystill.environment import SAFE_PATH
from skystill.errors import CommandFailed, Interrupted, SettingsError, UserError
from skystill.progress import SaidOnce
from skystill.settings import FitSettings, Settings


def start_ranks(verb: str, settings: FitSettings, *flags: str) -> bool:
    """Run a command in several processes if its settings require them and they are not running yet.

    Args:
        verb: name of the command, such as "train".
        settings: settings of the command.
        flags: further arguments of the command line.

    Returns:
        True if the command was run, so that nothing is left to do. False if this process must do the work itself.

    Raises:
        SettingsError: the settings require several machines, which only torchrun or SLURM can start, or the batch
            cannot be shared by the processes.
        CommandFailed: a process failed. It has printed the reason.
    """
    from skystill.train.loop.ranks import launched

    if settings.devices * settings.nodes == 1 or launched():
        return False
    if settings.nodes > 1:
        raise SettingsError(
            "--nodes: start the command on each machine with torchrun --nnodes=... -m skystill, or with srun."
        )
    if settings.batch_size % settings.devices:
        raise SettingsError(f"--batch-size {settings.batch_size} cannot be shared by --devices {settings.devices}; "
                            "make it a multiple.")  # fmt: skip
    launcher = ["skystill.train.loop.launch", f"{settings.devices}"]
    command = [sys.executable, "-m", *launcher, verb, *to_arguments(settings), *flags]
    code = call_process(command, os.environ | SAFE_PATH)
    if code in (UserError.exit_code, Interrupted.exit_code):
        raise CommandFailed(verb, code)
    if code:
        raise CommandFailed(verb, 1, "A process of this run ended early; its message is above. Go on with --resume.")
    return True


def call_process(arguments: Sequence[str], environment: dict[str, str] | None = None) -> int:
    """Run a process and return its exit code.

    This process ignores Ctrl-C in the meantime, which reaches the child as well: it can save its state and end on its
    own. SIGTERM reaches this process alone, and is passed on. When the child has ended, it ends this process, too.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        return subprocess.run(arguments, check=False, env=environment).returncode
    ended: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: object) -> None:
        ended.append(number)
        for child in running:
            child.terminate()

    handlers = {signal.SIGINT: lambda number, frame: None, signal.SIGTERM: pass_on}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with subprocess.Popen(arguments, env=environment) as child:
            running.append(child)
            if ended:  # while it was being started
                child.terminate()
            code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended:
        os.kill(os.getpid(), signal.SIGTERM)
    return code


def call_command(verb: str, settings: Settings, *flags: str, said: SaidOnce | None = None) -> None:
    """Run a SkyStill command in a separate process.

    Args:
        verb: name of the command, such as "train".
        settings: settings of the command.
        flags: further arguments of the command line.
        said: has the notes that the command is not to repeat.

    Raises:
        CommandFailed: the command failed or was stopped by Ctrl-C, and has printed the reason. The exception has the
            exit code of the command if that is 1, 2 or 130, otherwise 1.
    """
    from skystill.train.loop.ranks import environment_of_one

    environment = environment_of_one() | SAFE_PATH | (said.environment if said else {})
    code = call_process([sys.executable, "-m", "skystill", verb, *to_arguments(settings), *flags], environment)
    if code:
        raise CommandFailed(verb, code if code in (1, UserError.exit_code, Interrupted.exit_code) else 1)


def to_arguments(settings: Settings) -> list[str]:
    """Convert settings to command-line arguments."""
    arguments: list[str] = []
    for name, value in settings.to_config().items():
        flag = name.rstrip("_").replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            arguments.extend(f"--{flag}={item}" for item in value)
        elif value is not None:
            arguments.append(f"--{flag}={value}")
    return arguments

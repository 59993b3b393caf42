"""Our commands in processes of their own: one for each rank, or one whose memory is released when it ends."""

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from skystill.errors import CommandFailed, Interrupted, SettingsError, UserError
from skystill.settings import FitSettings, Settings


def start_ranks(verb: str, settings: FitSettings, *flags: str) -> bool:
    """Run a command as several processes, where its settings ask for them and nobody has started them yet.

    Returns:
        whether that was done; then everything is done.

    Raises:
        SettingsError: several machines, which only torchrun or SLURM can start.
        CommandFailed: a process failed, and has said why.
    """
    from skystill.train.loop.ranks import launched

    if settings.devices * settings.nodes == 1 or launched():
        return False
    if settings.nodes > 1:
        raise SettingsError(
            "--nodes: start the command on each machine with torchrun --nnodes=... -m skystill, or with srun."
        )
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={settings.devices}", "-m", "skystill"]
    command = [sys.executable, "-m", *launcher, verb, *to_arguments(settings), *flags]
    code = call_process(command)
    if code:
        hint = "A process of this run ended early; its message is above. Go on with --resume."
        raise CommandFailed(verb, code if code in (UserError.exit_code, Interrupted.exit_code) else 1, hint)
    return True


def call_process(arguments: Sequence[str], environment: dict[str, str] | None = None) -> int:
    """Run a process and return its exit code. Ctrl-C is left to it, so that it can save."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        return subprocess.run(arguments, check=False, env=environment).returncode
    before = signal.signal(signal.SIGINT, lambda signum, frame: None)
    try:
        return subprocess.run(arguments, check=False, env=environment).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def call_command(verb: str, settings: Settings, *flags: str) -> None:
    """Run one of our commands in a process of its own.

    Raises:
        CommandFailed: it failed or was stopped by Ctrl-C, and has said why; its exit code is ours.
    """
    from skystill.train.loop.ranks import environment_of_one

    code = call_process([sys.executable, "-m", "skystill", verb, *to_arguments(settings), *flags], environment_of_one())
    if code:
        raise CommandFailed(verb, code if code in (1, UserError.exit_code, Interrupted.exit_code) else 1)


def to_arguments(settings: Settings) -> list[str]:
    """Settings as command-line arguments."""
    arguments: list[str] = []
    for name, value in settings.to_config().items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            arguments.extend(f"--{flag}={item}" for item in value)
        elif value is not None:
            arguments.append(f"--{flag}={value}")
    return arguments

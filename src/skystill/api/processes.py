"""Our commands in processes of their own: one for each rank, or one whose memory goes with it."""

import signal
import subprocess
import sys
from collections.abc import Sequence

import typer

from skystill.cli.bars import messages
from skystill.errors import Interrupted, SettingsError
from skystill.settings import FitSettings, Settings


def start_ranks(settings: FitSettings) -> bool:
    """Start this command again as several processes, where it asks for them and nobody has started them yet.

    Returns:
        whether that was done; then everything is done.

    Raises:
        SettingsError: several machines, which only torchrun or SLURM can start.
        typer.Exit: a process failed, and has said why.
    """
    from skystill.train.loop.ranks import launched

    if settings.devices * settings.nodes == 1 or launched():
        return False
    if settings.nodes > 1:
        raise SettingsError(
            "--nodes: start the command on each machine with torchrun --nnodes=... -m skystill, or with srun."
        )
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={settings.devices}", "-m", "skystill"]
    code = call_process([sys.executable, *start, *sys.argv[1:]])
    if code:
        messages.print("a process of this run ended early; what it said is above. Go on with --resume.", style="red")
        raise typer.Exit(code if code in (2, Interrupted.exit_code) else 1)
    return True


def call_process(arguments: Sequence[str], environment: dict[str, str] | None = None) -> int:
    """Run a process and return its exit code; Ctrl-C is left to it, so that it can save."""
    before = signal.signal(signal.SIGINT, lambda signum, frame: None)
    try:
        return subprocess.run(arguments, check=False, env=environment).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def call_command(verb: str, settings: Settings, *flags: str) -> None:
    """Run one of our commands in a process of its own; Ctrl-C is left to it, so that it can save.

    Raises:
        Interrupted: it was stopped by Ctrl-C.
        typer.Exit: it failed, and has said why; its exit code is ours.
    """
    from skystill.train.loop.ranks import environment_of_one

    arguments = [sys.executable, "-m", "skystill", verb, *to_arguments(settings), *flags]
    code = call_process(arguments, environment_of_one())
    if code == Interrupted.exit_code:
        raise typer.Exit(code)
    if code:
        raise typer.Exit(code if code in (1, 2) else 1)


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

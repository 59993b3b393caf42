"""Training on two machines: two network namespaces with a cable between them, and a folder for each as its own disk.

Needs root, for `ip netns`, and takes some minutes: SKYSTILL_TWO_MACHINES=1 pytest tests/train/loop/test_two_machines.py
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

pytestmark = [
    pytest.mark.skipif("SKYSTILL_TWO_MACHINES" not in os.environ, reason="SKYSTILL_TWO_MACHINES is not set"),
    pytest.mark.timeout(1200),
]

STUDENT = "kite?channels=(8,12)&blocks=(1,1)"
SHORT = ["--crop=32", "--batch-size=4", "--crops-per-image=4", "--split=0.5/0.25/0.25", "--epochs=10", "--no-report"]


@dataclass(frozen=True)
class Machine:
    """A network namespace and a folder. The files of one machine are not those of the other."""

    rank: int
    disk: Path
    space: str
    address: str

    def start(self, command: Sequence[str], nodes: int = 2) -> subprocess.Popen[str]:
        """Run a command of SkyStill as the only rank of this machine, as docs/train.md says."""
        launch = [
            *("ip", "netns", "exec", self.space, sys.executable, "-m", "torch.distributed.run", "--nnodes=2"),
            *(f"--node-rank={self.rank}", "--nproc-per-node=1", "--master-addr=10.77.0.1", "--master-port=29500"),
        ]
        environment = os.environ | {"GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*launch, "-m", "skystill", *command, f"--nodes={nodes}"],
            cwd=self.disk, env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def pull_the_cable(self) -> None:
        ip("-n", self.space, "link", "set", "cable", "down")

    def plug_the_cable_in(self) -> None:
        ip("-n", self.space, "link", "set", "cable", "up")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def machines(
    scenes: Path, made_teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Machine, Machine]]:
    """Two machines with a cable between them. Each has its copy of the data and of the teacher."""
    both = []
    try:
        for rank, end in enumerate("ab"):
            disk = tmp_path_factory.mktemp(end)
            shutil.copytree(scenes, disk / "data")
            shutil.copytree(made_teacher, disk / "teacher")
            both.append(Machine(rank, disk, f"skystill-{os.getpid()}-{end}", f"10.77.0.{rank + 1}"))
            try:
                ip("netns", "add", both[-1].space)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"no network namespaces: {getattr(error, 'stderr', error)}")
        one, other = both
        ip("link", "add", "cable", "netns", one.space, "type", "veth", "peer", "name", "cable", "netns", other.space)
        for machine in both:
            ip("-n", machine.space, "addr", "add", f"{machine.address}/24", "dev", "cable")
            ip("-n", machine.space, "link", "set", "lo", "up")
            machine.plug_the_cable_in()
        yield one, other
    finally:
        for machine in both:
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                ip("netns", "delete", machine.space)


@pytest.fixture(scope="module")
def made_teacher(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "teacher"
    run_alone(["train", f"--data={scenes}", f"--out={out}", "--network=unet?channels=8&depth=2", *SHORT, "--epochs=1"])
    return out


def run_alone(command: Sequence[str], cwd: Path | None = None) -> None:
    """Run a command on this machine."""
    done = subprocess.run(
        [sys.executable, "-m", "skystill", *command],
        cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def ends(*running: subprocess.Popen[str]) -> list[tuple[int, str]]:
    """Wait until processes have ended, and return the exit code and the errors of each."""
    said = [process.communicate()[1] for process in running]
    return [(process.returncode, text) for process, text in zip(running, said, strict=True)]


def when_it_trains(out: Path, *running: subprocess.Popen[str]) -> None:
    """Wait until a first checkpoint is there."""
    while not (out / "checkpoints/resume.pt").exists():
        assert all(process.poll() is None for process in running), ends(*running)
        time.sleep(0.05)


def kill(running: subprocess.Popen[str]) -> None:
    """Kill torchrun and its rank, as if the machine lost its power."""
    for process in (*psutil.Process(running.pid).children(recursive=True), psutil.Process(running.pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


DISTILL = ["distill", "--data=data", "--teacher=teacher", f"--student={STUDENT}", "--no-alone", *SHORT]


@pytest.fixture(scope="module")
def weights(machines: tuple[Machine, Machine]) -> bytes:
    """The weights of a distillation by two processes on one machine, which was not stopped."""
    run_alone([*DISTILL, "--out=alone", "--devices=2"], machines[0].disk)
    return written(machines[0].disk / "alone")


def written(out: Path) -> bytes:
    """The model file, which holds all weights and no path."""
    return (out / "student.onnx").read_bytes()


def test_the_weights_are_those_of_one_machine(machines: tuple[Machine, Machine], weights: bytes) -> None:
    one, other = machines
    for code, said in ends(*(machine.start([*DISTILL, "--out=out"]) for machine in machines)):
        assert code == 0, said
    assert written(one.disk / "out") == weights
    assert not (other.disk / "out").exists()  # all is written by the first rank


@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_machine_ends_the_run_and_a_resume_goes_on(
    machines: tuple[Machine, Machine], weights: bytes, lost: int
) -> None:
    command = [*DISTILL, f"--out=killed-{lost}"]
    running = [machine.start(command) for machine in machines]
    when_it_trains(machines[0].disk / f"killed-{lost}", *running)
    kill(running[lost])
    ended = ends(*running)
    assert ended[lost][0] == -signal.SIGKILL
    code, said = ended[1 - lost]
    assert code == 1 and f"rank {1 - lost} of 2: another rank was lost" in said, said
    for code, said in ends(*(machine.start([*command, "--resume"]) for machine in machines)):
        assert code == 0, said
    assert written(machines[0].disk / f"killed-{lost}") == weights


def test_a_cable_that_is_pulled_ends_the_run_and_a_resume_goes_on(
    machines: tuple[Machine, Machine], weights: bytes
) -> None:
    """Nothing tells the ranks that the other one is gone. Takes the minute of `LOST_SECONDS`."""
    command = [*DISTILL, "--out=pulled"]
    running = [machine.start(command) for machine in machines]
    when_it_trains(machines[0].disk / "pulled", *running)
    machines[1].pull_the_cable()
    try:
        for rank, (code, said) in enumerate(ends(*running)):
            assert code == 1 and f"rank {rank} of 2: another rank was lost" in said, said
    finally:
        machines[1].plug_the_cable_in()
    for code, said in ends(*(machine.start([*command, "--resume"]) for machine in machines)):
        assert code == 0, said
    assert written(machines[0].disk / "pulled") == weights


def test_ctrl_c_on_one_machine_stops_both_after_the_same_step(
    machines: tuple[Machine, Machine], weights: bytes
) -> None:
    command = [*DISTILL, "--out=stopped"]
    running = [machine.start(command) for machine in machines]
    when_it_trains(machines[0].disk / "stopped", *running)
    for process in psutil.Process(running[1].pid).children():
        process.send_signal(signal.SIGINT)
    for _, said in ends(*running):
        assert "stopped" in said and "rank was lost" not in said, said
    for code, said in ends(*(machine.start([*command, "--resume"]) for machine in machines)):
        assert code == 0, said
    assert written(machines[0].disk / "stopped") == weights


def test_a_training_without_a_teacher(machines: tuple[Machine, Machine]) -> None:
    command = ["train", "--data=data", f"--network={STUDENT}", *SHORT, "--epochs=2"]
    for code, said in ends(*(machine.start([*command, "--out=trained"]) for machine in machines)):
        assert code == 0, said
    run_alone([*command, "--out=trained-alone", "--devices=2"], machines[0].disk)
    same = [(machines[0].disk / name / "model.onnx").read_bytes() for name in ("trained", "trained-alone")]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (["--seed=1"], ["--seed=2"], ["rank 1 has other settings or data than rank 0", "--seed: 2"]),
        (["--data=data"], ["--data=fewer"], ["rank 1 has other settings", "the images"]),
        (["--teacher=teacher"], ["--teacher=another"], ["rank 1 has other settings", "the teachers: "]),
        (["--data=data"], ["--data=gone"], ["gone", "another rank was lost"]),
        (["--teacher-mode=cached", "--cache=l"], ["--teacher-mode=cached", "--cache=l"], ["images have no logits"]),
    ],
)
def test_what_is_not_the_same_on_both_machines_is_refused(
    machines: tuple[Machine, Machine], ours: list[str], theirs: list[str], says: list[str]
) -> None:
    other = machines[1].disk
    if not (other / "fewer").exists():
        shutil.copytree(other / "data", other / "fewer")
        for path in (other / "fewer").rglob("*11.*"):
            path.unlink()
        run_alone(["train", "--data=data", "--out=another", "--network=unet?channels=8&depth=2", "--seed=5", *SHORT,
                   "--epochs=1"], other)  # fmt: skip
    flags = (ours, theirs)
    running = [m.start([*DISTILL, "--out=refused", *own]) for m, own in zip(machines, flags, strict=True)]
    ended = ends(*running)
    text = " ".join(" ".join(said for _, said in ended).split())
    assert all(code == 1 for code, _ in ended) and all(part in text for part in says), text  # of torchrun, always 1
    assert not (machines[0].disk / "refused/config.yaml").exists()


def test_too_few_nodes_are_refused(machines: tuple[Machine, Machine]) -> None:
    """Each machine would train a network of its own."""
    for code, said in ends(*(machine.start([*DISTILL, "--out=few"], nodes=1) for machine in machines)):
        assert code == 1 and "Give --devices 1 --nodes 2" in " ".join(said.split()), said

"""What a command says while it works: every step has a line, everything is said once, names are text."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from markupsafe import Markup

from skystill.cli import bars
from skystill.errors import DamagedSource, DataError, InputsFailed, first_few, visible
from skystill.progress import SAID, Event, Message, Note, Progress, SaidOnce, named, phase
from skystill.report.environment import page_environment
from tests.cli.conftest import TINY, Done, process

Cli = Callable[..., Done]
ENDS = r": done in \d"


def in_order(lines: list[str], wanted: list[str]) -> None:
    """Check that lines which begin as wanted come in this order."""
    rest = iter(lines)
    for start in wanted:
        assert any(re.match(start, line) for line in rest), (start, lines)


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes, one after the other: half a minute, or five where the machine is busy
def test_every_step_of_a_distillation_has_a_line_and_everything_is_said_once(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli
) -> None:
    out, cache = tmp_path / "s", tmp_path / "logits"
    data = ["--data", scenes]
    done = process(
        "distill", *data, "--teacher", teacher, "--out", out, "--student=two-level", "--epochs=2", "--no-report",
        "--teacher-mode=cached", "--cache", cache, "--precision=bf16", *TINY,
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert "Automatic Mixed Precision" not in done.err
    assert done.err.count("pixels per class") == 1  # of three processes that look at the data
    notes = [line for line in lines if line.startswith("note: ")]
    assert len(notes) == len(set(notes))
    of_epochs = [r"epoch   1 .* about \d+ s left", "epoch   2 "]
    in_order(
        lines,
        [
            "pixels per class",
            rf"{cache}: the teacher's logits of 6 image\(s\) are computed",
            "opening teacher .*" + ENDS,
            "teacher" + ENDS,
            *(f"two-level distilled: {epoch}" for epoch in of_epochs),
            "writing model.safetensors and student.onnx" + ENDS,
            f"{out}/alone: no run had begun there; it begins with epoch 1 of 2",
            *(f"two-level: {epoch}" for epoch in of_epochs),
            "writing model.safetensors and model.onnx" + ENDS,
        ],
    )
    assert not re.search("epoch   2 .* left", done.err)

    next(cache.rglob("*.safetensors")).unlink()
    filling = ["cache", *data, "--teacher", teacher, "--cache", cache, TINY[-1]]
    goes_on = f"{cache}: the teacher's logits of 5 of 6 image(s) are cached; it goes on with the others: 0 MB."
    assert goes_on in skystill(*filling).err.splitlines()
    assert f"{cache}: the teacher's logits of all 6 image(s) are cached." in skystill(*filling).err.splitlines()


@pytest.mark.slow
def test_every_step_of_a_report_has_a_line(scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli) -> None:
    """The training itself is done; what comes after it is done again."""
    again = ["train", "--data", scenes, "--out", teacher, "--network", "unet?channels=8&depth=3", "--epochs=3"]
    done = skystill(*again, "--resume", *TINY)
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert f"{teacher / 'checkpoints/resume.pt'}: all 3 epochs are done." in lines
    steps = ["evaluating teacher", "measuring time and memory", "sample pictures", "computing the scores and their int"]
    in_order(lines, [f"{step}.*{ENDS}" for step in [*steps, "writing report.html"]])
    exported = skystill("export", teacher, "--out", tmp_path / "m.onnx")
    assert re.match(r"writing m.onnx: done in \d+ s\n", exported.err)


def test_nothing_is_said_twice_and_a_child_knows_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SAID, raising=False)
    seen: list[Event] = []
    said = SaidOnce(seen.append)
    assert said.environment == {SAID: ""}
    for event in (Note("a"), Message("b"), Note("a"), Progress("t", 1, 2), Progress("t", 1, 2), Note("c")):
        said(event)
    assert seen == [Note("a"), Message("b"), Progress("t", 1, 2), Progress("t", 1, 2), Note("c")]
    seen.clear()
    monkeypatch.setenv(SAID, said.environment[SAID])
    child = SaidOnce(seen.append)
    for event in (Note("c"), Note("d"), Message("b")):
        child(event)
    assert seen == [Note("d")]
    assert child.environment[SAID].startswith(said.environment[SAID])


def test_only_what_counts_steps_gets_the_name_of_a_training() -> None:
    seen: list[Event] = []
    on_progress = named(seen.append, "kite")
    on_progress(Progress("training", 1, 2, "steps"))
    with phase("writing a.onnx", on_progress):
        pass
    assert [event.task for event in seen if isinstance(event, Progress)] == ["kite", "writing a.onnx", "writing a.onnx"]


def test_a_step_that_reports_nothing_has_a_line_every_thirty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    display = bars.ProgressDisplay(lambda: now)
    for second in range(101):
        now = float(second)
        if second == 5:
            display(Progress("training", 0, 100, "steps"))
            display(Progress("training", 4, 100, "steps"))
        if second == 10:
            display(Progress("exporting", 0, 1, leaves_line=True))
        if second == 75:
            display(Progress("exporting", 1, 1, leaves_line=True))
        display.tick()
    assert capsys.readouterr().err.splitlines() == [
        "exporting: running for 30 s",
        "exporting: running for 1 min 00 s",
        "exporting: done in 1 min 05 s",
        "training: 4 %  4 of 100 steps  about 38 min 00 s left",  # 95 s for 4, 96 are left
    ]


def test_lists_of_files_have_an_end() -> None:
    problems = [f"{number}.tif: it cannot be read" for number in range(500)]
    for error in (
        DataError("500 of 2000 inputs had problems:", problems, "Mend them."),
        InputsFailed(2000, problems),
        DamagedSource("a.tif", Path("b.tif"), problems),
    ):
        lines = str(error).splitlines()
        assert "  - 19.tif: it cannot be read" in lines and "  - 20.tif: it cannot be read" not in lines
        assert "  - and 480 more" in lines and len(lines) <= 23
    assert DataError("x", problems).problems == problems
    assert first_few(problems[:20]) == problems[:20]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("roof", "roof"),
        ("שדה 🏠 é", "שדה 🏠 é"),
        ("می‌خواهم", "می‌خواهم"),  # a zero-width non-joiner: Persian needs it
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\rb\x07", "a\\rb\\x07"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("\u2066a\u2069\u200f", "\\u2066a\\u2069\\u200f"),
        ("a\u2028b\x9b", "a\\u2028b\\x9b"),
    ],
)
def test_what_would_act_on_a_terminal_is_shown_as_an_escape(
    name: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert visible(name) == shown
    display = bars.ProgressDisplay()
    display(Message(name))
    display(Progress(name, 1, 1, leaves_line=True))
    bars.console.print(name)
    said = capsys.readouterr()
    assert said.err == f"{shown}\n{shown}: done in 0 s\n".expandtabs() or "\t" in name
    assert said.out == f"{shown}\n".expandtabs() or "\t" in name
    assert not re.search("[\x07\x1b\u202e\u2066]", said.err + said.out)


def test_a_page_shows_escapes_and_keeps_its_markup() -> None:
    page = page_environment().from_string("{{ name }} {{ name | upper }} {{ safe }}")
    shown = page.render(name="a\u202e<b>שדה", safe=Markup("<i>\u202e</i>"))
    assert shown == "a\\u202e&lt;b&gt;שדה A\\u202e&lt;B&gt;שדה <i>\u202e</i>"

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from skystill.errors import SettingsError
from skystill.progress import Event, Message, Progress
from skystill.train import Supervised
from skystill.train.batches.batches import as_batch
from skystill.train.loop.checkpoint import Checkpointer
from skystill.train.loop.validation import Validation, best_epoch

from .test_loop import Batches, Killed, checkpointer, kill, task, weights


class Scored(Supervised):
    """Its validation mIoU is a given number for each epoch; everything else is real."""

    scores: tuple[float, ...] = ()

    def evaluate(self, test: object) -> dict[str, float]:
        return {"miou": self.scores[self.stepper.steps // Batches.steps_per_epoch - 1]}


def scored(*scores: float, seed: int = 0) -> Scored:
    made = task(seed)
    made.__class__ = Scored
    assert isinstance(made, Scored)
    made.scores = scores
    return made


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 1, 6, 6),
        ((0.5, 0.4, 0.3, 0.2, 0.1, 0.0), 1, 2, 1),
        ((0.1, 0.3, 0.2, 0.4, 0.1, 0.1), 2, 6, 4),
        ((0.1, 0.3, 0.2, 0.3, 0.3, 0.9), 3, 5, 2),  # equal is no improvement
        ((0.1, 0.3, 0.2, 0.1, 0.2, 0.2), 99, 6, 2),  # never stops, and keeps the best
        ((np.nan, 0.1, np.nan, 0.05, 0.0, 0.0), 3, 5, 2),
    ],
)
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_best_epoch_is_kept(
    scores: tuple[float, ...], patience: int, epochs: int, best: int, average: float
) -> None:
    if np.isnan(scores[0]):
        with pytest.raises(SettingsError, match="validation images with labels"):
            scored(*scores).fit(Batches(), Validation([], patience), 6, average=average, schedule="constant")
        return
    trained, said = scored(*scores), list[Event]()
    seen = list[dict[str, torch.Tensor]]()

    def look(network: torch.nn.Module) -> None:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})

    validation = Validation([], patience, look)
    history = trained.fit(Batches(), validation, 6, average=average, schedule="constant", on_progress=said.append)
    assert len(history) == epochs
    for name, value in weights(trained).items():
        assert torch.equal(value, seen[best - 1][name]), name
    (line,) = [event.text for event in said if isinstance(event, Message)]
    assert f"The weights of epoch {best} are kept: validation mIoU {scores[best - 1]:.3f}." in line
    assert (f"stopped after epoch {epochs}" in line) == (epochs - best == patience)
    last = [event for event in said if isinstance(event, Progress) and event.task == "training"][-1]
    assert last.done == last.total == 5 * epochs  # the bar ends


@pytest.mark.parametrize("moment", [(1, 0), (2, 3), (3, 4)])
def test_a_killed_run_with_patience_resumes_to_the_same_weights(tmp_path: Path, moment: tuple[int, int]) -> None:
    scores, path = (0.1, 0.4, 0.3, 0.2, 0.9, 0.9), tmp_path / "resume.pt"
    with pytest.raises(Killed):
        scored(*scores).fit(Batches({moment: kill}), Validation([], 2), 6, average=0.9, checkpointer=checkpointer(path))
    resumed, whole = scored(*scores, seed=1), scored(*scores)
    history = resumed.fit(Batches(), Validation([], 2), 6, average=0.9, checkpointer=checkpointer(path))
    assert len(history) == len(whole.fit(Batches(), Validation([], 2), 6, average=0.9)) == 4
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    # a run that had stopped trains no step more, and has the same weights
    again, said = scored(*scores, seed=2), list[Event]()
    more = again.fit(Batches(), Validation([], 2), 6, checkpointer=checkpointer(path), on_progress=said.append)
    assert more == history
    assert [event.text.split(",")[0] for event in said if isinstance(event, Message)] == [
        "the training stopped after epoch 4"
    ]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name


def test_without_patience_nothing_is_kept(tmp_path: Path) -> None:
    trained, path = scored(0.9, 0.1, 0.1), tmp_path / "resume.pt"
    trained.fit(Batches(), [], 3, average=0.9, checkpointer=Checkpointer(path, lambda rows: None))
    assert "kept" not in torch.load(path, weights_only=True)["stepper"]
    plain = task()
    plain.fit(Batches(), None, 3, average=0.9)
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(trained)[name]), name


def test_real_scores_and_bad_patience() -> None:
    def batches() -> Iterator[object]:
        generator = torch.Generator().manual_seed(7)
        images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=generator)
        yield as_batch((images, images.sum(dim=1).long() // 256))

    trained = task()
    held = list(batches())
    history = trained.fit(Batches(), Validation(held, 3), 8, schedule="constant")  # type: ignore[arg-type]
    best = max(row["validation_miou"] for row in history)
    assert trained.evaluate(held)["miou"] == best  # type: ignore[arg-type]
    assert history[best_epoch(history) - 1]["validation_miou"] == best
    with pytest.raises(SettingsError, match="patience is 0"):
        Validation([], 0)

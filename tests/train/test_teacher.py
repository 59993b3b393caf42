from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from skystill.classes import DUBAI, ClassMap
from skystill.errors import ClassCountMismatch, ClassOrderMismatch, RunFolderError
from skystill.run_folder import RunFolder
from skystill.train.models import build_network, write_network
from skystill.train.teacher import Teacher, are_probabilities, load_teacher


def test_probabilities_become_logits_that_softmax_back() -> None:
    logits = torch.randn(1, 4, 3, 3)
    teacher = Teacher(nn.Softmax(dim=1))
    assert torch.allclose(teacher(logits).softmax(dim=1), logits.softmax(dim=1), atol=1e-6)
    assert torch.equal(Teacher(nn.Identity())(logits), logits)


def test_a_probability_of_zero_stays_finite() -> None:
    certain = torch.zeros(1, 2, 1, 1)
    certain[0, 0] = 1.0
    assert torch.isfinite(Teacher(nn.Identity())(certain)).all()


def test_logits_are_not_taken_for_probabilities() -> None:
    assert are_probabilities(torch.rand(2, 3, 4, 4).softmax(dim=1).half())
    assert not are_probabilities(torch.rand(2, 3, 4, 4))
    assert not are_probabilities(torch.randn(2, 3, 4, 4))
    assert not are_probabilities(torch.tensor([1.5, -0.5]).reshape(1, 2, 1, 1))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = RunFolder(tmp_path)
    folder.config.write_text(yaml.safe_dump({"network": "two-level"}))
    about = {"network": "two-level", "classes": DUBAI.to_dict()}
    write_network(folder.weights, build_network("two-level", 6), about)
    return tmp_path


def test_a_run_is_a_teacher(run: Path) -> None:
    teacher, about = load_teacher(run, DUBAI)
    assert about["network"] == "two-level"
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_teacher_of_other_classes_names_both(run: Path) -> None:
    with pytest.raises(ClassCountMismatch, match=r"gives 6 classes .* has 2 \(a, b\)"):
        load_teacher(run, ClassMap(("a", "b"), ((1, 1, 1), (2, 2, 2))))
    with pytest.raises(ClassOrderMismatch, match=r"in this order; the data has Water, Unlabeled"):
        load_teacher(run, ClassMap(DUBAI.names[-2:] + DUBAI.names[:-2], DUBAI.colors))


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        load_teacher(tmp_path, DUBAI)

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from torch import nn

from fettle.recipes import recovery_training, teacher_answers
from fettle.recipes.teacher_answers import TeacherAnswers

IMAGES, LABELS = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])


class Teacher:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return images.flatten(1)[:, :3]


@pytest.fixture
def known(tmp_path: Path) -> TeacherAnswers:
    return TeacherAnswers(tmp_path / "scratch")


def _losses(teacher: Teacher, known: TeacherAnswers, times: int) -> list[float]:
    loss = recovery_training.distillation_loss(teacher, known, temperature=4.0, alpha=0.9)
    student = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    return [float(loss(student, IMAGES, LABELS).detach()) for _ in range(times)]


def test_the_teacher_is_asked_once_for_a_batch_that_comes_again(known: TeacherAnswers) -> None:
    teacher = Teacher()
    losses = _losses(teacher, known, 5)
    assert teacher.asked == 1
    assert len(set(losses)) == 1
    assert len(known) == 1


def test_kept_answers_are_read_back_to_the_bit(known: TeacherAnswers) -> None:
    for batch, rows in ((b"one", 4), (b"two", 7)):
        known.keep(batch, torch.rand(10, 3, generator=torch.manual_seed(rows))[:rows])
    for batch, rows in ((b"two", 7), (b"one", 4), (b"two", 7)):
        wanted = torch.rand(10, 3, generator=torch.manual_seed(rows))[:rows]
        assert torch.equal(known.get(batch), wanted)
    assert known.get(b"three") is None


def test_kept_answers_are_in_no_memory_and_in_no_folder(
    known: TeacherAnswers, tmp_path: Path
) -> None:
    known.keep(b"one", torch.rand(4, 3))
    assert list((tmp_path / "scratch").iterdir()) == []
    held = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
    assert [one for one in held if one.shape == (4, 3)] == []


def test_answers_without_room_are_asked_for_again(
    known: TeacherAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_answers, "ANSWERS_BYTES_MAX", 0)
    teacher = Teacher()
    losses = _losses(teacher, known, 5)
    assert teacher.asked == 5
    assert len(set(losses)) == 1
    assert len(known) == 0

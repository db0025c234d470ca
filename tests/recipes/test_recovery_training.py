from __future__ import annotations

import pytest
import torch
from torch import nn

from fettle.recipes import recovery_training

IMAGES, LABELS = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])


class Teacher:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return images.flatten(1)[:, :3]


def _losses(teacher: Teacher, known: dict[bytes, torch.Tensor], times: int) -> list[float]:
    loss = recovery_training.distillation_loss(teacher, known, temperature=4.0, alpha=0.9)
    student = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    return [float(loss(student, IMAGES, LABELS).detach()) for _ in range(times)]


def test_the_teacher_is_asked_once_for_a_batch_that_comes_again() -> None:
    teacher, known = Teacher(), dict[bytes, torch.Tensor]()
    losses = _losses(teacher, known, 5)
    assert teacher.asked == 1
    assert len(set(losses)) == 1
    assert len(known) == 1


def test_kept_answers_do_not_keep_the_memory_they_came_in() -> None:
    whole = torch.rand(1000, 3)
    known = dict[bytes, torch.Tensor]()
    loss = recovery_training.distillation_loss(
        lambda _: whole[:4], known, temperature=4.0, alpha=0.9
    )
    loss(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), IMAGES, LABELS)
    (kept,) = known.values()
    assert torch.equal(kept, whole[:4])
    assert kept.untyped_storage().nbytes() == kept.nbytes == 4 * 3 * 4


def test_answers_without_room_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_training, "ANSWERS_BYTES_MAX", 0)
    teacher, known = Teacher(), dict[bytes, torch.Tensor]()
    losses = _losses(teacher, known, 5)
    assert teacher.asked == 5
    assert len(set(losses)) == 1
    assert known == {}

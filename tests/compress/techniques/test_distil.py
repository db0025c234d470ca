from __future__ import annotations

import math

import pytest
import torch
from tiny_nets import Fits, build, compression_context
from torch.nn import functional as F

from fettle.compress.compression_plan import CompressionPlan, KeptChannels
from fettle.compress.techniques import distil

STUDENT = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 3.0]])
TEACHER = torch.tensor([[4.0, 1.0, -2.0], [1.0, 0.0, 2.0]])
LABELS = torch.tensor([0, 2])


def test_the_loss_is_the_formula_of_the_paper() -> None:
    temperature, alpha = 3.0, 0.7
    expected = 0.0
    for student, teacher, label in zip(STUDENT, TEACHER, LABELS, strict=True):
        p = [math.exp(v / temperature) for v in teacher.tolist()]
        q = [math.exp(v / temperature) for v in student.tolist()]
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        soft = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        whole = sum(math.exp(v) for v in student.tolist())
        hard = -math.log(math.exp(float(student[label])) / whole)
        expected += (alpha * temperature**2 * soft + (1 - alpha) * hard) / len(LABELS)
    found = distil.distillation_loss(STUDENT, TEACHER, LABELS, temperature=temperature, alpha=alpha)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_without_a_teacher_s_share_it_is_cross_entropy() -> None:
    found = distil.distillation_loss(STUDENT, TEACHER, LABELS, temperature=3.0, alpha=0.0)
    assert float(found) == pytest.approx(float(F.cross_entropy(STUDENT, LABELS)))


def test_a_student_that_answers_like_its_teacher_has_nothing_to_learn_from_it() -> None:
    student = TEACHER.clone().requires_grad_()
    found = distil.distillation_loss(student, TEACHER, LABELS, temperature=3.0, alpha=1.0)
    (gradient,) = torch.autograd.grad(found, student)
    assert found.detach().item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-6


def test_the_gradient_keeps_its_size_when_the_temperature_rises() -> None:
    sizes = []
    for temperature in (20.0, 40.0):
        student = STUDENT.clone().requires_grad_()
        found = distil.distillation_loss(
            student, TEACHER, LABELS, temperature=temperature, alpha=1.0
        )
        sizes.append(float(torch.autograd.grad(found, student)[0].norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_it_trains_once_and_leaves_the_plan_as_it_was() -> None:
    fit, plan = Fits(), CompressionPlan({"stem": KeptChannels(16, (0, 1), 1)})
    asked = distil.Params(epochs=7, learning_rate=1e-3, temperature=2.0, alpha=0.5)
    outcome = distil.apply(build("mobile"), plan, asked, compression_context(fit=fit))
    assert fit.asked == [("distil", 7)]
    assert fit.settings == [(1e-3, 2.0, 0.5)]
    assert outcome.plan is plan

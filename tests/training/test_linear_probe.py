from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fettle.training import inference, linear_probe

CLASSES = 4


def clusters(
    count: int, features: int, *, seed: int, scale: float = 1.0, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw features around a centre a class, stretched and moved: float32 [N, D], labels [N]."""
    draw = np.random.default_rng(7)
    centres = draw.normal(size=(CLASSES, features))
    draw = np.random.default_rng(seed)
    labels = draw.integers(CLASSES, size=count)
    found = centres[labels] + draw.normal(size=(count, features))
    return (found * scale + shift).astype(np.float32), labels


def network(features: int, *, dropout: float = 0.5) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, features, 3, padding=1),
        nn.BatchNorm2d(features),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(features, CLASSES),
    )


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    return draw.integers(256, size=(count, 1, 9, 9)).astype(np.uint8), draw.integers(
        CLASSES, size=count
    )


def normalise(pixels: np.ndarray) -> np.ndarray:
    return ((pixels / 255 - 0.5) / 0.25).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 40), st.floats(1e-3, 1e3), st.floats(-50, 50), st.integers(0, 99))
def test_a_folded_head_answers_as_the_probe_on_standardised_features(
    features: int, scale: float, shift: float, seed: int
) -> None:
    known, labels = clusters(60, features, seed=seed, scale=scale, shift=shift)
    probe = linear_probe.fit(known, labels, classes=CLASSES, strengths=[0.1])[0]
    mean, spread = known.mean(axis=0, dtype=np.float64), known.std(axis=0, dtype=np.float64)
    standard = (known - mean) / spread
    weight = probe.weight.double().numpy() * spread
    bias = probe.bias.double().numpy() + probe.weight.double().numpy() @ mean
    expected = standard @ weight.T + bias
    found = linear_probe.answers(probe, known)
    assert np.abs(found - expected).max() < 1e-3 * max(1.0, np.abs(expected).max(), abs(shift))


def test_the_model_with_the_probe_folded_in_gives_its_logits() -> None:
    model, (pixels, labels) = network(16), images(120)
    head = model[-1]
    known = linear_probe.features(model, head, pixels, normalise)
    assert known is not None
    probe = linear_probe.fit(known, labels, classes=CLASSES, strengths=[0.01])[0]
    linear_probe.fold(head, probe)
    found = inference.logits(model, pixels, normalise)
    np.testing.assert_allclose(found, linear_probe.answers(probe, known), atol=1e-4)


def test_the_fit_is_at_the_minimum_of_its_convex_loss() -> None:
    known, labels = clusters(200, 10, seed=1)
    probe = linear_probe.fit(known, labels, classes=CLASSES, strengths=[0.1])[0]
    mean, spread = known.mean(axis=0, dtype=np.float64), known.std(axis=0, dtype=np.float64)
    inputs = torch.from_numpy((known - mean) / spread).double()
    weight = (probe.weight.double() * torch.from_numpy(spread)).requires_grad_()
    bias = (probe.bias.double() + probe.weight.double() @ torch.from_numpy(mean)).requires_grad_()
    loss = nn.functional.cross_entropy(inputs @ weight.T + bias, torch.from_numpy(labels))
    (loss + 0.05 * weight.square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(float(weight.grad.abs().max()), float(bias.grad.abs().max())) < 1e-3


def test_the_probe_is_as_good_as_scikit_learns_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    known, labels = clusters(300, 20, seed=1)
    other, truth = clusters(300, 20, seed=2)
    standard = (known - known.mean(axis=0)) / known.std(axis=0)
    rival = LogisticRegression(C=1 / (0.1 * len(known)), max_iter=500).fit(standard, labels)
    guesses = rival.predict((other - known.mean(axis=0)) / known.std(axis=0))
    probe = linear_probe.fit(known, labels, classes=CLASSES, strengths=[0.1])[0]
    ours = linear_probe.answers(probe, other).argmax(axis=1)
    assert (ours == guesses).mean() > 0.99
    assert (ours == truth).mean() > 0.9


def test_the_strength_is_chosen_by_the_loss_on_other_images() -> None:
    known, labels = clusters(40, 30, seed=1)
    other, truth = clusters(400, 30, seed=2)
    probes = linear_probe.fit(known, labels, classes=CLASSES)
    assert [probe.strength for probe in probes] == sorted(linear_probe.STRENGTHS, reverse=True)
    losses = [inference.loss_of(linear_probe.answers(p, other), truth) for p in probes]
    best = linear_probe.best(probes, other, truth)
    assert inference.loss_of(linear_probe.answers(best, other), truth) == min(losses)
    assert max(losses) > min(losses) * 1.1, "the strengths must differ for this to say anything"


def test_a_feature_that_never_varies_gets_no_weight() -> None:
    known, labels = clusters(80, 6, seed=1)
    known[:, 2] = 3.5
    probe = linear_probe.fit(known, labels, classes=CLASSES, strengths=[0.01])[0]
    assert (probe.weight[:, 2] == 0).all()
    assert torch.isfinite(probe.weight).all()
    assert torch.isfinite(probe.bias).all()


def test_the_same_features_give_the_same_bits() -> None:
    known, labels = clusters(80, 6, seed=1)
    first, second = (linear_probe.fit(known, labels, classes=CLASSES)[0] for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_features_are_read_in_eval_mode_and_the_mode_is_given_back() -> None:
    model, (pixels, _) = network(8), images(12)
    model.train()
    first, second = (linear_probe.features(model, model[-1], pixels, normalise) for _ in range(2))
    assert model.training
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("head", "foldable"),
    [
        (nn.Linear(4, 3), True),
        (nn.Linear(4, 3, bias=False), False),
        (nn.Conv2d(4, 3, 1), False),
        (nn.Sequential(nn.Linear(4, 3)), False),
    ],
)
def test_only_a_linear_layer_with_a_bias_can_hold_a_probe(head: nn.Module, foldable: bool) -> None:
    assert linear_probe.foldable(head) is foldable


def test_a_head_that_gets_a_map_of_features_has_no_probe() -> None:
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Linear(7, CLASSES))
    pixels, _ = images(4)
    assert linear_probe.features(model, model[-1], pixels, normalise) is None

from __future__ import annotations

import re

import pytest
import torch
from pydantic import ValidationError
from tiny_nets import Fits, build, compression_context, images
from torch import nn
from torch.nn import functional as F

from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.techniques import sparse


def zeros(model: nn.Module) -> dict[str, int]:
    found, _ = sparse._weights(model, {})
    return {name: int((weight == 0).sum()) for name, weight in found.items()}


class Adam:
    """Train for real, a few steps: zeros must stay zeros under momentum and weight decay."""

    def __call__(self, model: nn.Module, *, epochs: int, **_: object) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        for _step in range(5 * epochs):
            optimizer.zero_grad()
            F.cross_entropy(model(images(16)), torch.arange(16) % 3).backward()  # type: ignore[no-untyped-call] # torch
            optimizer.step()


def test_the_smallest_share_of_all_weights_goes_whatever_the_layer() -> None:
    weights = {"a": torch.tensor([[1.0, -2.0], [3.0, 4.0]]), "b": torch.tensor([[0.1, -0.2]])}
    masks = sparse.magnitude_masks(weights, 0.5)
    assert masks["a"].tolist() == [[False, True], [True, True]]
    assert masks["b"].tolist() == [[False, False]]


def test_the_n_largest_of_every_m_stay_and_a_rest_stays_whole() -> None:
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.1], [5.0, 0.0, 0.0, -1.0, 0.2]])
    kept = sparse.n_of_m_mask(weight, n=2, m=4)
    assert kept.int().tolist() == [[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]]


def test_zeros_survive_training_with_momentum_and_decay() -> None:
    model = build("plain")
    asked = sparse.Params(share=0.8, recover_epochs=3)
    sparse.apply(model, CompressionPlan(), asked, compression_context(fit=Adam()))  # type: ignore[arg-type] # a Fit with fewer names
    total = sum(weight.numel() for weight in sparse._weights(model, {})[0].values())
    assert sum(zeros(model).values()) == round(total * 0.8)


def test_a_threshold_is_a_share_of_the_layer_s_largest_weight() -> None:
    model = build("plain")
    sparse.apply(
        model,
        CompressionPlan(),
        sparse.Params(threshold=0.5, recover_epochs=0),
        compression_context(),
    )
    for weight in sparse._weights(model, {})[0].values():
        kept = weight.detach()[weight.detach() != 0].abs()
        assert float(kept.min()) >= 0.5 * float(weight.detach().abs().max())


def test_l1_training_draws_weights_towards_zero_first() -> None:
    class Gradients(Fits):
        seen: float = 0.0

        def __call__(self, model: nn.Module, **settings: object) -> None:
            super().__call__(model, **settings)  # type: ignore[arg-type] # passed on
            weight = model.get_submodule("classifier").weight
            (weight * 0).sum().backward()  # type: ignore[operator, union-attr] # a Parameter; a gradient of zero
            self.seen = float((weight.grad - 0.3 * weight.detach().sign()).abs().max())  # type: ignore[operator, union-attr] # as above

    fit = Gradients()
    asked = sparse.Params(share=0.5, l1=0.3, l1_epochs=4, recover_epochs=0)
    sparse.apply(build("plain"), CompressionPlan(), asked, compression_context(fit=fit))
    assert fit.asked == [("l1", 4)]
    assert fit.seen == pytest.approx(0, abs=1e-7)


def test_the_note_says_that_only_the_compressed_file_shrinks() -> None:
    outcome = sparse.apply(
        build("plain"), CompressionPlan(), sparse.Params(share=0.9), compression_context()
    )
    (note,) = outcome.notes
    found = re.fullmatch(
        r"14,731 of 16,368 weights are zero; deflated they take ([\d,]+) bytes where it were "
        r"([\d,]+), in the file as many as before",
        note,
    )
    assert found is not None
    after, before = (int(digits.replace(",", "")) for digits in found.groups())
    assert after < before / 3


def test_a_protected_layer_keeps_all_its_weights_and_is_named() -> None:
    model = build("plain")
    outcome = sparse.apply(
        model,
        CompressionPlan(),
        sparse.Params(share=0.9),
        compression_context(protected={"classifier": "so"}),
    )
    assert outcome.skipped == {"classifier": "so"}
    assert zeros(model)["classifier"] == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"share": 0.5, "threshold": 0.1}, "give one of share, threshold and n_of_m"),
        ({"n_of_m": [4, 4]}, "n_of_m keeps n of every m weights: [4, 4] keeps them all"),
    ],
)
def test_rules_that_contradict_one_another_are_refused(
    options: dict[str, object], text: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        sparse.Params.model_validate(options)
    assert caught.value.errors()[0]["msg"] == f"Value error, {text}"

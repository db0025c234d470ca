from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_nets import build, images
from torch import Tensor, nn
from torch.nn import functional as F

from fettle.compress import channel_groups, channel_importance

LABELS = torch.arange(16) % 3


def batch() -> Iterator[tuple[Tensor, Tensor]]:
    yield images(16).double(), LABELS


def loss_with_gate(model: nn.Module, layer: str, channel: int, gate: float) -> float:
    """Scale one channel of a layer's output by `gate` and take the loss."""

    def scale(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        factors = torch.ones(output.shape[1], dtype=output.dtype)
        factors[channel] = gate
        return output * factors.view(-1, *[1] * (output.ndim - 2))

    handle = model.get_submodule(layer).register_forward_hook(scale)
    with torch.no_grad():
        value = float(F.cross_entropy(model(images(16).double()), LABELS))
    handle.remove()
    return value


@pytest.mark.parametrize(
    ("name", "layer"),
    [("mobile", "stem_norm"), ("mobile", "expand"), ("flat", "first"), ("flat", "hidden")],
)
def test_a_gate_s_sensitivity_is_how_the_loss_moves_when_the_channel_is_scaled(
    name: str, layer: str
) -> None:
    model = build(name).double()
    found = channel_importance.gate_sensitivities(model, batch(), images_max=16)[layer]
    step = 1e-4
    for channel in range(0, len(found), 5):
        up = loss_with_gate(model, layer, channel, 1 + step)
        down = loss_with_gate(model, layer, channel, 1 - step)
        assert float(found[channel]) == pytest.approx(abs(up - down) / (2 * step), abs=1e-6)


def test_sensitivities_leave_no_gradient_behind() -> None:
    model = build("mobile")
    channel_importance.gate_sensitivities(model, [(images(16), LABELS)], images_max=16)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_sensitivities_add_up_over_small_batches_and_stop_at_the_count() -> None:
    model = build("mobile")
    one = channel_importance.gate_sensitivities(model, [(images(16), LABELS)], images_max=16)
    double = [(torch.cat([images(16)] * 2), torch.cat([LABELS] * 2))] * 3
    two = channel_importance.gate_sensitivities(model, double, images_max=32)
    torch.testing.assert_close(two["stem_norm"], 2 * one["stem_norm"])


def test_taylor_reads_the_normalisations_of_a_group_where_it_has_some() -> None:
    model = build("mobile")
    groups, _ = channel_groups.find_groups(model, images(1), {})
    group = next(g for g in groups if "expand" in g.producers)
    assert group.norms == {"expand_norm", "depthwise_norm"}
    gates = {
        "expand": torch.full((48,), 100.0),
        "expand_norm": torch.arange(48.0),
        "depthwise_norm": torch.ones(48),
    }
    generator = torch.Generator()
    found = channel_importance.score_channels(group, "taylor", generator=generator, gates=gates)
    assert found is not None
    assert found.tolist() == (torch.arange(48.0) + 1).tolist()


def test_taylor_reads_the_producers_of_a_group_without_normalisation() -> None:
    groups, _ = channel_groups.find_groups(build("flat"), images(1), {})
    group = next(g for g in groups if g.name == "first")
    found = channel_importance.score_channels(
        group, "taylor", generator=torch.Generator(), gates={"first": torch.arange(24.0)}
    )
    assert found is not None
    assert found.tolist() == list(range(24))


def test_taylor_without_any_sensitivity_has_nothing_to_read() -> None:
    groups, _ = channel_groups.find_groups(build("flat"), images(1), {})
    assert (
        channel_importance.score_channels(groups[0], "taylor", generator=torch.Generator()) is None
    )


def test_normalised_scores_have_mean_one_and_zeros_stay_zero() -> None:
    assert float(
        channel_importance.normalise_scores(torch.tensor([1.0, 5.0])).mean()
    ) == pytest.approx(1.0)
    assert channel_importance.normalise_scores(torch.zeros(3)).tolist() == [0, 0, 0]

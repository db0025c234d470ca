from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from fettle.models.families import small_cnn


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_stem_alone_takes_the_stride(stride: int) -> None:
    options = small_cnn.Params(width=4, depth=2, blocks=2, stem_stride=stride)
    model = small_cnn.build(options, classes=3, channels=1, size_px=32, project=Path())
    sides = []
    for name, block in model.named_children():
        if name.startswith("block"):
            block.register_forward_hook(lambda *called: sides.append(called[2].shape[-1]))
    assert model.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    assert sides == [32 // stride, 16 // stride]


def test_a_stride_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValidationError, match="stem_stride"):
        small_cnn.Params(stem_stride=3)  # type: ignore[arg-type]

"""Add kernels up; made-up ones, so the sums are known."""

from __future__ import annotations

import pytest

from fettle.hardware import kernel_profile
from fettle.hardware.runtimes import Kernel

KERNELS = [
    Kernel(name="a", kind="Conv", int8=False, ms=0.3),
    Kernel(name="b", kind="QLinearConv", int8=True, ms=0.5),
    Kernel(name="c", kind="Add", int8=False, ms=0.1),
    Kernel(name="d", kind="Conv", int8=False, ms=0.1),
]


def test_kinds_add_up_with_the_most_time_first() -> None:
    found = kernel_profile.of_kernels(KERNELS)
    assert found.ms == pytest.approx(1.0)
    assert [(k.kind, k.kernels) for k in found.kinds] == [
        ("QLinearConv", 1),
        ("Conv", 2),
        ("Add", 1),
    ]
    assert [k.ms for k in found.kinds] == pytest.approx([0.5, 0.4, 0.1])
    assert [name for name, _, _ in found.slowest] == ["b", "a", "c", "d"]


def test_shares_tell_what_is_int8_and_what_int8_could_gain() -> None:
    found = kernel_profile.of_kernels(KERNELS)
    assert found.int8_share == pytest.approx(0.5)
    assert found.heavy_share == pytest.approx(0.9)
    assert found.int8_bound == pytest.approx(1 / (0.1 + 0.9 / 4))


def test_the_json_form_names_every_column() -> None:
    doc = kernel_profile.of_kernels(KERNELS).to_json()
    assert doc["kinds"][0] == {"kind": "QLinearConv", "kernels": 1, "ms": 0.5, "int8_share": 1.0}
    assert doc["slowest"][0] == {"name": "b", "kind": "QLinearConv", "ms": 0.5}

from __future__ import annotations

from pathlib import Path

import pytest

from fettle.errors import TargetError
from fettle.hardware import energy_measurement


class Powercap:
    """A folder as the kernel shows it; `use` lets the package use microjoules."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, label in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core")):
            (root / name).mkdir()
            (root / name / "name").write_text(f"{label}\n")
            (root / name / "energy_uj").write_text("900000\n")
            (root / name / "max_energy_range_uj").write_text("1000000\n")

    def use(self, microjoules: int) -> None:
        path = self.root / "intel-rapl:0" / "energy_uj"
        path.write_text(f"{(int(path.read_text()) + microjoules) % 1_000_000}\n")


def test_the_joules_of_an_image_are_those_of_the_package(tmp_path: Path) -> None:
    power = Powercap(tmp_path)
    found = energy_measurement.measure(lambda: power.use(1000), images=20, root=tmp_path)
    assert (found.value, found.unit, found.n) == (pytest.approx(0.001), "J", 20)


def test_a_counter_that_wraps_is_followed(tmp_path: Path) -> None:
    power = Powercap(tmp_path)
    found = energy_measurement.measure(lambda: power.use(50_000), images=4, root=tmp_path)
    assert found.value == pytest.approx(0.05)


def test_without_a_counter_energy_is_refused_and_never_estimated(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "name").write_text("package-0\n")
    with pytest.raises(TargetError) as caught:
        energy_measurement.measure(lambda: None, images=1, root=tmp_path)
    assert str(caught.value) == (
        "compress.objective.minimise: energy cannot be measured here (NOT_MEASURED): got no energy "
        f"counter that may be read under {tmp_path}; energy_j is read from the processor's RAPL "
        "counters, and never estimated. Fix: run on bare metal as a user who may read energy_uj, "
        "or minimise latency_p50_ms."
    )

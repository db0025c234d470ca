from __future__ import annotations

import pytest

from fettle import plugins
from fettle.errors import ParamsError


def test_a_plug_in_is_found_by_its_file_name() -> None:
    module = plugins.resolve("targets", "x86_ort_fp32", where="targets[0]")
    assert module.TARGET.runtime == "ort"


def test_a_misspelt_name_gets_the_choices_and_the_nearest() -> None:
    with pytest.raises(ParamsError) as caught:
        plugins.resolve("targets", "x86_ort_fp23", where="targets[0]")
    assert str(caught.value) == (
        "targets[0]: unknown name: got 'x86_ort_fp23', did you mean 'x86_ort_fp32'?; the choices "
        f"are the files of fettle/hardware/targets: {', '.join(plugins.names('targets'))}. Fix: "
        "set targets[0] to one of them, or add fettle/hardware/targets/x86_ort_fp23.py."
    )


@pytest.mark.parametrize(
    "folder", ["sources", "families", "techniques", "quantizers", "checks", "targets", "runtimes"]
)
def test_every_plug_in_says_what_it_is(folder: str) -> None:
    found = plugins.names(folder)
    assert found
    for name in found:
        assert len(plugins.summary(folder, name)) > 20, name

"""An edit makes exactly those stages stale that reach it: thirty seeded edits, by digests alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from source_edits import (
    ALL,
    EVALUATES,
    EXPORTS,
    READERS,
    Change,
    Copy,
    above,
    changed,
    inside,
    settings,
    swap,
)

RUNNERS = {"latency_table", "compress", "verdict", "package"} | EXPORTS | EVALUATES
# what is edited: its file, the change, the stages that become stale
EDITS: dict[str, tuple[str, Change, set[str]]] = {
    "a comment": ("fettle/training/training_loop.py", above("# a remark"), set()),
    "a comment in a line": ("stages/compress.py", swap(r"^(READS = .*)$", r"\1  # x"), set()),
    "blank lines": (
        "fettle/compress/techniques/prune.py",
        swap(r"^def apply", "\n\n\ndef apply"),
        set(),
    ),
    "brackets": (
        "stages/compress.py",
        swap(r"^MEASURES = (\w+)", r"MEASURES = (\n    \1\n)"),
        set(),
    ),
    "a module's docstring": ("stages/finetune.py", swap(r'\A"""', '"""Otherwise: '), set()),
    "a function's docstring": (
        "fettle/models/export_onnx.py",
        swap(r'^    """', '    """Otherwise: '),
        set(),
    ),
    "a helper of one stage": ("stages/finetune.py", inside("_curve_row"), {"finetune"}),
    "the training loop": (
        "fettle/training/training_loop.py",
        inside("fit"),
        {"finetune", "compress"},
    ),
    "a learning-rate schedule's name": (
        "fettle/training/learning_rate_schedule.py",
        swap(r"^def (\w+)\(", r"def \1_renamed("),
        {"finetune", "compress"},
    ),
    "a technique of the recipe": (
        "fettle/compress/techniques/prune.py",
        inside("apply"),
        {"compress"},
    ),
    "what such a technique proposes": (
        "fettle/compress/techniques/prune.py",
        inside("proposals"),
        {"compress"},
    ),
    "a technique that is not in it": (
        "fettle/compress/techniques/sparse.py",
        inside("apply"),
        set(),
    ),
    "how int8 is calibrated": (  # repeats no search
        "fettle/quantize/quantizers/calibrated_int8.py",
        inside("apply"),
        {"export@x86_ort_int8"},
    ),
    "which layers go back to float": (
        "fettle/quantize/float_fallback.py",
        inside("rank_layers"),
        {"export@x86_ort_int8"},
    ),
    "the int8 quantizer": (  # repeats no search: the latency table does not reach it
        "fettle/quantize/static_int8.py",
        inside("finish"),
        {"export@x86_ort_int8"},
    ),
    "how int8 biases are corrected": (
        "fettle/quantize/bias_correction.py",
        inside("correct"),
        {"export@x86_ort_int8"},
    ),
    "the int8 layout, whose kernels the latency table times": (
        "fettle/quantize/int8_layout.py",
        inside("lay_out"),
        {"latency_table", "export@x86_ort_int8"},
    ),
    "the int8 form that is timed alone": (
        "fettle/quantize/uncalibrated_int8.py",
        inside("apply"),
        {"latency_table"},
    ),
    "int4 weights, which no target here has": (
        "fettle/quantize/quantizers/weight_int4.py",
        inside("apply"),
        set(),
    ),
    "a target": (
        "fettle/hardware/targets/x86_ort_int8.py",
        swap("channel_multiple=8", "channel_multiple=16"),
        {"validate", "latency_table", "compress", "export@x86_ort_int8", "evaluate@x86_ort_int8"},
    ),
    "a target's docstring": (
        "fettle/hardware/targets/x86_ort_int8.py",
        swap(r'\A"""', '"""O: '),
        set(),
    ),
    "a target that is not asked for": (
        "fettle/hardware/targets/x86_openvino_int8.py",
        swap(r"channel_multiple=\d+", "channel_multiple=2"),
        set(),
    ),
    "the runtime": ("fettle/hardware/runtimes/ort.py", inside("open"), RUNNERS),
    "how that runtime compiles": (
        "fettle/hardware/runtimes/ort.py",
        inside("compile"),
        RUNNERS - {"compress"},
    ),
    "a runtime that no target has": (  # the float model is timed under every runtime that is here
        "fettle/hardware/runtimes/openvino.py",
        inside("open"),
        EVALUATES,
    ),
    "the source": ("fettle/data/sources/digits.py", swap("255 / 16", "256 / 16"), {"ingest"}),
    "another source": ("fettle/data/sources/image_folder.py", inside("read"), set()),
    "the family": (
        "fettle/models/families/small_cnn.py",
        inside("build"),
        {"finetune", "compress"},
    ),
    "another family": ("fettle/models/families/resnet.py", inside("build"), set()),
    "a check of the data": ("fettle/data/checks/balance.py", inside("rules"), {"validate"}),
    "the page of the checks": ("fettle/data/validation.html", above("<!-- x -->"), {"validate"}),
    "the style it inlines": ("fettle/report/page.css", above("/* x */"), {"validate"}),
    "the report": ("fettle/report/html_page.py", inside("render"), set()),
    "the supervisor": ("fettle/rollout/supervisor/controller_process.py", inside("main"), set()),
    "a comment that a release carries": (
        "fettle/serving/asgi_app.py",
        above("# a remark"),
        {"package"},
    ),
    "the search": ("fettle/recipes/search/search_loop.py", inside("search"), {"compress"}),
    "how pixels are normalised": ("fettle/preprocessing.py", inside("Preprocess"), READERS),
    "how latencies are taken": (
        "fettle/hardware/latency_measurement.py",
        inside("interleave"),
        {"latency_table"} | EVALUATES,
    ),
    "the manifest's schema": ("fettle/manifest.py", swap("^SCHEMA = 1", "SCHEMA = 2"), ALL),
    "how the runner reports": ("stages/__main__.py", inside("explain"), set()),
    "the first stage": ("stages/inputs.py", inside("write"), set()),
}


@pytest.mark.parametrize(("file", "change", "stale"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_makes_exactly_these_stages_stale(
    file: str,
    change: Change,
    stale: set[str],
    copy: Copy,
    edit: Callable[[str, Change], None],
) -> None:
    edit(file, change)
    assert changed(copy, copy.documents(settings())) == stale


AUTO = "compress.recipe=auto"
SEARCHED = {
    "a technique that the search may propose": (
        "fettle/compress/techniques/sparse.py",
        "apply",
        {"compress"},
    ),
    "what a finalist is finished with": (
        "fettle/compress/techniques/distil.py",
        "apply",
        {"compress"},
    ),
    "the family of a student": ("fettle/models/families/small_cnn.py", "build", {"compress"}),
    "a family that nobody names": ("fettle/models/families/torch_module.py", "build", set()),
    "the int4 quantizer": ("fettle/quantize/quantizers/weight_int4.py", "apply", set()),
    "the int8 quantizer": ("fettle/quantize/static_int8.py", "drafts", {"export@x86_ort_int8"}),
}


@pytest.mark.parametrize(("file", "name", "stale"), SEARCHED.values(), ids=SEARCHED.keys())
def test_a_search_reaches_what_it_may_propose(
    file: str, name: str, stale: set[str], copy: Copy, edit: Callable[[str, Change], None]
) -> None:
    searched = settings(AUTO, "finetune.family=resnet")
    before = copy.documents(searched)
    edit(file, inside(name))
    after = copy.documents(searched)
    assert {name for name in after if after[name] != before[name]} == stale

"""A precision is one record: each is whole, each target names one, a new one is one entry."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fettle import params_schema, plugins
from fettle.errors import TargetError
from fettle.hardware import precisions
from fettle.hardware.precisions import PRECISIONS, Precision
from fettle.hardware.targets import Target

ROOT = Path(__file__).resolve().parents[2]
NAMES = precisions.names()
# Files that hold rules for every precision, and so must not compare one's name.
RULES = (
    "stages",
    "fettle/report",
    "fettle/hardware",
    "fettle/evaluation",
    "fettle/recipes",
    "fettle/cli",
)


def test_all_precisions_are_found_from_the_most_exact_down() -> None:
    assert NAMES == ["fp32", "bf16", "w16", "fixed", "w8", "w4", "dynamic_int8", "int8"]


@pytest.mark.parametrize("target", plugins.names("targets"))
def test_every_target_names_a_known_precision(target: str) -> None:
    record: Target = plugins.resolve("targets", target, where="targets").TARGET
    assert record.precision in NAMES
    dialects = precisions.named(record.precision).dialects
    assert record.dialect in (dialects or (None,))


def test_every_precision_has_a_target() -> None:
    records = [plugins.resolve("targets", n, where="t").TARGET for n in plugins.names("targets")]
    assert {record.precision for record in records} == set(NAMES)


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda one: one.name)
def test_every_quantizer_exists_and_takes_what_its_record_says(precision: Precision) -> None:
    quantize = precisions.load_quantizer(precision)
    if quantize is None:
        assert (precision.needs_calibration, precision.settings) == (False, ())
        return
    images = ("batches", "held_out") if precision.needs_calibration else ()
    told = ("dialect",) if len(precision.dialects) > 1 else ()
    wanted = {"model", "out", *images, *precision.settings, *told}
    assert set(inspect.signature(quantize).parameters) == wanted
    assert set(precision.settings) <= params_schema.Export.model_fields.keys()


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda one: one.name)
def test_a_record_s_numbers_are_possible(precision: Precision) -> None:
    assert 0.5 < precision.top1_min <= 1
    assert 0 < precision.bytes_per_weight <= 4


def test_naming_quantizers_imports_none_of_them() -> None:
    asked = (
        "import sys, fettle.hardware.precisions, fettle.hardware.targets.x86_ort_int8; "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_misspelt_precision_is_told_its_neighbour() -> None:
    with pytest.raises(TargetError) as caught:
        target("dynamic_int4", None)
    assert str(caught.value) == (
        "unknown precision: got 'dynamic_int4', did you mean 'dynamic_int8'?; the choices are the "
        "entries of fettle/hardware/precisions.py: fp32, bf16, w16, fixed, w8, w4, dynamic_int8, "
        "int8. Fix: name one of them in the target's record, or add an entry."
    )


@pytest.mark.parametrize(
    ("precision", "dialect", "told"),
    [
        ("int8", None, "got None; int8 files are in qdq_u8s8 or "),
        ("int8", "qdq_s8s8", "got 'qdq_s8s8'; int8 files are in qdq_u8s8 or "),
        (
            "w8",
            "qdq_u8s8",
            "got 'qdq_u8s8'; w8 files are in no dialect. Fix: set dialect to None",
        ),
    ],
)
def test_a_dialect_that_is_not_the_precision_s_is_refused(
    precision: str, dialect: str | None, told: str
) -> None:
    with pytest.raises(TargetError) as caught:
        target(precision, dialect)
    text = str(caught.value)
    assert text.startswith(f"a target of precision {precision} names the wrong dialect: {told}")


def target(precision: str, dialect: str | None) -> Target:
    return Target(
        hardware="x86 CPU",
        family="x86 CPU",
        machine=("x86_64",),
        runtime="ort",
        precision=precision,
        dialect=dialect,
        channel_multiple=8,
    )


@pytest.mark.parametrize("folder", RULES)
def test_no_rule_for_all_precisions_compares_a_name(folder: str) -> None:
    files = [path for path in (ROOT / folder).glob("*.py") if not path.name.startswith("x86_")]
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                held = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                assert held.isdisjoint(NAMES), f"{path.name}:{node.lineno} compares a precision"


ENTRIES = """
    Precision(
        name="half",
        bytes_per_weight=2,
        top1_min=0.95,
        quantizer="weight_fp16",
    ),
    Precision(
        name="u8",
        bytes_per_weight=1,
        top1_min=0.75,
        quantizer="calibrated_int8",
        needs_calibration=True,
        settings=("calibrate", "weight_bits", "disagreement_max"),
        dialects=("another",),
        timed_as_int8=True,
        saturates_without_vnni=True,
    ),
"""
RECORD = '''"""This machine, ONNX Runtime."""

import platform

from fettle.hardware.targets import Target

TARGET = Target(
    hardware="CPU",
    family="CPU",
    machine=(platform.machine(),),
    runtime="ort",
    precision="{precision}",
    dialect={dialect!r},
    channel_multiple=8,
)
'''
LINE = """
import json, sys
from pathlib import Path
from tiny_project import TinyProject, settings
from fettle import manifest
from fettle.recipes import recipe_search
from fettle.recorder import MemoryRecorder
from fettle.report import artifact_reader, precision_ladder, target_rows
from stages import evaluate, export

root, names = Path(sys.argv[1]), sys.argv[2:]
project = TinyProject(root, noise=0.9, width=512)
reads = ("ingest", "validate", "finetune", "compress", "export")
facts = {}
for name in names:
    out = project.folder(f"export@{name}")
    made = export.run(settings(), project.inputs(*reads[:-1], target=name), out, MemoryRecorder())
    project.seal(f"export@{name}", facts=made.facts)
    out = project.folder(f"evaluate@{name}")
    seen = evaluate.run(settings(), project.inputs(*reads, target=name), out, MemoryRecorder())
    project.seal(f"evaluate@{name}", facts=seen.facts, measures=dict(seen.measures))
    facts[name] = {**made.facts.to_object(), **seen.facts.to_object()}
rows = precision_ladder.rungs(target_rows.targets(artifact_reader.read(root), None, []))
weights = {name: recipe_search.bytes_per_weight(name, []) for name in names}
print(json.dumps({"facts": facts, "rungs": [r["precision"] for r in rows], "bytes": weights}))
"""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Two new entries and a target of each in a copy of the sources, then export to report."""
    copy = tmp_path_factory.mktemp("clone")
    for name in ("fettle", "stages", "tests/support"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", copy)
    path = copy / "fettle/hardware/precisions.py"
    before = '\n    Precision(\n        name="w8",'
    assert path.read_text().count(before) == 1
    path.write_text(path.read_text().replace(before, ENTRIES.rstrip() + before))
    dialects = {"fp32": None, "half": None, "u8": "another"}
    for precision, dialect in dialects.items():
        record = RECORD.format(precision=precision, dialect=dialect)
        (copy / f"fettle/hardware/targets/here_ort_{precision}.py").write_text(record)
    done = subprocess.run(
        [sys.executable, "-c", LINE, str(copy / "project"), *(f"here_ort_{p}" for p in dialects)],
        env={"PYTHONPATH": f"{copy}:{copy}/tests/support", "OMP_NUM_THREADS": "1"},
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_new_entry_is_exported_by_its_quantizer(line: dict) -> None:  # type: ignore[type-arg]
    half, fitted = line["facts"]["here_ort_half"], line["facts"]["here_ort_u8"]
    assert (half["precision"], half["dialect"]) == ("half", None)
    assert half["quantized_ops"] == {"Conv": 2, "Gemm": 1}
    assert half["size_bytes"] < line["facts"]["here_ort_fp32"]["size_bytes"]
    assert "calibration_images" not in half
    assert (fitted["precision"], fitted["dialect"]) == ("u8", "another")
    assert (fitted["calibration_images"], fitted["calibrate"]) == (48, "minmax")


def test_a_new_entry_is_measured_and_judged(line: dict) -> None:  # type: ignore[type-arg]
    assert {one["evidence"] for one in line["facts"].values()} == {"measured"}
    assert "without_vnni" in line["facts"]["here_ort_u8"]
    assert "without_vnni" not in line["facts"]["here_ort_half"]


def test_a_new_entry_has_its_step_in_the_report_and_its_bytes_in_the_search(
    line: dict,  # type: ignore[type-arg]
) -> None:
    assert line["rungs"] == ["fp32", "half", "u8"]
    assert line["bytes"] == {"here_ort_fp32": 4, "here_ort_half": 2, "here_ort_u8": 1}

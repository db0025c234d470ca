"""Facts models: what is written is read back to equal bytes, and what does not fit is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sample_facts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sample_facts import FACTS

from fettle import manifest
from fettle.errors import ProjectError
from fettle.facts.evaluate_facts import EvaluateFacts, ProfileDocument, WithoutVnni
from fettle.facts.export_facts import ExportFacts
from fettle.facts.finetune_facts import CurveEpoch, TrainingCurve
from fettle.facts.package_facts import PackageFacts
from fettle.facts.select_facts import CHOICE, ChoiceDocument
from fettle.facts.typed_document import TypedDocument
from fettle.facts.verdict_facts import VerdictDocument
from fettle.measure import Measure

TEXT = st.text(max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
PACKAGE = st.builds(
    PackageFacts, digest=TEXT, target=TEXT, passed=st.booleans(), size_bytes=st.integers(0, 2**40)
)
EXPORT = st.fixed_dictionaries(
    {
        "target": TEXT,
        "hardware": TEXT,
        "runtime": TEXT,
        "version": st.none() | TEXT,
        "precision": TEXT,
        "dialect": st.none() | TEXT,
    },
    optional={
        "refused": TEXT,
        "unavailable": TEXT,
        "entry": st.none() | TEXT,
        "size_bytes": st.integers(0, 2**40),
        "calibrate_errors": st.dictionaries(TEXT, NUMBER, max_size=3),
        "kept_float": st.lists(TEXT, max_size=3).map(tuple),
        "disagreement": NUMBER,
        "quantized_ops": st.dictionaries(TEXT, st.integers(0, 99), max_size=3),
    },
).map(lambda given: ExportFacts(**given))


def seal(folder: Path, stage: str, facts: TypedDocument) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write(folder, stage, inputs={}, measures={}, facts=facts)
    return (folder / manifest.NAME).read_bytes()


def spoil(folder: Path, change: Any) -> None:
    """Change the facts of a sealed folder's manifest by hand."""
    doc = json.loads((folder / manifest.NAME).read_text())
    change(doc["facts"])
    manifest.write_json(folder / manifest.NAME, doc)


@pytest.mark.parametrize("stage", sorted(FACTS))
def test_each_stage_s_facts_are_written_again_to_equal_bytes(tmp_path: Path, stage: str) -> None:
    before = seal(tmp_path, stage, sample_facts.of(stage))
    read = manifest.read(tmp_path, FACTS[stage])
    assert seal(tmp_path, stage, read.facts) == before
    assert read.digest == manifest.read(tmp_path).digest


def test_every_stage_that_seals_an_artefact_has_facts() -> None:
    stages = {p.stem for p in (Path(manifest.__file__).parents[1] / "stages").glob("[!_]*.py")}
    assert set(FACTS) == stages - {"inputs"}
    assert set(sample_facts.SAMPLES) == set(FACTS)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(facts=PACKAGE | EXPORT)
def test_whatever_the_values_a_round_trip_changes_no_byte(
    tmp_path: Path, facts: TypedDocument
) -> None:
    before = seal(tmp_path, "any", facts)
    again = manifest.read(tmp_path, type(facts)).facts
    assert again == facts
    assert seal(tmp_path, "any", again) == before


def test_a_key_that_was_not_given_is_not_written_and_none_is(tmp_path: Path) -> None:
    plain = sample_facts.of("export")
    assert "kept_float" not in json.loads(seal(tmp_path, "export", plain))["facts"]
    facts = sample_facts.of("export", {"entry": None})
    assert json.loads(seal(tmp_path, "export", facts))["facts"]["entry"] is None


@pytest.mark.parametrize("stage", sorted(FACTS))
def test_an_unknown_key_is_refused_by_file_and_key(tmp_path: Path, stage: str) -> None:
    folder = tmp_path / "artifacts" / stage
    seal(folder, stage, sample_facts.of(stage))
    spoil(folder, lambda facts: facts.update(surprise=1))
    with pytest.raises(ProjectError) as caught:
        manifest.read(folder, FACTS[stage])
    model = FACTS[stage]
    assert str(caught.value) == (
        f"{folder / 'manifest.json'} is not as this fettle writes it: got facts.surprise: unknown "
        f"key; it has the keys of {model.__name__} ({model.__module__.replace('.', '/')}.py); "
        "another version of fettle may have written it. "
        f"Fix: delete {folder} and run `fettle run`, which makes it again."
    )


@pytest.mark.parametrize(
    ("stage", "key"),
    [(stage, key) for stage in sorted(FACTS) for key in sample_facts.SAMPLES[stage]],
)
def test_a_missing_key_is_refused_by_file_and_key(tmp_path: Path, stage: str, key: str) -> None:
    folder = tmp_path / "artifacts" / stage
    seal(folder, stage, sample_facts.of(stage))
    spoil(folder, lambda facts: facts.pop(key))
    with pytest.raises(ProjectError) as caught:
        manifest.read(folder, FACTS[stage])
    assert str(caught.value).startswith(
        f"{folder / 'manifest.json'} is not as this fettle writes it: got facts.{key}: missing; "
    )


def test_a_value_of_another_type_is_refused_by_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "ingest"
    seal(folder, "ingest", sample_facts.of("ingest"))
    spoil(folder, lambda facts: facts["classes"]["left"].update(train="3"))
    with pytest.raises(ProjectError, match=r"got facts\.classes\.left\.train: Input should be a"):
        manifest.read(folder, FACTS["ingest"])


def test_facts_that_nobody_asks_for_are_not_looked_into(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "ingest"
    seal(folder, "ingest", sample_facts.of("ingest"))
    spoil(folder, lambda facts: facts.clear())
    assert manifest.read(folder).stage == "ingest"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused_where_it_is_made(bad: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        WithoutVnni(reason="x", agreement=bad)


def test_facts_cannot_be_changed_once_made() -> None:
    facts = EvaluateFacts.unmeasured("t", "no runtime", None)
    with pytest.raises(ValidationError, match="frozen"):
        facts.verdict = "ship"  # type: ignore[misc]  # that is the point


def test_a_whole_measure_stays_whole(tmp_path: Path) -> None:
    speedup = {"value": 2, "unit": "x", "n": 3, "low": 1, "high": 3}
    sample_facts.write_choice(tmp_path, "t", {"target": "t", "speedup": speedup})
    text = (tmp_path / CHOICE).read_text()
    choice = ChoiceDocument.read(tmp_path / CHOICE)
    assert choice.row().speedup == Measure(**speedup)
    choice.write(tmp_path / CHOICE)
    assert (tmp_path / CHOICE).read_text() == text
    assert '"value": 2' in text


@pytest.mark.parametrize("change", [{"n": 0}, {"unit": ""}, {"value": "2"}, {"extra": 1}])
def test_a_measure_that_is_none_is_refused_by_its_place(
    tmp_path: Path, change: dict[str, object]
) -> None:
    doc = {**sample_facts.SAMPLES["verdict"], "measures": {"accuracy": {**MEASURE, **change}}}
    path = tmp_path / "artifacts" / "verdict" / "verdict.json"
    manifest.write_json(path, doc)
    with pytest.raises(ProjectError) as caught:
        VerdictDocument.read(path)
    assert f"{path} is not as this fettle writes it: got measures.accuracy" in str(caught.value)


MEASURE = {"value": 0.5, "unit": "1", "n": 9, "low": None, "high": None}


def test_a_list_of_rows_is_a_file_of_its_own(tmp_path: Path) -> None:
    epoch = CurveEpoch(
        epoch=1,
        phase="all",
        train_loss=0.5,
        validation_loss=0.5,
        validation_accuracy=1.0,
        learning_rate=0.1,
    )
    TrainingCurve((epoch,)).write(tmp_path / "curve.json")
    assert TrainingCurve.read(tmp_path / "curve.json").root == (epoch,)
    TrainingCurve(()).write(tmp_path / "curve.json")
    assert (tmp_path / "curve.json").read_text() == "[]\n"


def test_a_file_that_is_not_there_or_no_json_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "artifacts" / "evaluate" / "x86_ort_fp32" / "profile.json"
    with pytest.raises(ProjectError) as caught:
        ProfileDocument.read(path)
    again = f"Fix: delete {path.parent} and run `fettle run`, which makes it again."
    assert str(caught.value) == f"{path} is not there; its stage writes it. {again}"
    manifest.write_text(path, "{")
    with pytest.raises(ProjectError, match="the whole: Invalid JSON"):
        ProfileDocument.read(path)


def test_no_model_of_facts_imports_torch_or_a_runtime() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "numpy", "pyarrow"}
    code = "import sys, fettle.facts.stage_facts; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = done.stdout.split()
    assert "fettle.facts.export_facts" in found
    assert not heavy & set(found)

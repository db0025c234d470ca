"""Hold schema.json to the types: made of them, whole, and met by whatever the types can hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from fettle.facts.answer_parity import AnswerParity
from fettle.facts.quantities import Milliseconds, Share
from fettle.facts.search_document import SearchDocument
from fettle.measure import Measure
from fettle.report import report_facts, report_json
from fettle.report.report_document import FailureFacts, Gap, GateVerdict, StageFacts
from fettle.report.report_values import (
    Compression,
    Facts,
    Metric,
    Quality,
    TargetFacts,
    Yardstick,
)
from tools import schema as generator

# A Measure or an estimate of any unit, and what a surrogate foresaw, have no bounds.
UNBOUNDED = {"MeasuredFigure", "EstimateRow", "TriedRecipe/properties/foreseen_drop"}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return json.loads(generator.FILE.read_text())


def nodes(schema: object, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk every part of a schema."""
    if isinstance(schema, dict):
        yield path, schema
        for key, inner in schema.items():
            yield from nodes(inner, f"{path}/{key}")
    elif isinstance(schema, list):
        for inner in schema:
            yield from nodes(inner, path)


def test_the_committed_schema_is_what_the_types_generate() -> None:
    assert generator.FILE.read_text() == generator.generate(), "run `make schema`"


def test_the_schema_is_a_valid_one(described: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(described)


def test_every_key_has_a_text_and_every_number_a_unit_and_a_range(
    described: dict[str, Any],
) -> None:
    keys = numbers = 0
    for path, node in nodes(described):
        properties = node.get("properties", {})
        for key, schema in properties.items():
            assert schema.get("description"), f"{path}/{key}"
        keys += len(properties)
        if node.get("type") in ("integer", "number"):
            assert node["unit"], path
            bounded = "minimum" in node or any(name in path for name in UNBOUNDED)
            assert bounded, path
            numbers += 1
    assert keys > 180
    assert numbers > 80


def test_no_key_of_the_schema_by_hand_is_gone(described: dict[str, Any]) -> None:
    """The keys of fettle.report/1 as it was first published: none may go within the version."""
    assert set(described["required"]) == {
        *("schema", "name", "finished", "verdict", "stages", "failures", "validation"),
        *("quality", "compression", "baseline", "plain", "targets", "recipe", "search"),
        *("profile", "release", "data", "environment", "missing", "warnings"),
        "licences",  # added since
    }
    assert set(described["$defs"]["TargetRow"]["required"]) == {
        *("target", "verdict", "evidence", "reason", "chosen", "size_bytes", "accuracy"),
        *("accuracy_interval", "parity", "latency_ms", "speedup", "measures", "best_float"),
        *("kept_float", "runtime", "precision", "kept_int8", "without_vnni"),
        # added since, for targets that are not timed here
        *("hardware", "drop", "accelerator_share", "estimates", "next_command"),
    }
    assert set(described["$defs"]["QualityTable"]["required"]) == {
        *("metric", "split", "float", "compressed", "drop", "metrics", "churn"),
    }
    assert described["$defs"]["StageFacts"]["required"] == [
        *("name", "seconds", "cached", "made_seconds"),
    ]


def test_a_program_that_validates_accepts_a_key_that_a_later_version_adds(
    described: dict[str, Any], finished: Path
) -> None:
    doc = json.loads(json.dumps(report_json.to_json(report_facts.collect(finished))))
    doc["later"] = 1
    doc["search"]["later"] = 1
    doc["targets"][0]["parity"]["later"] = 1
    jsonschema.validate(doc, described)


def test_a_number_out_of_its_range_does_not_meet_the_schema(
    described: dict[str, Any], finished: Path
) -> None:
    doc = json.loads(json.dumps(report_json.to_json(report_facts.collect(finished))))
    doc["quality"]["float"]["high"] = 1.2
    with pytest.raises(jsonschema.ValidationError, match=r"1\.2 is greater than the maximum of 1"):
        jsonschema.validate(doc, described)


@dataclass(frozen=True)
class Undocumented:
    """A document whose second key nobody explained."""

    share: Share
    """The share."""
    spent: Milliseconds


def test_a_key_without_a_text_is_refused_by_name() -> None:
    definition: dict[str, Any] = {"properties": {"share": {}, "spent": {}}}
    with pytest.raises(SystemExit) as refused:
        generator.describe(definition, Undocumented)
    assert str(refused.value) == "Undocumented.spent has no text below it: say what it is"
    assert definition["properties"]["share"] == {"description": "The share."}


def test_report_schema_prints_the_file_outside_any_project(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "fettle.cli.main", "report", "--schema"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == generator.FILE.read_text()


def measures(low: float, high: float, unit: str) -> some.SearchStrategy[Measure | None]:
    """Measures within a range: some exact, some with an interval, some not taken."""
    ends = some.lists(some.floats(low, high, allow_nan=False), min_size=3, max_size=3).map(sorted)
    images = some.integers(1, 10**6)
    exact = some.builds(Measure, value=some.floats(low, high), unit=some.just(unit), n=images)
    spread = some.builds(
        lambda e, n: Measure(value=e[1], unit=unit, n=n, low=e[0], high=e[2]), ends, images
    )
    return some.none() | exact | spread


SHARES, CHANGES = measures(0, 1, "1"), measures(-1, 1, "1")
TIMES, LATENCIES = measures(0, 1e9, "x"), measures(0, 1e9, "ms")
WORDS = some.text(max_size=12)
MAYBE = some.none() | WORDS
SECONDS = some.none() | some.floats(0, 1e9)
SIZES = some.none() | some.integers(0, 2**63)
LAYERS = some.none() | some.lists(WORDS, max_size=3).map(tuple)
METRICS = some.builds(
    Metric, name=WORDS, split=WORDS, float_=SHARES, compressed=SHARES, drop=CHANGES
)
QUALITIES = some.builds(
    lambda rows, churn: Quality(
        metric=rows[0].name, metrics={row.name: row for row in rows}, churn=churn
    ),
    some.lists(METRICS, min_size=1, max_size=3),
    SHARES,
)
PARITIES = some.builds(
    AnswerParity,
    cosine=some.floats(-1, 1),
    max_abs=some.floats(0, 1e6),
    top1=some.floats(0, 1),
)
TAKEN = LATENCIES.filter(bool)
TARGETS = some.builds(
    TargetFacts,
    name=WORDS,
    verdict=some.sampled_from(["ship", "refused"]),
    evidence=some.sampled_from(["measured", "not measured"]),
    reason=MAYBE,
    chosen=some.booleans(),
    size_bytes=SIZES,
    accuracy=SHARES,
    parity=some.none() | PARITIES,
    latency_ms=some.none()
    | some.fixed_dictionaries({"p50": TAKEN}, optional={"p95": TAKEN, "p99": TAKEN}),
    speedup=TIMES,
    best_float=MAYBE,
    kept_float=LAYERS,
    runtime=MAYBE,
    precision=MAYBE,
    kept_int8=LAYERS,
    more=some.dictionaries(WORDS, measures(-1e9, 1e9, "J").filter(bool), max_size=3),
)
YARDSTICKS = some.builds(Yardstick, accuracy=SHARES, latency_p50_ms=LATENCIES, size_bytes=SIZES)
STAGES = some.builds(StageFacts, WORDS, SECONDS, some.none() | some.booleans(), SECONDS)


@given(
    quality=some.none() | QUALITIES,
    targets=some.lists(TARGETS, max_size=3).map(tuple),
    ratios=some.builds(
        Compression, params_ratio=TIMES, macs_ratio=TIMES, size_ratio=TIMES, latency_ratio=TIMES
    ),
    yardsticks=some.tuples(YARDSTICKS, YARDSTICKS),
    stages=some.lists(STAGES, max_size=3).map(tuple),
    failures=some.lists(some.builds(FailureFacts, WORDS, WORDS, WORDS), max_size=2).map(tuple),
    gaps=some.lists(some.builds(Gap, WORDS, WORDS), max_size=2).map(tuple),
    verdict=some.builds(
        GateVerdict,
        passed=some.none() | some.booleans(),
        reasons=some.lists(WORDS, max_size=2).map(tuple),
        chosen=MAYBE,
        why=MAYBE,
    ),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_facts_hold_meets_the_schema(finished: Path, **parts: Any) -> None:
    known = known_facts(finished)
    baseline, plain = parts.pop("yardsticks")
    facts = replace(known, compression=parts.pop("ratios"), baseline=baseline, plain=plain, **parts)
    text = json.dumps(report_json.to_json(facts), allow_nan=False)
    validator().validate(json.loads(text))


KNOWN: dict[Path, Facts] = {}


def known_facts(finished: Path) -> Facts:
    """Read the finished project once for all examples."""
    if finished not in KNOWN:
        KNOWN[finished] = report_facts.collect(finished)
    return KNOWN[finished]


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(generator.FILE.read_text()))


def test_what_a_stage_leaves_out_of_its_file_stays_out(finished: Path) -> None:
    known = known_facts(finished)
    search = known.details.search
    assert isinstance(search, SearchDocument)
    doc = report_json.to_json(known)
    trials = doc["search"]["trials"]
    assert "value" in trials[0]
    assert "value" not in trials[-1], "this recipe gave no model"
    assert trials[0]["foreseen_drop"] is None
    assert "relative" not in doc["targets"][0]["parity"]

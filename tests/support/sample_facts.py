"""Facts of every stage with invented values, so that a test states only what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fettle.facts.compress_facts import CompressFacts
from fettle.facts.evaluate_facts import EvaluateFacts
from fettle.facts.export_facts import ExportFacts
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.facts.ingest_facts import IngestFacts
from fettle.facts.latency_table_facts import LatencyTableFacts
from fettle.facts.package_facts import PackageFacts
from fettle.facts.select_facts import CHOICE, ChoiceDocument, SelectFacts
from fettle.facts.typed_document import TypedDocument
from fettle.facts.validate_facts import ValidateFacts
from fettle.facts.verdict_facts import VERDICT, VerdictDocument, VerdictFacts

FACTS: Mapping[str, type[TypedDocument]] = {
    "ingest": IngestFacts,
    "validate": ValidateFacts,
    "finetune": FinetuneFacts,
    "latency_table": LatencyTableFacts,
    "compress": CompressFacts,
    "export": ExportFacts,
    "evaluate": EvaluateFacts,
    "select": SelectFacts,
    "verdict": VerdictFacts,
    "package": PackageFacts,
}

PARITY = {"cosine": 1.0, "max_abs": 0.0, "relative": 0.0, "top1": 1.0}
SPLITS = {"train": 3, "validation": 2, "test": 2}
BUDGET = {"metric": "accuracy", "drop_max": 0.02, "confidence": 0.95}
SAMPLES: Mapping[str, Mapping[str, Any]] = {
    "ingest": {
        "source": "digits",
        "digest": "d" * 64,
        "rows": 14,
        "unreadable": 0,
        "groups": 0,
        "classes": {"left": SPLITS, "right": SPLITS},
        "splits": {"train": "drawn", "validation": "drawn", "test": "drawn"},
    },
    "validate": {
        "passed": True,
        "rows": 14,
        "quarantined": 0,
        "by_rule": {},
        "classes": {"left": SPLITS, "right": SPLITS},
        "checks": [],
    },
    "finetune": {
        "family": "onnx_file",
        "options": {},
        "classes": ["left", "right"],
        "channels": 1,
        "size_px": 8,
        "trains": False,
        "epochs": 0,
        "params": 1000,
        "notes": [],
    },
    "latency_table": {"checks": {}, "not_measured": {}},
    "compress": {
        "classes": ["left", "right"],
        "trains": False,
        "calibration_digest": "c" * 64,
        "recipe": [],
        "steps": [],
        "parity": PARITY,
    },
    "export": {
        "target": "x86_ort_fp32",
        "hardware": "x86",
        "runtime": "ort",
        "version": "1.23.0",
        "precision": "fp32",
        "dialect": None,
    },
    "evaluate": {
        "target": "x86_ort_fp32",
        "verdict": "ship",
        "evidence": "measured",
        "reason": "faster",
        "size_bytes": 90_000,
        "parity": None,
        "latency_ms": None,
    },
    "select": {"target": "x86_ort_fp32", "goal_met": True, "why": "the only one"},
    "verdict": {
        "passed": True,
        "reasons": [],
        "failed": [],
        "target": "x86_ort_fp32",
        "metric": "accuracy",
        "budget": {"status": "met", "bound": 0.01, "n_needed": None},
        "split": "test",
        "classes": ["left", "right"],
        "n": 4,
    },
    "package": {"digest": "b" * 64, "target": "x86_ort_fp32", "passed": True, "size_bytes": 9},
}
ROW: Mapping[str, Any] = {
    "target": "x86_ort_fp32",
    "verdict": "ship",
    "evidence": "measured",
    "reason": "faster",
    "size_bytes": 90_000,
    "value": None,
    "drop": None,
    "chance": 0.9,
    "inside_budget": True,
    "accuracy": None,
    "speedup": None,
    "over": [],
}


def of(address: str, given: Mapping[str, Any] | TypedDocument | None = None) -> TypedDocument:
    """Return the facts of "export@target" or "ingest": what is given over the sample's."""
    if isinstance(given, TypedDocument):
        return given
    stage, _, target = address.partition("@")
    own = {"target": target} if target else {}
    return FACTS[stage].model_validate({**SAMPLES[stage], **own, **(given or {})}, strict=False)


def write_choice(
    folder: Path, target: str, *rows: Mapping[str, Any], why: str = "the only one"
) -> None:
    """Write choice.json; each row says at least its target."""
    doc = {
        "target": target,
        "objective": {"minimise": "latency_p50_ms", "on": None},
        "budget": BUDGET,
        "chance_min": 0.7,
        "limits": {},
        "goal_met": True,
        "why": why,
        "candidates": [{**ROW, **row} for row in rows],
    }
    ChoiceDocument.model_validate(doc, strict=False).write(folder / CHOICE)


def write_verdict(folder: Path, **given: Any) -> None:
    """Write verdict.json: what is given over the sample's."""
    doc = {**SAMPLES["verdict"], "measures": {}, **given}
    VerdictDocument.model_validate(doc, strict=False).write(folder / VERDICT)

"""Stage facts: which model is of which stage, for a reader of all artefacts at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fettle.facts.compress_facts import CompressFacts
from fettle.facts.evaluate_facts import EvaluateFacts
from fettle.facts.export_facts import ExportFacts
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.facts.ingest_facts import IngestFacts
from fettle.facts.latency_table_facts import LatencyTableFacts
from fettle.facts.package_facts import PackageFacts
from fettle.facts.select_facts import SelectFacts
from fettle.facts.typed_document import TypedDocument
from fettle.facts.validate_facts import ValidateFacts
from fettle.facts.verdict_facts import VerdictFacts

FACTS: Mapping[str, type[TypedDocument]] = MappingProxyType(
    {
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
)

"""Latency-table facts: how far its predictions are off, and what was not measured."""

from __future__ import annotations

from collections.abc import Mapping

from fettle.facts.typed_document import TypedDocument


class PredictedNetwork(TypedDocument):
    """A network that the table did not learn from: its time as predicted and as measured."""

    macs: int
    predicted_ms: float
    measured_ms: float


class LatencyTableFacts(TypedDocument):
    """Facts of `stages/latency_table.py`: checks by target; {target: why it has no table}."""

    checks: Mapping[str, tuple[PredictedNetwork, ...]]
    not_measured: Mapping[str, str]

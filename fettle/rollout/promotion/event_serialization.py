"""Serialization of events and decisions as JSON, exact: a float's repr reads back to its bits.

An attempt is a list, not an object: there are thousands of them, and this order is the format.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, TypeAlias

from fettle.rollout.promotion.champion_history import ChampionHistory
from fettle.rollout.promotion.decision_engine import (
    Begin,
    Decision,
    Event,
    Observed,
    Offline,
    Ordered,
    OrderedBy,
)
from fettle.rollout.promotion.gate_verdict import GateResult, Tally, Verdict
from fettle.rollout.promotion.request_records import (
    Arm,
    Attempt,
    InputObservation,
    Label,
    Record,
    ShadowPair,
)
from fettle.rollout.promotion.rollout_plan import RolloutPlan, Step, Stored
from fettle.rollout.promotion.rollout_state import Verb

Json: TypeAlias = Stored
Row: TypeAlias = list[Any]  # type: ignore[explicit-any]  # by position; its first says which


def begin_to_json(begin: Begin) -> Json:
    """Return the JSON form of a rollout's start, its plan within."""
    return {**asdict(begin), "plan": begin.plan.to_json()}


def begin_from_json(doc: Json) -> Begin:
    """Read it back."""
    plan = doc["plan"]
    steps = tuple(map(Step.from_json, plan["steps"]))
    shadow = tuple(plan["shadow_gates"])
    bins = doc["reference"]
    history = doc.get("history")
    return Begin(
        **{
            **doc,
            "plan": RolloutPlan(**{**plan, "steps": steps, "shadow_gates": shadow}),
            "reference": None if bins is None else tuple(bins),
            "history": None if history is None else _history_from_json(history),
            "by": OrderedBy(**doc["by"]),
        }
    )


def _history_from_json(doc: Json) -> ChampionHistory:
    sums = {name: tuple(tuple(one) for one in doc[name]) for name in ("errors", "refused")}
    return ChampionHistory(**{**doc, **sums})


def event_to_json(event: Event) -> Json:
    """Return the JSON form of an event."""
    match event:
        case Offline():
            found = [result.to_dict() for result in event.results]
            return {"offline": found, "now_s": event.now_s}
        case Observed():
            rows = [_record_to_json(record) for record in event.records]
            return {"observed": rows, "error": event.error, "now_s": event.now_s}
        case Ordered():
            return {"ordered": event.verb.value, "now_s": event.now_s, **asdict(event.by)}


def event_from_json(doc: Json) -> Event:
    """Read it back."""
    now_s = doc["now_s"]
    if "offline" in doc:
        return Offline(now_s=now_s, results=tuple(map(_result_from_json, doc["offline"])))
    if "observed" in doc:
        records = tuple(map(_record_from_json, doc["observed"]))
        return Observed(now_s=now_s, records=records, error=doc["error"])
    by = OrderedBy(doc["who"], doc["why"])
    return Ordered(now_s=now_s, verb=Verb(doc["ordered"]), by=by)


def decision_to_json(decision: Decision) -> Json:
    """Return the JSON form of a decision."""
    doc = asdict(decision)
    if not decision.state.ran_again:
        del doc["state"]["ran_again"]  # so that journals of before it replay
    doc["actions"] = [{k: v for k, v in one.items() if v is not None} for one in doc["actions"]]
    return doc


def _record_to_json(record: Record) -> list[str | float | None]:
    match record:
        case Attempt():
            flags = (record.arm.value, record.assigned.value, int(record.replay))
            return [
                "a", record.request_id, record.time_s, *flags,
                record.weight, record.status, _number(record.latency_ms), record.key_hash,
            ]  # fmt: skip
        case ShadowPair():
            return [
                "p",
                record.request_id,
                record.time_s,
                record.champion,
                record.challenger,
                record.label,
            ]
        case Label():
            return ["l", record.request_id, record.time_s, record.correct]
        case InputObservation():
            return ["s", record.request_id, record.time_s, record.arm.value, record.bin_index]


def _number(value: float) -> float | None:
    """Write what is no number as null: JSON has no NaN."""
    return value if math.isfinite(value) else None


def _record_from_json(row: Row) -> Record:
    kind, request_id, time_s, *rest = row
    match kind:
        case "a":
            arm, assigned, replay, weight, status, latency_ms, key_hash = rest
            return Attempt(
                request_id=request_id,
                time_s=time_s,
                arm=Arm(arm),
                assigned=Arm(assigned),
                replay=bool(replay),
                weight=weight,
                status=status,
                latency_ms=math.nan if latency_ms is None else latency_ms,
                key_hash=key_hash,
            )
        case "p":
            champion, challenger, label = rest
            return ShadowPair(
                request_id=request_id,
                time_s=time_s,
                champion=champion,
                challenger=challenger,
                label=label,
            )
        case "l":
            return Label(request_id=request_id, time_s=time_s, correct=rest[0])
        case _:
            return InputObservation(
                request_id=request_id, time_s=time_s, arm=Arm(rest[0]), bin_index=rest[1]
            )


def _result_from_json(doc: Json) -> GateResult:
    tallies = {
        arm: None if doc[arm] is None else Tally(**doc[arm]) for arm in ("champion", "challenger")
    }
    return GateResult(**{**doc, "verdict": Verdict(doc["verdict"]), **tallies})

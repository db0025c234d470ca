"""Target rows: what `evaluate` measured, one a target, and the two files each was held against."""

from __future__ import annotations

from fettle.facts.evaluate_facts import EvaluateFacts
from fettle.facts.export_facts import ExportFacts
from fettle.facts.select_facts import ChoiceDocument
from fettle.report import number_format
from fettle.report.artifact_reader import ArtifactTree, not_run
from fettle.report.report_document import Gap
from fettle.report.report_values import TargetFacts, Yardstick

LATENCIES = ("p50", "p95", "p99")
TARGET_OWN = ("accuracy", "speedup", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
PARTS = ("accuracy", "parity", "latency_ms", "speedup", "size_bytes")


def yardsticks(tree: ArtifactTree, chosen: str | None) -> tuple[Yardstick, Yardstick]:
    """Take the float model's and the plain form's figures from the chosen target's rounds.

    Without a choice from the first measured target's: each was timed beside both.
    """
    rows = {n: sealed for n, sealed in tree.matrix("evaluate").items() if sealed.measures}
    name = chosen if chosen in rows else next(iter(rows), None)
    facts = tree.facts(f"evaluate@{name}", EvaluateFacts) if name else None
    if name is None or facts is None:
        return Yardstick(), Yardstick()
    sealed = rows[name]
    compress = tree.artifacts.get("compress")
    baseline = Yardstick(
        accuracy=sealed.measures.get("baseline_accuracy"),
        latency_p50_ms=sealed.measures.get("baseline_latency_p50_ms"),
        size_bytes=facts.baseline_size_bytes,
    )
    plain = Yardstick(
        accuracy=compress.measures.get("accuracy") if compress else None,
        latency_p50_ms=sealed.measures.get("plain_latency_p50_ms"),
        size_bytes=facts.plain_size_bytes,
    )
    return baseline, plain


def targets(
    tree: ArtifactTree, choice: ChoiceDocument | None, gaps: list[Gap]
) -> tuple[TargetFacts, ...]:
    """Read every target's row; what was never timed has the verdict that `select` gave it."""
    chosen = choice.target if choice else None
    judged = {row.target: row for row in choice.candidates} if choice else {}
    rows = []
    for name, sealed in tree.matrix("evaluate").items():
        facts = sealed.typed(EvaluateFacts, tree.folder(f"evaluate@{name}")).facts
        measures, made = sealed.measures, tree.facts(f"export@{name}", ExportFacts)
        latency = {
            p: measures[f"latency_{p}_ms"] for p in LATENCIES if f"latency_{p}_ms" in measures
        }
        said = facts if facts.next_command is None else judged.get(name, facts)
        row = TargetFacts(
            name=name,
            verdict=said.verdict,
            evidence=facts.evidence,
            reason=said.reason,
            chosen=name == chosen,
            size_bytes=facts.size_bytes,
            accuracy=measures.get("accuracy"),
            parity=facts.parity,
            latency_ms=latency or None,
            speedup=measures.get("speedup"),
            best_float=facts.best_float,
            kept_float=made.kept_float if made else None,
            runtime=made.runtime if made else None,
            precision=made.precision if made else None,
            kept_int8=made.kept_int8 if made else None,
            without_vnni=facts.without_vnni,
            hardware=made.hardware if made else None,
            accelerator_share=facts.accelerator_share,
            estimates=facts.estimates or (),
            next_command=facts.next_command,
            more={key: m for key, m in measures.items() if key not in TARGET_OWN},
        )
        rows.append(row)
        gaps += [
            Gap(f"targets[{name}].{part}", why_absent(row))
            for part in PARTS
            if getattr(row, part) is None
        ]
    for name in tree.matrix("export"):
        if f"evaluate@{name}" not in tree.artifacts:
            gaps.append(Gap(f"targets[{name}]", not_run(f"evaluate@{name}", tree)))
    return tuple(rows)


def why_absent(row: TargetFacts) -> str:
    """Say why a part of a target's row is not there."""
    if row.next_command and row.evidence != "not measured":
        return f"{row.evidence}: never timed here"
    return row.reason or "not measured"


def notes(target: TargetFacts) -> list[str]:
    """Say what stands behind a target's row: what it beat, what the runtime did, its limits."""
    said = []
    over = target.more.get("speedup_over_best_float")
    if target.best_float and over:
        said.append(
            f"{number_format.times_interval(over)} the speed of the float model in "
            f"{target.best_float}, its best runtime here"
        )
    ours, floats, rest = (
        target.more.get(name)
        for name in (
            "speedup_by_optimisation",
            "baseline_speedup_by_optimisation",
            "speedup_unoptimised",
        )
    )
    if ours and floats and rest:
        said.append(
            "the runtime's graph optimisation alone makes the float model "
            f"{number_format.times(floats)} as fast and this file {number_format.times(ours)}; "
            f"with it off in both the speed-up is {number_format.times_interval(rest)}"
        )
    if target.kept_float is not None:
        layers = ", ".join(target.kept_float)
        said.append(f"back to float: {layers}" if layers else "no layer went back to float")
    if target.kept_int8 is not None:
        layers = ", ".join(target.kept_int8)
        said.append(
            f"weights kept in int8: {layers}" if layers else "every layer's weights in int4"
        )
    if target.without_vnni:
        said.append(target.without_vnni.reason)
    return said

"""Choose the target to ship: the best by the objective among those inside budget and limits.

reads     evaluate of every target, compress (parameters and MACs), validate (the number of test
          images)
writes    choice.json: what was asked, every target and how it stands
params    compress.objective, compress.budget, compress.constraints, evaluate, targets
refuses   when no target may ship, or the one that objective.target names may not: with every reason

A target is inside the budget when its answers to the validation images make it likely enough that
the verdict will pass on test: by the rule that the search goes by
(fettle/evaluation/passing_probability.py). The verdict comes once, later. Latencies of different
targets were taken at different times, so they are compared by their speed-up over the float model,
which ran in the same rounds. Where the speed-up intervals of two targets overlap they are a tie,
and the smaller file wins. A target that was never timed is not chosen: its answers are held to the
budget here (fettle/evaluation/answer_gate.py), and one that passes ships beside the chosen file.

A file that is faster than the one so chosen, beyond both intervals, takes its place when its own
drop on validation lies within the budget and no sign test shows that it is the worse one: few
images put good files outside (docs/decisions/0057). So it is for accuracy and for speed alone.

Precisions of one model have the same MACs, so the objective macs falls back to the speed. When none
is inside the budget and every limit, the one with fewest limits broken and the best chance is
chosen, and goal_met is false.

facts and choice.json: fettle/facts/select_facts.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.numpy import load_file

from fettle import manifest
from fettle.errors import TargetError
from fettle.evaluation import answer_gate, passing_probability
from fettle.evaluation.answer_gate import AnswerVerdict
from fettle.evaluation.passing_probability import PassingForecast
from fettle.evaluation.target_choice import (
    Candidate,
    best_candidate,
    nearest_miss,
    prefer_faster,
)
from fettle.facts.asked_goal import AskedBudget, AskedObjective
from fettle.facts.evaluate_facts import ANSWERS, EvaluateFacts
from fettle.facts.select_facts import CHOICE, ChoiceDocument, ChoiceRow, SelectFacts
from fettle.manifest import Manifest
from fettle.measure import Measure
from fettle.params import Params
from fettle.params_schema import Budget, Constraints
from fettle.recorder import Recorder
from fettle.stage_contract import Inputs, Outputs

READS = ("evaluate@*", "compress", "validate")
SECTIONS = ("compress.objective", "compress.budget", "compress.constraints", "evaluate", "targets")
MEASURES = False

UNTIMED = ("emulated", "estimated", "compile-only")
BY_SPEED = ("latency_p50_ms", "macs")  # all targets share the one model's multiply-accumulates
PLAIN = "x86_ort_fp32"  # needs no other runtime and no calibration


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs[SelectFacts]:
    """Make the artefact; see the file's docstring."""
    objective, budget = params.compress.objective, params.compress.budget
    folders = inputs.matrix("evaluate")
    rows = {
        name: manifest.read(path, EvaluateFacts, verify=False) for name, path in folders.items()
    }
    compressed = manifest.read(inputs["compress"], verify=False).measures
    broken = {
        name: exceeded_limits(params.compress.constraints, row, compressed)
        for name, row in rows.items()
    }
    tested = passing_probability.count_tested(inputs["validate"])
    foreseen = {
        name: forecast_passing(path, budget, tested=tested) for name, path in folders.items()
    }
    candidates = [
        replace(row, over=tuple(broken[row.target]))
        for row in shippable(rows, foreseen, on=objective.target)
    ]
    inside = [
        candidate for candidate in candidates if candidate.foreseen.inside and not candidate.over
    ]
    if inside:
        chosen, why = best_candidate(inside, objective.minimise)
        if objective.minimise in BY_SPEED and budget.metric == "accuracy":
            chosen, why = prefer_faster(chosen, why, candidates, folders, budget)
    else:
        chosen, why = nearest_miss(candidates, budget)
    recorder.note("chosen", f"{chosen.target}: {why}")
    judged = {
        name: judge_answers(rows[name].facts, path, params, over=broken[name])
        for name, path in folders.items()
    }
    doc = ChoiceDocument(
        target=chosen.target,
        objective=AskedObjective.model_validate(objective.recorded()),
        budget=AskedBudget.model_validate(budget.recorded()),
        chance_min=candidates[0].foreseen.chance_min,
        limits=params.compress.constraints.model_dump(exclude_none=True),
        goal_met=bool(inside),
        why=why,
        candidates=tuple(
            describe(sealed, params, foreseen[name], judged[name], over=tuple(broken[name]))
            for name, sealed in rows.items()
        ),
    )
    doc.write(out / CHOICE)
    return Outputs(facts=SelectFacts(target=chosen.target, goal_met=bool(inside), why=why))


def forecast_passing(evaluated: Path, asked: Budget, *, tested: int) -> PassingForecast | None:
    """Forecast the budget on test from evaluate's artefact; None where nothing was measured."""
    file = evaluated / ANSWERS
    if not file.is_file():
        return None
    kept = load_file(file)
    return passing_probability.forecast_passing(
        asked, kept["baseline"], kept["candidate"], kept["labels"], tested=tested
    )


def judge_answers(
    facts: EvaluateFacts, evaluated: Path, params: Params, *, over: list[str]
) -> AnswerVerdict:
    """Judge a target that was never timed by its answers; leave what evaluate said of others."""
    said = AnswerVerdict(facts.verdict, facts.reason)
    if facts.evidence not in ("emulated", "estimated") or facts.verdict != "ship":
        return said
    if over:
        return AnswerVerdict("refused", "; ".join(over))
    kept = load_file(evaluated / ANSWERS)
    return answer_gate.judge(
        params.compress.budget,
        kept["baseline"],
        kept["candidate"],
        kept["labels"],
        stated=params.evaluate.drop_max_of_target.get(facts.target),
        images_min=params.evaluate.accuracy_images_min,
    )


def shippable(
    rows: Mapping[str, Manifest[EvaluateFacts]],
    foreseen: Mapping[str, PassingForecast | None],
    *,
    on: str | None,
) -> list[Candidate]:
    """List the targets that may be chosen, in params.yaml's order.

    Raises TargetError when there is none.
    """
    timed = {name: row for name, row in rows.items() if row.facts.evidence not in UNTIMED}
    asked = {name: sealed for name, sealed in timed.items() if on in (None, name)}
    if on is not None and on not in timed:
        refuse_untimed(on, rows[on].facts, list(timed))
    candidates = [
        Candidate(
            name,
            sealed.facts.size_bytes or 0,
            sealed.measures["speedup"],
            forecast,
            sealed.measures.get("energy_j"),
        )
        for name, sealed in asked.items()
        if sealed.facts.verdict == "ship" and (forecast := foreseen[name]) is not None
    ]
    if candidates:
        return candidates
    reasons = "; ".join(
        f"{name} is refused ({sealed.facts.reason.rstrip('.')})" for name, sealed in asked.items()
    )
    others = [name for name, sealed in timed.items() if sealed.facts.verdict == "ship"]
    if on is not None:
        raise TargetError(
            "the target that compress.objective.target names may not ship",
            got=reasons,
            rule=f"others that may: {', '.join(others) or 'none'}",
            fix="set compress.objective.target to one of them or to null, or mend the cause",
        )
    raise TargetError(
        "no target may ship",
        got=reasons,
        rule="a file ships when it is sound, faster than the float model, and pays for itself",
        fix=(
            f"mend a cause: where {PLAIN} is too slow as well, only a smaller model is faster "
            "(params.yaml: compress.recipe)"
            if PLAIN in rows
            else f"add {PLAIN} to targets (params.yaml), or mend a cause"
        ),
    )


def refuse_untimed(name: str, facts: EvaluateFacts, timed: list[str]) -> None:
    """Refuse to serve a file that was never timed; raises TargetError with those that were."""
    raise TargetError(
        "the target that compress.objective.target names is not timed here",
        got=f"{name}, {facts.evidence}",
        rule=f"the served file is chosen among what is measured: {', '.join(timed) or 'nothing'}",
        fix=f"set compress.objective.target to one of them or to null; {name} ships beside it",
    )


def exceeded_limits(
    constraints: Constraints, row: Manifest[EvaluateFacts], compressed: Mapping[str, Measure]
) -> list[str]:
    """List the limits that a measured target breaks; `compressed` holds compress's measures."""
    figures = {
        "size_bytes": row.measures.get("size_bytes"),
        "latency_p50_ms": row.measures.get("latency_p50_ms"),
        "params": compressed.get("params_after"),
        "macs": compressed.get("macs_after"),
    }
    exceeded = []
    for name, figure in figures.items():
        limit = getattr(constraints, f"{name}_max")
        if limit is not None and figure is not None and figure.value > limit:
            exceeded.append(
                f"{name} is {figure.value:,.6g}, above compress.constraints.{name}_max {limit:,}"
            )
    return exceeded


def describe(
    sealed: Manifest[EvaluateFacts],
    params: Params,
    foreseen: PassingForecast | None,
    judged: AnswerVerdict,
    *,
    over: tuple[str, ...],
) -> ChoiceRow:
    """Return one target's row of choice.json; None where nothing was measured."""
    asked, facts, measures = params.compress, sealed.facts, sealed.measures
    return ChoiceRow(
        target=facts.target,
        verdict=judged.verdict,
        evidence=facts.evidence,
        reason=judged.reason,
        size_bytes=facts.size_bytes,
        value=measures.get(asked.objective.minimise),
        drop=measures.get(f"{asked.budget.metric}_drop"),
        chance=foreseen.chance if foreseen else None,
        inside_budget=foreseen.inside if foreseen else None,
        accuracy=measures.get("accuracy"),
        speedup=measures.get("speedup"),
        over=over,
    )

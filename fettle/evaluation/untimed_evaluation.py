"""Untimed evaluation: a target whose hardware is not here, known by its answers alone.

An emulator or a bit-accurate simulator answers the same images as every other target's file; what
it takes says nothing of the hardware's speed, so nothing is timed. A vendor's figures are kept as
estimates, apart from every measure. What is compiled alone has no answers: it is said so.
"""

from __future__ import annotations

from pathlib import Path

from fettle import plugins
from fettle.data import split_reader
from fettle.errors import ModelError
from fettle.evaluation import acceptance_criteria, answer_comparison
from fettle.evaluation.evaluation_job import EvaluationJob
from fettle.facts.evaluate_facts import EstimatedFigure, EvaluateFacts
from fettle.hardware.runtimes import Estimate, Placement
from fettle.measure import Measure
from fettle.stage_contract import Outputs

# An emulator is 10 to 1,000 times slower than the machine it stands for: 2,000 images decide a drop
# of one point (accuracy_budget.sample_size, 1.5 % of the answers flipped).
IMAGES_MAX = 2000


def evaluate(job: EvaluationJob, name: str, out: Path) -> Outputs[EvaluateFacts]:
    """Judge one file's parity, and leave its answers to the validation images.

    Raises ModelError where an operator falls back to the CPU, or an answer is no number.
    """
    placed = placement(job)
    refuse_fallback(job, placed)
    facts = EvaluateFacts(
        target=name,
        verdict="compiled",
        evidence=job.target.evidence,
        reason=compiled_reason(job),
        size_bytes=job.exported.size_bytes,
        parity=None,
        latency_ms=None,
        accelerator_share=placed.share if placed else None,
        estimates=tuple(map(stated, estimates(job))),
        next_command=job.target.next_command,
    )
    if job.target.evidence == "compile-only":
        return Outputs(facts=facts, measures=sizes(job))
    return answered(job, facts, out)


def answered(job: EvaluationJob, facts: EvaluateFacts, out: Path) -> Outputs[EvaluateFacts]:
    """Add what the emulator answers: parity, and the paired figures on validation."""
    session = job.runtime.open(job.entry, threads=1)
    job.recorder.progress(0.1, f"answers of {facts.target}, {facts.evidence}")
    parity = answer_comparison.measure_parity(job, session)
    wrong = acceptance_criteria.parity_failure(job.target.precision, parity)
    images = split_reader.images(job.inputs, job.params, "validation", most=IMAGES_MAX)
    ort = plugins.resolve("runtimes", "ort", where="the baseline")
    measures = answer_comparison.measure_quality(
        job,
        baseline=ort.open(job.baseline, threads=1),
        candidate=session,
        images=images,
        float_images=job.float_images(images, most=IMAGES_MAX),
        out=out,
    )
    by = getattr(job.runtime, "ANSWERED_BY", job.target.runtime)
    told = {
        "verdict": "refused" if wrong else "ship",
        "reason": wrong or f"its answers, by {by}, agree with the compressed model's",
        "parity": parity,
        "answered_by": by,
    }
    return Outputs(measures=measures | sizes(job), facts=facts.model_copy(update=told))


def sizes(job: EvaluationJob) -> dict[str, Measure]:
    """Return the file's bytes, the one figure that is exact without the hardware."""
    return {"size_bytes": Measure(value=job.exported.size_bytes or 0, unit="bytes", n=1)}


def placement(job: EvaluationJob) -> Placement | None:
    """Ask the runtime which operators its accelerator runs; None where it has no such notion."""
    ask = getattr(job.runtime, "placement", None)
    placed: Placement | None = ask(job.entry) if ask else None
    return placed


def refuse_fallback(job: EvaluationJob, placed: Placement | None) -> None:
    """Refuse a file of which a part would run elsewhere; raises ModelError naming the operators."""
    if placed is None or not placed.fallback:
        return
    raise ModelError(
        f"a part of the model does not run on {job.target.hardware}",
        got=f"{', '.join(placed.fallback)} on the CPU ({placed.share:.0%} of the operators on the "
        "accelerator)",
        rule="an operator that falls back in silence costs more than it says",
        fix="replace that operator in the model, or drop this target (params.yaml: targets)",
    )


def estimates(job: EvaluationJob) -> tuple[Estimate, ...]:
    """Ask the runtime for its vendor's figures."""
    ask = getattr(job.runtime, "estimates", None)
    figures: tuple[Estimate, ...] = ask(job.entry) if ask else ()
    return figures


def stated(figure: Estimate) -> EstimatedFigure:
    """Turn a runtime's estimate into the fact."""
    return EstimatedFigure(what=figure.what, value=figure.value, unit=figure.unit, tool=figure.tool)


def compiled_reason(job: EvaluationJob) -> str:
    """Say that a file was made, and that nothing here can run it."""
    return (
        f"compiled, unverified: nothing here runs a file of {job.target.hardware}, so it is not "
        f"shipped; who has one runs `{job.target.next_command}`"
    )

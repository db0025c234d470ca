"""Answer comparison: parity with the reference, and accuracy against the float model, paired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from fettle.data.split_reader import Images
from fettle.errors import ModelError
from fettle.evaluation import accuracy_statistics
from fettle.evaluation.batch_scoring import predict_logits
from fettle.evaluation.evaluation_job import EvaluationJob
from fettle.facts.answer_parity import AnswerParity
from fettle.facts.evaluate_facts import ANSWERS
from fettle.hardware.runtimes import Session
from fettle.measure import Measure
from fettle.models import export_onnx


def measure_parity(job: EvaluationJob, session: Session) -> AnswerParity:
    """Compare with the reference answers that compress left: source-of-truth logits.

    Raises ModelError when an answer is no number.
    """
    reference = load_file(job.inputs["compress"] / "reference.safetensors")
    most = job.params.evaluate.parity_images
    pixels, wanted = reference["input_pixels"][:most], reference["logits"][:most]
    logits = predict_logits(session, job.params, pixels)
    if not np.isfinite(logits).all():
        raise ModelError(
            "the model answers with values that are no numbers",
            got=f"{int((~np.isfinite(logits)).sum())} of {logits.size} logits",
            rule="every logit is finite",
            fix="look for an overflow in the model, or drop this target",
        )
    parity = export_onnx.compare_logits(logits, wanted)
    return AnswerParity(cosine=parity.cosine, max_abs=parity.max_abs, top1=parity.top1)


def measure_quality(
    job: EvaluationJob,
    *,
    baseline: Session,
    candidate: Session,
    images: Images,
    float_images: Images,
    out: Path,
) -> dict[str, Measure]:
    """Score the candidate on validation, and its drops against the float; keep the answers.

    Both are given the same rows, each at the side of image that it takes.
    """
    before = predict_logits(baseline, job.params, float_images.pixels)
    after = predict_logits(candidate, job.params, images.pixels)
    save_file({"baseline": before, "candidate": after, "labels": images.labels}, out / ANSWERS)
    scored = accuracy_statistics.summary(before, images.labels)
    return {
        **accuracy_statistics.summary(after, images.labels),
        **{f"baseline_{name}": value for name, value in scored.items()},
        **{
            f"{name}_drop": accuracy_statistics.drop(name, before, after, images.labels)
            for name in scored
        },
        "churn": accuracy_statistics.churn(before, after),
    }

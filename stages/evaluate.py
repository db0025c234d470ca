"""Measure one target's file on this machine, and say whether it may ship.

reads     ingest, validate (validation images), finetune (the float model), compress (the plain
          fp32 form, and the reference answers), this target's export; inputs/machine.json,
          inputs/toolchain/TARGET.json, inputs/float_runtimes.json
writes    profile.json: where the time goes in the float model (under ONNX Runtime) and in the
          candidate; answers.safetensors {baseline, candidate: logits [n, classes], labels [n]} on
          validation, of a candidate that was measured; all else is in the manifest
params    seed, preprocess, evaluate
refuses   to run on another machine than inputs/machine.json describes. A target that is missing
          here, belongs to other hardware, or does not pay is no failure: its facts say so

The contenders are timed in the same rounds: "baseline" (the float model under ONNX Runtime), the
float model under every other runtime in fettle's own environment, "plain" (the compressed fp32
form under ONNX Runtime) and the candidate. The candidate ships when its answers agree with the
reference, it is faster than the float model under the best of the runtimes (the interval of the
speed-up lies above 1; while it straddles 1, up to nine times the rounds are taken), and it is
faster or smaller than the plain form. Quality has its budget in `select`.

A target whose evidence is not "measured" is never timed: of it there are parity, the quality
figures and size_bytes, and its vendor's estimates as facts (untimed_evaluation.py).

facts and profile.json: fettle/facts/evaluate_facts.py.

measures, quality on validation: accuracy, macro_f1, worst_recall, calibration_error, each also
with _drop (against the float model, same images) and as baseline_…; churn. Speed:
latency_p50_ms, latency_p95_ms, latency_p99_ms, the same as baseline_…, plain_… and best_float_…;
speedup (over baseline), speedup_over_best_float (paired by rounds), speedup_over_plain,
speedup_batch (over baseline, a batch), throughput_images_per_s; what the runtime's own graph
optimisation buys, off against on: speedup_by_optimisation, the same as baseline_…, and
speedup_unoptimised (over baseline, off in both; these three where the runtime can switch it off).
size_bytes, peak_memory_bytes, energy_j (an image at batch 1, where the processor's counters can be
read). For int8 also accuracy_without_vnni and accuracy_drop_without_vnni (emulated, on the first
validation images).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from fettle import manifest, plugins
from fettle.data import split_reader
from fettle.data.split_reader import Images
from fettle.errors import TargetError
from fettle.evaluation import (
    acceptance_criteria,
    answer_comparison,
    int8_diagnosis,
    latency_comparison,
    target_refusal,
    untimed_evaluation,
)
from fettle.evaluation.batch_scoring import predict_logits
from fettle.evaluation.evaluation_job import EvaluationJob
from fettle.evaluation.latency_comparison import Contender
from fettle.facts.answer_parity import AnswerParity
from fettle.facts.evaluate_facts import (
    EvaluateFacts,
    KernelTimes,
    LatencyQuantiles,
    ProfileDocument,
    WithoutVnni,
)
from fettle.facts.export_facts import ExportFacts
from fettle.hardware import energy_measurement, kernel_profile, peak_memory
from fettle.hardware.machine_check import check_machine
from fettle.hardware.runtimes import Session
from fettle.hardware.targets import Target
from fettle.measure import Measure
from fettle.params import Params
from fettle.recorder import Recorder
from fettle.stage_contract import Inputs, Outputs

READS = ("ingest", "validate", "finetune", "compress", "export@")
SECTIONS = ("seed", "preprocess", "evaluate")
MEASURES = True
PER_TARGET = True

# RAPL counts in steps of about 1 ms (Hähnel et al. 2012, "Measuring energy consumption for short
# code paths using RAPL", 3.1): 1,000 images of 0.2 ms leave an error under 1 %.
ENERGY_IMAGES = 1000
PROFILED_RUNS = 50  # medians of whole microseconds: shares move by under a point beyond


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs[EvaluateFacts]:
    """Make the artefact; see the file's docstring."""
    check_machine(inputs.project / "inputs" / "machine.json")
    name = str(inputs.target)
    target: Target = plugins.resolve("targets", name, where="targets").TARGET
    exported = manifest.read(inputs["export"], ExportFacts, verify=False).facts
    absent = target_refusal.unavailable_reason(name, target, exported)
    if absent:
        return refuse_unmeasured(target, name, absent, exported)
    runtime = plugins.resolve(
        "runtimes", target.runtime, where=f"fettle/hardware/targets/{name}.py"
    )
    job = EvaluationJob(params, inputs, recorder, target, runtime, exported)
    try:
        if target.evidence != "measured":
            return untimed_evaluation.evaluate(job, name, out)
        outcome = measure(job, name, out)
        write_profiles(job, out)
        return outcome
    except Exception as err:  # a toolchain may raise anything: see target_refusal
        refused = target_refusal.refusal_reason(err)
        for left in out.iterdir():
            if left.is_file():
                left.unlink()
        return refuse_unmeasured(target, name, refused, exported)


def refuse_unmeasured(
    target: Target, name: str, reason: str, exported: ExportFacts
) -> Outputs[EvaluateFacts]:
    """Refuse for want of evidence: missing evidence never ships."""
    facts = EvaluateFacts.unmeasured(name, reason, exported.size_bytes)
    if target.evidence == "measured":
        return Outputs(facts=facts)
    more = {
        "verdict": "refused" if exported.unavailable is None else "unavailable",
        "next_command": target.next_command,
    }
    return Outputs(facts=facts.model_copy(update=more))


def measure(job: EvaluationJob, name: str, out: Path) -> Outputs[EvaluateFacts]:
    """Measure every figure of the candidate and judge it."""
    contenders = load(job)
    sizes = {each: contenders[each].size_bytes for each in ("candidate", "baseline", "plain")}
    candidate = contenders["candidate"].session
    parity = answer_comparison.measure_parity(job, candidate)
    images = split_reader.images(job.inputs, job.params, "validation")
    float_images = job.float_images(images)
    job.recorder.progress(0.1, "accuracy on validation")
    measures = answer_comparison.measure_quality(
        job,
        baseline=contenders["baseline"].session,
        candidate=candidate,
        images=images,
        float_images=float_images,
        out=out,
    )
    other_cpu: dict[str, WithoutVnni] = {}  # no key where it is not asked
    if job.precision.saturates_without_vnni and job.entry.suffix == ".onnx":
        answers, more = measure_without_vnni(job, candidate, images)
        other_cpu = {"without_vnni": answers}
        measures |= more
    section = job.params.evaluate
    job.recorder.progress(0.3, f"latency, {section.rounds} rounds of {len(contenders)} models")
    timed = latency_comparison.measure_latency(
        contenders, job.params, pixels=images.pixels, float_pixels=float_images.pixels
    )
    measures |= timed.measures
    measures["peak_memory_bytes"] = peak_memory.peak(
        runtime=job.runtime.__name__,
        entry=job.entry,
        threads=section.threads,
        shape=(1, *images.pixels.shape[1:]),
    )
    joules, no_energy = measure_energy(job, candidate, images)
    measures |= joules
    measures["size_bytes"] = Measure(value=sizes["candidate"], unit="bytes", n=1)
    ships, reason = judge(job, parity, sizes=sizes, best_float=timed.best_float, measures=measures)
    for key, value in measures.items():
        job.recorder.scalar(key, value.value)
    facts = EvaluateFacts(
        target=name,
        verdict="ship" if ships else "refused",
        evidence="measured",
        reason=reason,
        size_bytes=sizes["candidate"],
        parity=parity,
        latency_ms=LatencyQuantiles(
            p50=measures["latency_p50_ms"].value,
            p95=measures["latency_p95_ms"].value,
            p99=measures["latency_p99_ms"].value,
        ),
        baseline_size_bytes=sizes["baseline"],
        plain_size_bytes=sizes["plain"],
        threads=section.threads,
        batch_images=section.batch_images,
        best_float=timed.best_float,
        energy=no_energy,
    )
    return Outputs(measures=measures, facts=facts.model_copy(update=other_cpu))


def load(job: EvaluationJob) -> dict[str, Contender]:
    """Load the contenders, each with the same number of threads."""
    ort = plugins.resolve("runtimes", "ort", where="the baseline")
    threads = job.params.evaluate.threads
    files = {
        "baseline": (ort, job.baseline),
        "plain": (ort, job.inputs["compress"] / "model.onnx"),
        "candidate": (job.runtime, job.entry),
    }
    sizes = {name: path.stat().st_size for name, (_, path) in files.items()}
    sizes["candidate"] = job.exported.size_bytes or 0  # OpenVINO's is two files
    return {
        name: Contender(runtime.open(path, threads=threads), sizes[name])
        for name, (runtime, path) in files.items()
    } | {
        **latency_comparison.open_float_models(files["baseline"][1], threads=threads),
        **latency_comparison.open_unoptimised(files, threads=threads),
    }


def measure_energy(
    job: EvaluationJob, session: Session, images: Images
) -> tuple[Mapping[str, Measure], str | None]:
    """Measure the joules of an image at batch 1; where nothing counts them, say so instead."""
    batch = split_reader.preprocess(job.params).normalise(images.pixels[:1])
    try:
        energy = energy_measurement.measure(
            latency_comparison.bind(session, batch), images=ENERGY_IMAGES
        )
    except TargetError as err:
        return {}, f"NOT_MEASURED: {err.got}"
    return {"energy_j": energy}, None


def write_profiles(job: EvaluationJob, out: Path) -> None:
    """Write profile.json: where the time goes in the float model and in the candidate.

    A runtime without a profiler leaves its part out.
    """
    ort = plugins.resolve("runtimes", "ort", where="the baseline")
    threads = job.params.evaluate.threads
    files = {
        "before": (ort, job.baseline, job.float_params),
        "after": (job.runtime, job.entry, job.params),
    }
    profiles: dict[str, KernelTimes] = {}
    for name, (runtime, path, params) in files.items():
        pre = params.preprocess
        batch = np.zeros((1, pre.channels, pre.side_px, pre.side_px), np.float32)
        if hasattr(runtime, "profile"):
            profiler = runtime.profile(path, threads=threads)
            for _ in range(PROFILED_RUNS):
                profiler.run(batch)
            profile = kernel_profile.of_kernels(profiler.kernels())
            profiles[name] = KernelTimes.model_validate(profile.to_json(), strict=False)
    ProfileDocument(**profiles).write(out / "profile.json")


def localise(job: EvaluationJob) -> str:
    """Localise the step and the layer at which the answers diverge from the reference."""
    reference = load_file(job.inputs["compress"] / "reference.safetensors")
    most = job.params.evaluate.parity_images
    return int8_diagnosis.localise_divergence(
        job.inputs["compress"] / "model.onnx",
        job.entry,
        split_reader.preprocess(job.params).normalise(reference["input_pixels"][:most]),
        reference["logits"][:most],
    )


def measure_without_vnni(
    job: EvaluationJob, session: Session, images: Images
) -> tuple[WithoutVnni, Mapping[str, Measure]]:
    """Score the int8 file as a CPU without VNNI answers."""
    job.recorder.progress(0.2, "accuracy on x86 without VNNI, emulated")
    first = images.pixels[: int8_diagnosis.EMULATED_IMAGES[1]]
    accuracy, measures = int8_diagnosis.accuracy_without_vnni(
        job.entry,
        images=images,
        batch=split_reader.preprocess(job.params).normalise(first),
        logits=predict_logits(session, job.params, first),
        macs=job.exported.macs or 0,
    )
    if accuracy.loses:
        job.recorder.note("other_cpu", accuracy.reason)
    return accuracy, measures


def judge(
    job: EvaluationJob,
    parity: AnswerParity,
    *,
    sizes: Mapping[str, int],
    best_float: str,
    measures: Mapping[str, Measure],
) -> tuple[bool, str]:
    """Decide whether the candidate ships; return that and the sentence that says why."""
    wrong = acceptance_criteria.parity_failure(job.target.precision, parity)
    if wrong:
        return False, f"{wrong}; {localise(job)}"
    same = job.baseline.read_bytes() == job.entry.read_bytes()
    if job.is_plain and same:
        return True, "it is the float model itself: nothing was compressed"
    floats = acceptance_criteria.Baseline(
        f"the float model in {best_float}",
        sizes["baseline"],
        measures["speedup_over_best_float"],
    )
    faster, reason = acceptance_criteria.is_faster(sizes["candidate"], floats)
    if job.is_plain or not faster:
        return faster, reason
    plain = acceptance_criteria.Baseline(
        "the plain fp32 form", sizes["plain"], measures["speedup_over_plain"]
    )
    return acceptance_criteria.pays(sizes["candidate"], plain)

"""Latency table: what operators cost on this machine, so that compress can predict a latency.

reads     finetune (the float model: its graph and its shapes)
writes    latency_table.json (fettle/hardware/operator_cost_table.py; no targets when nothing was
measured) params    seed, preprocess (the image's size), compress.recipe, compress.objective,
          evaluate.threads, targets
refuses   when inputs/machine.json does not describe this machine

inputs/table_runtimes.json is a dep: the versions of the runtimes that are timed.

Measures nothing, and says so, when the recipe is a list (nobody asks the table), when the model
does not train (nothing can be compressed before export), and on a target whose runtime is absent
or cannot profile. It measures the target of the objective, or every target when it names none.

measures: error_<target>, the largest share by which a prediction was off on whole networks that
the table did not learn from. facts: fettle/facts/latency_table_facts.py.
"""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

from fettle import manifest, plugins
from fettle.errors import ModelError
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.facts.latency_table_facts import LatencyTableFacts, PredictedNetwork
from fettle.hardware import operator_cost_fit, operator_cost_table, precisions, width_sweep
from fettle.hardware.machine_check import check_machine
from fettle.hardware.operator_cost_table import Costs
from fettle.hardware.targets import Target
from fettle.measure import Measure
from fettle.params import Params
from fettle.quantize import uncalibrated_int8
from fettle.recorder import Recorder
from fettle.stage_contract import Inputs, Outputs

READS = ("finetune",)
SECTIONS = (
    "seed",
    "preprocess",
    "compress.recipe",
    "compress.objective",
    "evaluate.threads",
    "targets",
)
MEASURES = True

ROUNDS = 30  # of whole networks; their medians' interval is then about 5 % wide on a quiet machine
RANDOM_IMAGES = 8  # int8 ranges from noise: a latency does not depend on them


def run(
    params: Params, inputs: Inputs, out: Path, recorder: Recorder
) -> Outputs[LatencyTableFacts]:
    """Make the artefact; see the file's docstring."""
    check_machine(inputs.project / "inputs" / "machine.json")
    names = (
        [params.compress.objective.target] if params.compress.objective.target else params.targets
    )
    float_model = manifest.read(inputs["finetune"], FinetuneFacts, verify=False)
    needless = unneeded_reason(params, float_model.facts)
    tables: dict[str, Costs] = {}
    absent: dict[str, str] = {}
    for index, name in enumerate(names):
        target: Target = plugins.resolve("targets", name, where="targets").TARGET
        runtime = plugins.resolve(
            "runtimes", target.runtime, where=f"fettle/hardware/targets/{name}.py"
        )
        reason = needless or unavailable_reason(target, runtime)
        if reason:
            absent[name] = reason
            continue
        recorder.progress(index / len(names), f"kernels of {name}")
        try:
            tables[name] = table(params, inputs["finetune"] / "model.onnx", target, runtime)
        except ModelError as err:
            absent[name] = str(err)
            continue
        recorder.note(f"predictor.{name}", prediction_error_text(tables[name]))
    operator_cost_table.write(
        out / operator_cost_table.NAME, tables, threads=params.evaluate.threads
    )
    return Outputs(
        measures={
            f"error_{name}": Measure(value=costs.error, unit="1", n=len(costs.checks))
            for name, costs in tables.items()
            if costs.error is not None
        },
        facts=LatencyTableFacts(
            checks={name: checked(costs) for name, costs in tables.items()}, not_measured=absent
        ),
    )


def checked(costs: Costs) -> tuple[PredictedNetwork, ...]:
    """Return the checks of a table as the facts hold them."""
    return tuple(
        PredictedNetwork(
            macs=check.macs, predicted_ms=check.predicted_ms, measured_ms=check.measured_ms
        )
        for check in costs.checks
    )


def unneeded_reason(params: Params, facts: FinetuneFacts) -> str | None:
    """Reason why no stage will read the table, or None."""
    if params.compress.recipe != "auto":
        return "compress.recipe is a list, so nothing is predicted"
    if not facts.trains:
        return f"family '{params.finetune.family}' does not train, so nothing is searched"
    return None


def unavailable_reason(target: Target, runtime: ModuleType) -> str | None:
    """Say why this target's kernels cannot be timed here, or None."""
    if target.evidence != "measured":
        return f"it is {target.evidence} here, so nothing of it is timed"
    if platform.machine() not in target.machine:
        return f"it runs on {' or '.join(target.machine)}, this machine is {platform.machine()}"
    availability = runtime.available()
    if not availability.ok:
        return f"{availability.reason}: {availability.install}"
    if not hasattr(runtime, "profile"):
        return f"the runtime '{target.runtime}' has no profiler"
    return None


def table(params: Params, model: Path, target: Target, runtime: ModuleType) -> Costs:
    """Time copies of the float model, or of its quantized form, as this target runs them."""
    pre, threads = params.preprocess, params.evaluate.threads
    shape = (pre.channels, pre.side_px, pre.side_px)
    with tempfile.TemporaryDirectory(prefix="fettle-table-") as folder:
        if precisions.named(target.precision).timed_as_int8:
            model = quantized(model, Path(folder) / "int8.onnx", shape, params.seed)
        taken = width_sweep.sweep_widths(
            model,
            shape=shape,
            multiple=target.channel_multiple,
            seed=params.seed,
            rounds=ROUNDS,
            open_=lambda path: runtime.open(path, threads=threads),
            profile=lambda path: runtime.profile(path, threads=threads),
        )
    return operator_cost_fit.fit(taken.samples, taken.nets, taken.checks)


def quantized(model: Path, out: Path, shape: tuple[int, int, int], seed: int) -> Path:
    """Write an int8 form of a model, with ranges from noise: for its kernels alone."""
    noise = np.random.default_rng(seed).standard_normal((RANDOM_IMAGES, *shape))
    uncalibrated_int8.apply(model, out, noise=noise.astype(np.float32))
    return out


def prediction_error_text(costs: Costs) -> str:
    """Prediction error in words, beside its claim."""
    if costs.error is None:
        return "not checked: the widths of this network cannot be changed one by one"
    checks = ", ".join(
        f"{check.predicted_ms:.3f} for {check.measured_ms:.3f} ms" for check in costs.checks
    )
    return f"off by at most {costs.error:.0%} on {len(costs.checks)} networks: {checks}"

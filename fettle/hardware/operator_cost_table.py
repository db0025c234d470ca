"""Operator cost table: a network's latency predicted from measured operators, before it is built.

A table holds, for one target on one machine, what each kind of operator costs as its channels
change. Its times are of real kernels in their real places (fettle/hardware/width_sweep.py says how
they are taken and docs/decisions/0020 why), and it carries its own error: what it predicts for
whole networks that it did not learn from, beside what they were measured to take.

An operator's time is linear in its channel counts and their product, with no negative term
(fettle/hardware/operator_cost_fit.py): more channels never cost less. Three fits, the nearest
first: the same operator at the same size ("conv 3x3 at 16x16"), at any size ("conv 3x3"), the same
kind ("conv").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from fettle import manifest
from fettle.errors import ProjectError
from fettle.hardware import machine_fingerprint
from fettle.measure import Measure
from fettle.operator_shape import Operator

SCHEMA = 2  # in 1, weight_ms was charged for each weight alone
NAME = "latency_table.json"
FUSED_MS = 1e-4  # a fit below a tenth of a microsecond stands for an operator without a kernel


@dataclass(frozen=True, slots=True)
class CostSample:
    """One kernel as the runtime's profiler saw it."""

    operator: Operator
    ms: float


@dataclass(frozen=True, slots=True)
class NetworkTiming:
    """A whole network: its operators, its median time, and what its profile calls none of theirs.

    `glue_ms` is None when it was timed only, not profiled.
    """

    operators: tuple[Operator, ...]
    ms: float
    glue_ms: float | None = None


@dataclass(frozen=True, slots=True)
class PredictionCheck:
    """A network the table did not learn from: macs, and its time as predicted and as measured."""

    macs: int
    predicted_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """The signed share by which the prediction is off."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Operator costs on one target; `fits` maps a place, a form or a kind to its terms.

    `glue_ms` is charged once a network; an operator takes `kernel_share` of its profiled time, and
    `operator_ms`, and `weight_ms` for each of its weights and each million of the network's: the
    more a network weighs, the less of it a cache still holds when its turn comes again.
    """

    fits: Mapping[str, tuple[float, ...]]
    glue_ms: float
    kernel_share: float
    operator_ms: float
    weight_ms: float
    checks: tuple[PredictionCheck, ...] = ()

    @property
    def error(self) -> float | None:
        """The largest share by which a check was off; None when none could be made."""
        return max((abs(check.error) for check in self.checks), default=None)


def predict(costs: Costs, operators: Sequence[Operator]) -> Measure:
    """Predict the latency of one image through `operators`, in ms.

    The interval is the largest error the table made on a network it did not know; n counts these.
    Without any there is no interval.
    """
    value = max(costs.glue_ms + sum(shares(costs, operators)), 1e-3)
    off = costs.error
    if off is None:
        return Measure(value=value, unit="ms", n=1)
    return Measure(
        value=value,
        unit="ms",
        n=len(costs.checks),
        low=value / (1 + off),
        high=value / (1 - min(off, 0.99)),
    )


def shares(costs: Costs, operators: Sequence[Operator]) -> list[float]:
    """Return each operator's predicted ms, in order; together they are the net without its glue.

    One that the runtime fuses into its neighbour has no kernel and takes none. A share may be a
    little negative where the profiler cost more than the kernel it timed.
    """
    beyond = (costs.kernel_share, costs.operator_ms, costs.weight_ms)
    return [float(np.dot(beyond, row)) for row in features_of(costs.fits, operators)]


def write(path: Path, targets: Mapping[str, Costs], *, threads: int) -> None:
    """Write the tables of this machine's targets, with its fingerprint.

    Without any, the file says nothing of a machine, and what is made from it holds on all.
    """
    machine: Mapping[str, object] = machine_fingerprint.fingerprint() if targets else {}
    doc = {
        "schema": SCHEMA,
        "machine": machine,
        "threads": threads,
        "targets": {name: asdict(costs) for name, costs in targets.items()},
    }
    manifest.write_json(path, doc)


def read(path: Path, here: Mapping[str, object]) -> dict[str, Costs]:
    """Read {target: costs}; empty when nothing was measured. `here` is this machine's fingerprint.

    Raises ProjectError when the table was measured on another machine than `here`.
    """
    import json

    doc = json.loads(path.read_text())
    if not doc["targets"]:
        return {}
    there = machine_fingerprint.differences(doc["machine"], json.loads(json.dumps(dict(here))))
    if there:
        raise ProjectError(
            "the table of latencies was measured on another machine",
            got="; ".join(there),
            rule="a latency is a fact about a machine: no prediction here may rest on it",
            fix="run `fettle run`: it measures the table again",
        )
    return {name: _costs(entry) for name, entry in doc["targets"].items()}


class _CheckDocument(TypedDict):
    macs: int
    predicted_ms: float
    measured_ms: float


class _CostsDocument(TypedDict):
    """Costs as latency_table.json holds them."""

    fits: dict[str, list[float]]
    glue_ms: float
    kernel_share: float
    operator_ms: float
    weight_ms: float
    checks: list[_CheckDocument]


def _costs(doc: _CostsDocument) -> Costs:
    return Costs(
        fits={name: tuple(terms) for name, terms in doc["fits"].items()},
        glue_ms=doc["glue_ms"],
        kernel_share=doc["kernel_share"],
        operator_ms=doc["operator_ms"],
        weight_ms=doc["weight_ms"],
        checks=tuple(PredictionCheck(**check) for check in doc["checks"]),
    )


def kernel_ms(fits: Mapping[str, tuple[float, ...]], operator: Operator) -> float:
    for key, features in FITS:
        terms = fits.get(key(operator))
        if terms is not None:
            return float(np.dot(terms, features(operator)))
    return 0.0  # the model it was measured on has no operator of that kind


def features_of(
    fits: Mapping[str, tuple[float, ...]], operators: Sequence[Operator]
) -> list[tuple[float, float, float]]:
    """Return each operator's kernel ms, 1, and its weights times the network's in millions.

    Zeros for one that is fused into another. Weights alone, EfficientNet-Lite0 in ONNX Runtime,
    busy machine, two seeds: networks between the ends came out up to 13 and 18 % slow, now 7 and 8;
    OpenVINO's likewise (ADR 0020).
    """
    millions = sum(operator.weights for operator in operators) / 1e6
    features = []
    for operator in operators:
        kernel = kernel_ms(fits, operator)
        row = (kernel, 1.0, operator.weights * millions) if kernel > FUSED_MS else (0.0, 0.0, 0.0)
        features.append(row)
    return features


def _place(operator: Operator) -> str:
    return f"place {operator.place}"


def _form(operator: Operator) -> str:
    return f"form {operator.form}"


def _kind(operator: Operator) -> str:
    return f"kind {operator.kind}{' depthwise' if operator.depthwise else ''}"


def _in_place(operator: Operator) -> list[float]:
    """Channels alone differ: a + b in + c out + d in out, the last one for dense operators."""
    dense = operator.kind in ("conv", "gemm") and not operator.depthwise
    product = operator.inputs * operator.outputs if dense else 0
    return [1.0, float(operator.inputs), float(operator.outputs), float(product)]


def _anywhere(operator: Operator) -> list[float]:
    """Size differs as well: work, what is written, what is read of the input and of the weights."""
    area = operator.height * operator.width
    read = operator.inputs * area * operator.stride**2
    return [
        1.0,
        float(operator.macs),
        float(operator.outputs * area),
        float(read),
        float(operator.weights),
    ]


# The nearest first: the same operator at the same size, at any size, the same kind.
FITS = ((_place, _in_place), (_form, _anywhere), (_kind, _anywhere))

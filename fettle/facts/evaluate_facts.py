"""Evaluation facts: whether a target's file may ship; and profile.json, where its time goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from fettle.facts.answer_parity import AnswerParity
from fettle.facts.quantities import Count, Images, Milliseconds, Share, Times
from fettle.facts.typed_document import TypedDocument

ANSWERS = "answers.safetensors"  # of evaluate's artefact
# "inconclusive": too few images to tell. "unavailable": its toolchain is not here. "compiled": its
# file was made, and nothing here can run it. None of the three ships.
ShipVerdict = Literal["ship", "refused", "inconclusive", "unavailable", "compiled"]
Evidence = Literal["measured", "emulated", "estimated", "compile-only", "not measured"]


class LatencyQuantiles(TypedDocument):
    """Quantiles of the latency of one image, in ms."""

    p50: float
    p95: float
    p99: float


class WithoutVnni(TypedDocument):
    """What an x86 CPU without VNNI would answer: measured on `images`, else only a reason.

    `agreement` is the share of equal answers, `layers` {layer: how much it saturates}.
    """

    reason: str
    """What was found, as a sentence; or why nothing was measured."""
    images: Images | None = None
    """Images that were scored; absent where nothing was measured."""
    agreement: Share | None = None
    """Share of the answers that stay the same."""
    layers: Mapping[str, Share] | None = None
    """Share of the sums that saturate, by layer."""
    loses: bool = False
    """Whether a loss of accuracy is shown."""


class EstimatedFigure(TypedDocument):
    """A figure that a vendor's tool worked out without the hardware; no latency was measured."""

    what: str
    """What was estimated."""
    value: float
    """The figure."""
    unit: str
    """Its unit."""
    tool: str
    """The tool that says so."""


class EvaluateFacts(TypedDocument):
    """Facts of `stages/evaluate.py`; what was not measured is None or absent.

    `energy` says why no joules were measured; `best_float` is the runtime in which the float model
    is fastest; `without_vnni` is of int8 ONNX files only. The last four are of targets that are not
    timed here: "ship" is then of the parity alone, and `select` holds the answers to the budget.
    `answered_by` is the emulator or simulator; `accelerator_share` the share of the operators
    that the accelerator runs.
    """

    target: str
    verdict: ShipVerdict
    evidence: Evidence
    reason: str
    size_bytes: int | None
    parity: AnswerParity | None
    latency_ms: LatencyQuantiles | None
    baseline_size_bytes: int | None = None
    plain_size_bytes: int | None = None
    threads: int | None = None
    batch_images: int | None = None
    best_float: str | None = None
    energy: str | None = None
    without_vnni: WithoutVnni | None = None
    answered_by: str | None = None
    accelerator_share: Share | None = None
    estimates: tuple[EstimatedFigure, ...] | None = None
    next_command: str | None = None

    @classmethod
    def unmeasured(cls, target: str, reason: str, size_bytes: int | None) -> EvaluateFacts:
        """Return the facts of a target that is refused, as nothing was measured."""
        return cls(
            target=target,
            verdict="refused",
            evidence="not measured",
            reason=reason,
            size_bytes=size_bytes,
            parity=None,
            latency_ms=None,
        )


class KernelKindTime(TypedDocument):
    """All kernels of one kind: how many, their ms, the share of it spent in int8."""

    kind: str
    """The runtime's name of the kernel's kind."""
    kernels: Count
    """Kernels of this kind."""
    ms: Milliseconds
    """Their time, of one image."""
    int8_share: Share
    """Share of that time spent in int8."""


class SlowKernel(TypedDocument):
    """One kernel's ms."""

    name: str
    """The runtime's name of the kernel."""
    kind: str
    """The runtime's name of its kind."""
    ms: Milliseconds
    """Its time, of one image."""


class KernelTimes(TypedDocument):
    """Where the time of one file goes, most first; `int8_bound` is what int8 can win at most."""

    ms: Milliseconds
    """Time of all kernels, of one image."""
    heavy_share: Share
    """Share of the time in convolutions and linear layers."""
    int8_share: Share
    """Share of the time spent in int8."""
    int8_bound: Times
    """How many times faster int8 alone could make it at most (Amdahl)."""
    kinds: tuple[KernelKindTime, ...]
    """Time by kind of kernel, most first."""
    slowest: tuple[SlowKernel, ...]
    """The slowest kernels, most first."""


class ProfileDocument(TypedDocument):
    """profile.json: of the float model and of the candidate, where the runtime has a profiler."""

    before: KernelTimes | None = None
    """The float model under ONNX Runtime; absent without a profiler."""
    after: KernelTimes | None = None
    """The target's file under its runtime; absent without a profiler."""

"""Evaluation job: one target's file, what runs it, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fettle.facts.export_facts import ExportFacts
from fettle.hardware import precisions
from fettle.hardware.precisions import Precision
from fettle.hardware.targets import Target
from fettle.params import Params
from fettle.recorder import Recorder
from fettle.stage_contract import Inputs


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """Evaluation job: what every part of the stage needs. `runtime` is the candidate's module."""

    params: Params
    inputs: Inputs
    recorder: Recorder
    target: Target
    runtime: ModuleType
    exported: ExportFacts

    @property
    def entry(self) -> Path:
        """The candidate's file."""
        return self.inputs["export"] / str(self.exported.entry)

    @property
    def baseline(self) -> Path:
        """The float model's file."""
        return self.inputs["finetune"] / "model.onnx"

    @property
    def is_plain(self) -> bool:
        """Whether the candidate is the form that every other is held against."""
        return self.target.runtime == "ort" and self.precision.is_float32

    @property
    def precision(self) -> Precision:
        """The record of the target's precision."""
        return precisions.named(self.target.precision)

"""Evaluation job: one target's file, what runs it, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fettle import manifest, params_scope
from fettle.data import split_reader
from fettle.data.split_reader import Images
from fettle.facts.export_facts import ExportFacts
from fettle.facts.finetune_facts import FinetuneFacts
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
    def float_params(self) -> Params:
        """The params with the side of the float model's images: the candidate's may be smaller."""
        facts = manifest.read(self.inputs["finetune"], FinetuneFacts, verify=False).facts
        return params_scope.at_side(self.params, facts.size_px)

    def float_images(self, images: Images, *, most: int | None = None) -> Images:
        """Return the float model's images of validation: `images`, the candidate's, or larger."""
        params = self.float_params
        if params.preprocess.side_px == self.params.preprocess.side_px:
            return images
        return split_reader.images(self.inputs, params, "validation", most=most)

    @property
    def is_plain(self) -> bool:
        """Whether the candidate is the form that every other is held against."""
        return self.target.runtime == "ort" and self.precision.is_float32

    @property
    def precision(self) -> Precision:
        """The record of the target's precision."""
        return precisions.named(self.target.precision)
